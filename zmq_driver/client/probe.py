# SPDX-License-Identifier: Apache-2.0
"""Asks one listener whether it is there, without making it do anything.

For operators and their commands; messages of services never wait for it.
"""

from collections.abc import Callable
import enum
import socket as posix
import threading
import time
from typing import NamedTuple

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import hosts
from zmq_driver import sockets
from zmq_driver.client import exchange

#: Seconds that finding out why there is no connection may take.
SECOND_LOOK = 0.5


class Condition(enum.Enum):
    """What a probe finds."""

    #: The listener is there.
    ALIVE = 'alive'
    #: No connection: the process, its host or the way to it is gone.
    DEAD = 'dead'
    #: Connected, but nothing answers: the process hangs or is frozen.
    MUTE = 'mute'
    #: Something else answers: the record is about a process that is gone.
    WRONG = 'wrong'


class Finding(NamedTuple):
    """The outcome of one probe."""

    condition: Condition
    #: Seconds from the sending to the answer; None without an answer.
    seconds: float | None
    #: What to conclude.
    detail: str = ''


class Prober:
    """Probes one registration again and again, over one connection.

    Thread: owner only (checked by the socket).
    """

    def __init__(
        self,
        open_socket: Callable[[str], sockets.PeerSocket],
        registration: address.Registration,
    ) -> None:
        """Describe the probe; nothing is opened yet.

        :param open_socket: opens a socket to an endpoint
        """
        self._open_socket = open_socket
        self._where = registration.address
        self._route = registration.route
        self._ids = exchange.MessageIds()
        self._socket: sockets.PeerSocket | None = None

    def probe(self, timeout: float) -> Finding:
        """Ask once.

        :param timeout: seconds for the connection and the answer together
        """
        deadline = clock.Deadline(timeout)
        try:
            if self._socket is None:
                self._socket = self._open_socket(self._route.endpoint)
                self._socket.hand_over(threading.current_thread())
                if not self._socket.wait_connected(deadline.left()):
                    return self._not_connected(deadline)
            message_id = self._ids.next()
            start = time.perf_counter()
            self._socket.send((self._header(message_id, deadline), b''))
            return self._receive(message_id, start, deadline)
        except errors.PeerNotReady as error:
            return self._end(Condition.DEAD, str(error))

    def close(self) -> None:
        """Close the connection; idempotent."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _header(self, message_id: bytes, deadline: clock.Deadline) -> bytes:
        flags = envelope.WANT_ACK
        if self._where.scope is address.Scope.NOTIFICATION:
            flags |= envelope.NOTIFICATION
        return envelope.encode_request(
            message_id,
            self._where.exchange,
            self._where.topic,
            self._route.server,
            self._route.incarnation,
            deadline.left(),
            flags=flags,
            codec=envelope.CODEC_NONE,
        )

    def _receive(
        self, message_id: bytes, start: float, deadline: clock.Deadline
    ) -> Finding:
        socket = self._socket
        while socket is not None:
            frames = socket.receive(min(deadline.left(), exchange.SLICE))
            seconds = time.perf_counter() - start
            if frames is not None:
                finding = _judge(frames, message_id, seconds)
                if finding is not None:
                    return finding
            elif not socket.connected():
                return self._end(Condition.DEAD, 'the connection is gone')
            if deadline.passed():
                break
        return self._end(
            Condition.MUTE, f'no answer in {deadline.timeout:g} s'
        )

    def _not_connected(self, deadline: clock.Deadline) -> Finding:
        """Tell a process that hangs from a host that is not there.

        The kernel accepts connections for a process that is frozen.
        """
        if _is_accepted(self._route.endpoint):
            return self._end(
                Condition.MUTE,
                f'the connection is accepted, but nothing is said in '
                f'{deadline.timeout:g} s: the process is frozen or hangs',
            )
        return self._end(
            Condition.DEAD, f'no connection in {deadline.timeout:g} s'
        )

    def _end(self, condition: Condition, detail: str) -> Finding:
        self.close()
        return Finding(condition, None, detail)


def _is_accepted(endpoint: str) -> bool:
    """Return whether the system connects to an endpoint."""
    scheme, _, place = endpoint.partition('://')
    try:
        if scheme == 'ipc':
            with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as one:
                one.settimeout(SECOND_LOOK)
                one.connect(place)
            return True
        host, _, port = place.rpartition(':')
        where = (hosts.unbracketed(host), int(port))
        posix.create_connection(where, SECOND_LOOK).close()
    except (OSError, ValueError):
        return False
    return True


def _judge(
    frames: list[bytes], message_id: bytes, seconds: float
) -> Finding | None:
    """Return what an answer says, None if it answers something else."""
    try:
        header = envelope.decode(frames).header
    except envelope.DecodeError as error:
        return Finding(Condition.WRONG, seconds, f'it answers: {error}')
    if header.message_id != message_id:
        return None
    if header.kind is envelope.Kind.ACK:
        return Finding(Condition.ALIVE, seconds)
    if header.kind is envelope.Kind.NACK:
        reason = envelope.NackReason(header.reason)
        return Finding(Condition.WRONG, seconds, f'it refuses: {reason.name}')
    return Finding(Condition.WRONG, seconds, f'it answers {header.kind.name}')
