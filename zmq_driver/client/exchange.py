# SPDX-License-Identifier: Apache-2.0
"""One request to one peer, and what comes back, over one leased socket."""

import itertools
import os
import struct

from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import farewell
from zmq_driver import pool as pool_
from zmq_driver import sockets

#: Seconds between two looks at the connection while an answer is awaited.
#: A killed peer is seen within one slice; a frozen one takes libzmq's
#: heartbeats.
SLICE = 0.05

#: Messages that are read when the time is up: the answer may be behind
#: heartbeats that came while this thread could not run.
LATE_LOOKS = 8

_SEQUENCE = struct.Struct('!Q')


class MessageIds:
    """Makes message ids that no other process and no fork makes.

    Eight random bytes of this maker and a count: an eighth of the cost of a
    random UUID.

    Thread: any.
    """

    def __init__(self) -> None:
        """Choose the random half."""
        self._prefix = os.urandom(envelope.ID_SIZE - _SEQUENCE.size)
        self._numbers = itertools.count()

    def next(self) -> bytes:
        """Return 16 bytes."""
        return self._prefix + _SEQUENCE.pack(next(self._numbers))


class Exchange:
    """A request that is sent once, and its answer.

    Thread: owner only (checked by the lease).
    """

    __slots__ = ('_counters', '_lease', '_message_id', '_socket')

    def __init__(
        self,
        lease: pool_.SocketLease[str, sockets.PeerSocket],
        message_id: bytes,
        counters: counters_.Counters,
    ) -> None:
        """Begin an exchange on *lease*.

        :param message_id: what answers are recognised by
        """
        self._lease = lease
        self._socket = lease.socket
        self._message_id = message_id
        self._counters = counters

    def connect(self, timeout: float) -> None:
        """Wait until there is a connection, which a used socket has.

        :param timeout: seconds
        :raises errors.PeerNotReady: there is none; nothing was sent
        """
        if not self._lease.fresh:
            return
        try:
            if self._socket.wait_connected(timeout):
                return
            raise errors.PeerNotReady(
                f'no connection to {self._lease.peer} within {timeout:.3f} s'
            )
        except errors.PeerNotReady:
            self._note_lost('requests_not_sent')
            raise

    def send(self, frames: tuple[bytes, bytes]) -> None:
        """Send the request.

        :raises errors.PeerNotReady: the connection is gone; nothing was sent
        """
        try:
            self._socket.send(frames)
        except errors.PeerNotReady:
            self._note_lost('requests_not_sent')
            raise
        self._counters.add('requests_sent')

    def receive(
        self,
        kind: envelope.Kind,
        deadline: clock.Deadline,
        monitor_timeout: float = 0.0,
    ) -> envelope.Message:
        """Wait for the answer.

        :param kind: what ends the wait, REPLY or ACK; a NACK always does
        :param monitor_timeout: seconds without a heartbeat of the server
            after which it is given up; 0.0 expects no heartbeats
        :returns: a message of that kind, or a NACK
        :raises errors.ReplyTimeout: none came by the deadline
        :raises errors.PeerLost: the connection is gone
        """
        monitor = deadline
        if monitor_timeout:
            monitor = deadline.within(monitor_timeout)
        looks = LATE_LOOKS
        while looks:
            left = deadline.left()
            if monitor_timeout:
                left = min(left, monitor.left())
            # What is here when the time is up counts.
            if left <= 0.0:
                looks -= 1
            frames = self._socket.receive(min(left, SLICE))
            if frames is None:
                if left <= 0.0:
                    break
                frames = self._look_for_peer()
            message = self._decode(frames) if frames is not None else None
            if message is not None:
                if message.header.kind in (kind, envelope.Kind.NACK):
                    return message
                if message.header.kind is envelope.Kind.HEARTBEAT:
                    # The call is being executed.
                    monitor = deadline.within(monitor_timeout)
        raise self.timed_out(deadline, monitor_timeout)

    def look(self, kind: envelope.Kind) -> envelope.Message | None:
        """Return the answer if it is here; does not wait.

        :param kind: as with :meth:`receive`
        :raises errors.PeerLost: the connection is gone
        """
        for _ in range(LATE_LOOKS):
            # What is asked first is cheaper than to find no message.
            if self._socket.quiet():
                break
            frames = self._socket.receive(0.0)
            if frames is None:
                frames = self._look_for_peer()
            message = self._decode(frames) if frames is not None else None
            if message is not None and message.header.kind in (
                kind,
                envelope.Kind.NACK,
            ):
                return message
        return None

    def timed_out(
        self, deadline: clock.Deadline, monitor_timeout: float = 0.0
    ) -> errors.ReplyTimeout:
        """Count that no answer came in time; return the error to raise."""
        self._counters.add('requests_timed_out')
        return errors.ReplyTimeout(
            self._describe_timeout(deadline, monitor_timeout)
        )

    def _look_for_peer(self) -> list[bytes] | None:
        """Return a last message if the connection is gone, None if not.

        :raises errors.PeerLost: it is gone, and left no message
        """
        socket = self._socket
        if socket.connected():
            return None
        # The answer may have come right before the end.
        frames = socket.receive(0.0)
        if frames is None:
            self._note_lost('peers_lost')
            raise errors.PeerLost(
                f'the server at {self._lease.peer} went away while it had '
                f'message {self._message_id.hex()}; it may have run'
            )
        return frames

    def _note_lost(self, counter: str) -> None:
        """Take note that the socket has no connection."""
        self._counters.add(counter)
        self._lease.retire(pool_.EvictReason.UNHEALTHY)

    def _decode(self, frames: list[bytes]) -> envelope.Message | None:
        try:
            message = envelope.decode(frames)
        except envelope.DecodeError as error:
            self._counters.add_undecodable(
                'dropped an answer from %s that does not parse: %s',
                self._lease.peer,
                error,
            )
            return None
        header = message.header
        if farewell.is_one(header):
            # The connection may stand for a moment, and nobody reads it.
            self._lease.retire(pool_.EvictReason.UNHEALTHY)
        elif header.message_id != self._message_id:
            self._counters.add('replies_late')
            return None
        return message

    def _describe_timeout(
        self, deadline: clock.Deadline, monitor_timeout: float
    ) -> str:
        what = (
            f'no reply to message {self._message_id.hex()} from '
            f'{self._lease.peer}'
        )
        if monitor_timeout and not deadline.passed():
            what += f', and no heartbeat for {monitor_timeout} s'
        else:
            what += f' within {deadline.timeout} s'
        return f'{what}; it may have run'
