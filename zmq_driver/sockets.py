# SPDX-License-Identifier: Apache-2.0
"""The two kinds of socket that the driver opens, and who may use them."""

from collections.abc import Sequence

import zmq
from zmq import backend

from zmq_driver import clock
from zmq_driver import closing
from zmq_driver import connecting
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import holding
from zmq_driver import ownership
from zmq_driver import socket_options

# Plain integers: pyzmq's enums cost more to combine than a frame to send.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_FD = int(zmq.FD)
_RCVTIMEO = int(zmq.RCVTIMEO)
# What zmq.Socket.send() wraps for sockets of other kinds, in half the time.
_send_frame = backend.Socket.send


def _events(socket: 'zmq.Socket[bytes]') -> int:
    return int(socket.get(_EVENTS))


def _send(socket: 'zmq.Socket[bytes]', frames: Sequence[bytes]) -> None:
    for frame in frames[:-1]:
        _send_frame(socket, frame, _MORE)
    _send_frame(socket, frames[-1], _NOBLOCK)


def _receive(socket: 'zmq.Socket[bytes]', flags: int) -> list[bytes]:
    # A Frame knows whether another one follows; to ask the socket takes as
    # long as to receive.
    frame = socket.recv(flags, copy=False)
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(flags, copy=False)
        frames.append(frame.bytes)
    return frames


class PeerSocket(ownership.Owned):
    """A DEALER with one connection to one peer, for its whole life.

    It never reconnects: once the connection is gone, the socket reports that
    it is not connected, for ever. So a message can only have gone to the
    process that was there when the connection was made, and a peer that was
    restarted between two looks cannot be taken for the old one.

    Thread: owner only (checked).
    """

    __slots__ = (
        '_connector',
        '_context',
        '_endpoint',
        '_heartbeats',
        '_most_sent',
        '_options',
        '_rcvtimeo_ms',
        '_socket',
    )

    def __init__(
        self,
        context: context_.DriverContext,
        endpoint: str,
        options: socket_options.SocketOptions,
        most_sent: int = socket_options.PIPE_SENT,
        *,
        heartbeats: bool = True,
    ) -> None:
        """Open the socket and start to connect; does not wait.

        :param most_sent: messages that libzmq holds before they have gone
        :param heartbeats: whether to notice a peer that says nothing
        :raises zmq.ZMQError: no descriptor is left, or a bad endpoint
        """
        super().__init__()
        self._context = context
        self._endpoint = endpoint
        self._options = options
        self._most_sent = most_sent
        self._heartbeats = heartbeats
        self._rcvtimeo_ms = -1
        #: Makes the connection, until there is one.
        self._connector: connecting.Connector | None = connecting.Connector(
            context, endpoint, self._open
        )
        self._socket = self._connector.socket

    def _open(self) -> 'zmq.Socket[bytes]':
        socket = self._context.socket(zmq.DEALER)
        try:
            socket_options.configure(socket, self._options)
            if self._heartbeats:
                socket_options.configure_heartbeats(socket, self._options)
            socket.set(zmq.RCVHWM, 0)
            socket_options.configure_keepalive(socket, self._options.keepalive)
            # Queue nothing for a peer that is not connected, so that a send
            # either reaches the connection or reports EAGAIN.
            socket.set(zmq.IMMEDIATE, 1)
            socket.set(zmq.SNDHWM, self._most_sent)
            socket.set(zmq.RECONNECT_IVL, -1)
            # The router has to know of the connection before it hears a
            # request, so that it can take leave (DL-70).
            socket.set(zmq.PROBE_ROUTER, 1)
            socket.set(
                zmq.CONNECT_TIMEOUT,
                socket_options.milliseconds(self._options.connect_timeout),
            )
        except BaseException:
            socket.close(0)
            raise
        return socket

    def wait_connected(self, timeout: float) -> bool:
        """Wait until the handshake with the peer is done.

        :param timeout: seconds
        :returns: False if it is not done yet
        :raises errors.PeerNotReady: it is known that it never will be
        """
        self.check_owner()
        deadline = clock.Deadline(timeout)
        try:
            if self._connector and not self._wait_for(
                self._connector, timeout
            ):
                return False
            return bool(
                self._socket.poll(
                    socket_options.milliseconds(deadline.left()), zmq.POLLOUT
                )
            )
        except zmq.ContextTerminated:
            return False

    def _wait_for(
        self, connector: connecting.Connector, timeout: float
    ) -> bool:
        try:
            done = connector.wait(timeout)
        except errors.PeerNotReady as error:
            raise errors.PeerNotReady(
                f'no connection to {self._endpoint}: {error}'
            ) from None
        except zmq.ContextTerminated:
            raise
        except zmq.ZMQError as error:
            raise errors.PeerNotReady(
                f'cannot open a socket to {self._endpoint}: {error}'
            ) from error
        finally:
            self._socket = connector.socket
        if done:
            self._connector = None
            connector.close()
        return done

    def connected(self) -> bool:
        """Return whether the connection stands, as far as is known now."""
        self.check_owner()
        try:
            return bool(_events(self._socket) & _POLLOUT)
        except zmq.ContextTerminated:
            return False

    def quiet(self) -> bool:
        """Return whether the connection stands and nothing has come in."""
        self.check_owner()
        try:
            return _events(self._socket) == _POLLOUT
        except zmq.ContextTerminated:
            return False

    def fileno(self) -> int:
        """Return what tells of news: of the connection, until it stands.

        A descriptor is edge-triggered, see :meth:`RouterSocket.fileno`, and
        not the same after :meth:`wait_connected`; -1 if there is none.
        """
        self.check_owner()
        if self._connector is not None:
            return self._connector.fileno()
        try:
            return int(self._socket.get(_FD))
        except zmq.ContextTerminated:
            return -1

    def healthy(self) -> bool:
        """Return whether the socket can begin an exchange.

        An idle socket that has something to read got what nobody waits for;
        it is not used again. One that was opened ahead may not be connected.
        """
        self.check_owner()
        try:
            if self._connector and not self._wait_for(self._connector, 0.0):
                return False
            return _events(self._socket) == _POLLOUT
        except (zmq.ContextTerminated, errors.PeerNotReady):
            return False

    def send(self, frames: Sequence[bytes]) -> None:
        """Hand one message to the connection; does not wait.

        :raises errors.PeerNotReady: not connected or full; nothing was sent
        """
        self.check_owner()
        try:
            _send(self._socket, frames)
        except (zmq.Again, zmq.ContextTerminated):
            raise errors.PeerNotReady(
                f'{self._endpoint} is not connected'
            ) from None

    def receive(self, timeout: float) -> list[bytes] | None:
        """Return the next message, or None when none came in time.

        :param timeout: seconds
        """
        self.check_owner()
        rcvtimeo_ms = socket_options.milliseconds(timeout)
        try:
            if rcvtimeo_ms != self._rcvtimeo_ms:
                self._socket.set(_RCVTIMEO, rcvtimeo_ms)
                self._rcvtimeo_ms = rcvtimeo_ms
            return _receive(self._socket, 0)
        except zmq.Again:
            return None
        except zmq.ContextTerminated:
            raise errors.PeerLost(
                f'the transport was cleaned up during an exchange with '
                f'{self._endpoint}; the message may have run'
            ) from None

    def close(self) -> None:
        """Close the socket; what was sent lingers for ``linger`` seconds."""
        self.check_owner()
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.close()
        self._socket.close()

    def __repr__(self) -> str:
        return f'<PeerSocket {self._endpoint}>'


class RouterSocket(ownership.Owned):
    """The bound ROUTER of a driver instance.

    Thread: owner only (checked); the channel's lock makes its holder the
    owner.
    """

    __slots__ = (
        '_bound_too',
        '_context',
        '_endpoint',
        '_linger',
        '_socket',
        'full',
    )

    def __init__(
        self,
        context: context_.DriverContext,
        endpoint: str,
        options: socket_options.SocketOptions,
    ) -> None:
        """Open the socket and bind it.

        :raises zmq.ZMQError: the endpoint cannot be bound
        """
        super().__init__()
        #: Whether the last message was not sent because libzmq holds too
        #: many for that peer; there may be room a moment later.
        self.full = False
        self._context = context
        self._endpoint = endpoint
        self._bound_too = ''
        self._linger = options.linger
        self._socket = context.socket(zmq.ROUTER)
        try:
            socket_options.configure(self._socket, options)
            # No heartbeats: those of the clients are answered, see
            # socket_options.configure_heartbeats().
            self._socket.set(zmq.RCVHWM, socket_options.PIPE_RECEIVED)
            socket_options.configure_keepalive(
                self._socket,
                options.keepalive
                if options.keepalive.on
                else socket_options.CLIENTS_ALIVE,
            )
            # Report what cannot be routed instead of dropping it silently.
            self._socket.set(zmq.ROUTER_MANDATORY, 1)
            self._socket.set(zmq.BACKLOG, socket_options.LISTEN_BACKLOG)
            self._socket.bind(endpoint)
        except BaseException:
            self._socket.close(0)
            raise

    def bind(self, endpoint: str) -> None:
        """Bind to one more endpoint.

        :raises zmq.ZMQError: it cannot be bound; the others stay
        """
        self.check_owner()
        self._socket.bind(endpoint)
        self._bound_too = self.bound_to()

    def bound_to(self) -> str:
        """Return where it was bound last, as libzmq spells it."""
        self.check_owner()
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def fileno(self) -> int:
        """Return ZMQ_FD: edge-triggered, see libzmq's zmq_getsockopt(3)."""
        self.check_owner()
        return int(self._socket.get(_FD))

    def readable(self) -> bool:
        """Return whether a message can be received now."""
        self.check_owner()
        return bool(_events(self._socket) & _POLLIN)

    def receive(self) -> list[bytes] | None:
        """Return the next message, or None when there is none now."""
        self.check_owner()
        try:
            # A routing id never comes alone.
            routing_id = self._socket.recv(_NOBLOCK)
            return [routing_id, *_receive(self._socket, _NOBLOCK)]
        except zmq.Again:
            return None

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send to the peer that the first frame names; does not wait.

        :returns: False when that peer is gone, or reads nothing
        """
        self.check_owner()
        try:
            _send(self._socket, frames)
        except zmq.ZMQError as error:
            self.full = error.errno == zmq.EAGAIN
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN, zmq.ETERM):
                return False
            raise
        return True

    def close(self, sending: float = 0.0) -> None:
        """Close the socket, and wait until what was sent has gone out.

        :param sending: the seconds that it may take at most, besides
            ``linger``, before libzmq gives up
        """
        self.check_owner()
        closing.close_when_sent(
            self._context, self._socket, sending + self._linger
        )

    def close_when_read(self, sending: float) -> None:
        """Close the socket when clients have read what was sent.

        :param sending: as with :meth:`close`
        """
        self.check_owner()
        deadline = clock.Deadline(sending + self._linger)
        held = holding.Held(self._endpoint, self._bound_too)
        try:
            self.close(sending)
            held.wait(deadline.within(self._linger))
        finally:
            held.close()

    def __repr__(self) -> str:
        return f'<RouterSocket {self._endpoint}>'
