# SPDX-License-Identifier: Apache-2.0
"""Makes connections, and knows at once when that fails.

libzmq tells the owner of a socket nothing about a connection that does not
come about. It tells a monitor, which a socket has here until its handshake is
done and no longer. ``doc/specs/listening.rst`` has the measurements.
"""

from collections.abc import Callable
import contextlib
import errno
import ipaddress
import itertools
import math
import os
import struct

import zmq

from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import resolver

TCP = 'tcp://'

#: Seconds after which the next address of a host is tried while the one
#: before is silent: the Connection Attempt Delay of RFC 8305.
ADDRESS_PAUSE = 0.25

_DONE = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_UNREACHABLE = int(zmq.EVENT_CLOSED)
_BROKEN = int(
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
#: An event of a monitor: its kind and a value.
_EVENT = struct.Struct('=HI')

_PAIR = int(zmq.PAIR)
_FD = int(zmq.FD)
#: Descriptors that must be free when a connection is begun.
SPARE_DESCRIPTORS = 4
_NUMBERS = itertools.count()

_PROBLEMS = {
    _UNREACHABLE: 'nobody listens there, or the host cannot be reached',
    _BROKEN: 'what listens there closed it and is no server of this driver',
}


class Watch:
    """Follows one fresh socket until its handshake has ended.

    A socket that does not reconnect has a handful of events in its life, so
    the I/O thread never waits for room in the monitor's queue.

    Thread: owner only (of the socket).
    """

    __slots__ = ('_events', '_socket')

    def __init__(
        self, context: context_.DriverContext, socket: 'zmq.Socket[bytes]'
    ) -> None:
        """Watch *socket*, which is not connecting yet.

        :raises zmq.ZMQError: no descriptor is left
        """
        address = f'inproc://watch-{next(_NUMBERS)}'
        self._socket = socket
        self._events = context.socket(_PAIR)
        try:
            socket.monitor(address, _DONE | _UNREACHABLE | _BROKEN)
            self._events.connect(address)
        except BaseException:
            self.close()
            raise

    def wait(self, timeout: float) -> bool | None:
        """Wait for the end of the handshake.

        :param timeout: seconds
        :returns: True when it is done, None when nothing is known yet
        :raises errors.PeerNotReady: it has failed
        """
        if not self._events.poll(math.ceil(timeout * 1000), zmq.POLLIN):
            return None
        event, _value = _EVENT.unpack(self._events.recv_multipart()[0])
        if event == _DONE:
            return True
        kind = _BROKEN if event & _BROKEN else _UNREACHABLE
        raise errors.PeerNotReady(_PROBLEMS[kind])

    def fileno(self) -> int:
        """Return the descriptor that tells of news, edge-triggered."""
        return int(self._events.get(_FD))

    def close(self) -> None:
        """Stop to watch; the socket itself stays as it is."""
        # A context that ends has ended the monitor too.
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._events.close(0)


class Connector:
    """Connects a DEALER to an endpoint, or to one address of a TCP host.

    ``socket`` is the DEALER; it is another one after each address that was of
    no use, so that there is never more than one connection.

    Thread: owner only (of the socket).
    """

    __slots__ = (
        '_addresses',
        '_context',
        '_host',
        '_lookup',
        '_open',
        '_patience',
        '_port',
        '_problem',
        '_watch',
        'socket',
    )

    def __init__(
        self,
        context: context_.DriverContext,
        endpoint: str,
        open_socket: Callable[[], 'zmq.Socket[bytes]'],
    ) -> None:
        """Begin to connect, or to look up the host; does not wait.

        :param endpoint: ``tcp://host:port``, or ``ipc://path``
        :param open_socket: returns a DEALER that never reconnects
        :raises zmq.ZMQError: no descriptor is left, or a bad endpoint
        """
        self._context = context
        self._open = open_socket
        self._host = self._port = ''
        if endpoint.startswith(TCP):
            self._host, _, self._port = endpoint[len(TCP) :].rpartition(':')
        self._addresses: list[str] = []
        self._lookup: resolver.Lookup | None = None
        self._watch: Watch | None = None
        self._patience = clock.Deadline(math.inf)
        self._problem: errors.PeerNotReady | None = None
        self.socket = open_socket()
        try:
            if not self._host or _is_address(self._host):
                self._connect(endpoint)
            else:
                self._lookup = context.resolver.lookup(self._host)
                self._begin()
        except BaseException:
            self.close()
            self.socket.close(0)
            raise

    def _begin(self) -> None:
        """Connect already if the addresses are known."""
        with contextlib.suppress(errors.PeerNotReady):
            self._wait_for_address(clock.Deadline(0.0))

    def wait(self, timeout: float) -> bool:
        """Wait until the handshake is done; may be called again if not.

        :param timeout: seconds
        :raises errors.PeerNotReady: there will be none
        :raises zmq.ZMQError: no descriptor is left
        """
        if self._problem is not None:
            raise self._problem
        deadline = clock.Deadline(timeout)
        try:
            while not self._wait_for_address(deadline):
                if deadline.passed():
                    return False
        except errors.PeerNotReady as error:
            self._problem = error
            self._context.resolver.forget(self._host)
            raise
        return True

    def fileno(self) -> int:
        """Return the descriptor that tells of news, edge-triggered.

        It is another one after :meth:`wait`; -1 if there is none.
        """
        try:
            return self._watch.fileno() if self._watch is not None else -1
        except zmq.ContextTerminated:
            return -1

    def close(self) -> None:
        """End the watch; the socket stays."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _wait_for_address(self, deadline: clock.Deadline) -> bool:
        """Wait for the address whose turn it is."""
        if self._watch is None:
            if self._lookup is not None:
                self._wait_for_lookup(self._lookup, deadline.left())
            return False
        try:
            if self._watch.wait(min(deadline.left(), self._patience.left())):
                return True
        except errors.PeerNotReady:
            if not self._addresses:
                raise
            self._connect_to_next()
        else:
            if self._patience.passed():
                self._connect_to_next()
        return False

    def _wait_for_lookup(
        self, lookup: resolver.Lookup, timeout: float
    ) -> None:
        addresses = lookup.wait(timeout)
        if addresses is not None:
            self._addresses = list(addresses)
            self._connect_to_next()

    def _connect_to_next(self) -> None:
        if self._watch is not None:
            self.close()
            self.socket.close(0)
            self.socket = self._open()
        address = self._addresses.pop(0)
        self._patience = clock.Deadline(
            ADDRESS_PAUSE if self._addresses else math.inf
        )
        self._connect(f'{TCP}{address}:{self._port}')

    def _connect(self, endpoint: str) -> None:
        self._watch = Watch(self._context, self.socket)
        _need_descriptors()
        self.socket.connect(endpoint)


def _need_descriptors() -> None:
    """Raise ZMQError unless some descriptors are left.

    libzmq ends the whole process if it finds none while it connects to a TCP
    address (ip_resolver.cpp). Others may take them in between, so this is no
    more than likely to help.
    """
    found: list[int] = []
    try:
        for _ in range(SPARE_DESCRIPTORS):
            found.append(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError as error:
        raise zmq.ZMQError(error.errno or errno.EMFILE) from error
    finally:
        for fd in found:
            os.close(fd)


def _is_address(host: str) -> bool:
    """Return whether *host* needs no look-up."""
    if host.startswith('['):
        return True
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
