# SPDX-License-Identifier: Apache-2.0
"""Stored notifications on their way to one listener, many at once."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import enum
import errno
from typing import NamedTuple

import zmq

from zmq_driver import clock as clock_
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import farewell
from zmq_driver import sockets
from zmq_driver.client import retry as retry_
from zmq_driver.client import sender as sender_
from zmq_driver.store import base as store_

#: Notifications, and their bytes, that one listener is given at once. What
#: it has not handled it holds in its backlog. The socket must be able to
#: queue more than twice as many (socket_options.PIPE_STREAMED), because libzmq
#: takes note late of what has gone, and a full queue looks like a lost
#: connection.
WINDOW = 256
WINDOW_SIZE = 16 * 1024 * 1024
#: Pauses before a listener that was busy is given more.
BUSY_PAUSES = (0.02, 1.0)
#: Seconds after which a listener that is gone is tried again, if it is still
#: registered.
REST = 1.0
#: Seconds after which a stream that carries nothing is closed.
IDLE = 5.0
#: Errors of an endpoint that nobody can connect to.
_BAD_ENDPOINT = (
    errno.EINVAL,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.EPROTONOSUPPORT,
)


class Item:
    """A copy of a notification, from the store to a listener.

    Thread: drain.
    """

    __slots__ = ('asked', 'attempts', 'holder', 'refused_by', 'stored')

    def __init__(self, stored: store_.Stored) -> None:
        """Begin where the store knows it to be."""
        self.stored = stored
        #: Who may have it, and has to be asked first.
        self.holder = stored.holder
        #: How often somebody was given it.
        self.attempts = stored.attempts
        #: Who has refused it when he was asked, and refuses it for good
        #: unless it comes with RESENT (DL-58).
        self.refused_by: store_.Holder | None = None
        #: Whether it was sent with RESENT last time.
        self.asked = False


class State(enum.Enum):
    """What becomes of a stream."""

    CONNECTING = 'connecting'
    READY = 'ready'
    #: It was lost, and is made again after a pause.
    PAUSED = 'paused'
    #: The listener does not come back, or cannot be reached.
    GONE = 'gone'


class Answer(NamedTuple):
    """What a listener said to an item.

    Thread: any (immutable).
    """

    item: Item
    #: None: it was handled.
    reason: envelope.NackReason | None


class Stream:
    """One connection to one listener, made again if it is lost.

    Thread: drain.
    """

    def __init__(
        self,
        holder: store_.Holder,
        open_socket: Callable[[str], sockets.PeerSocket],
        counters: counters_.Counters,
        clock: clock_.Clock = clock_.monotonic,
    ) -> None:
        """Begin to connect to *holder*, which does not wait."""
        self.holder = holder
        self._open_socket = open_socket
        self._counters = counters
        self._clock = clock
        #: What was sent and is not answered, by message id.
        self.under_way: dict[bytes, Item] = {}
        self.state = State.PAUSED
        self._socket: sockets.PeerSocket | None = None
        self._size = 0
        self._ending = False
        #: Whether this process has no descriptor left for it.
        self.is_starved = False
        self._used_at = clock()
        self._pause_until = clock()
        self._busy = retry_.Backoff(*BUSY_PAUSES)
        self._busy_until = clock()
        self._begin_again()
        self._open()

    def room(self) -> int:
        """Return how many more it takes now."""
        if (
            self.state is not State.READY
            or self._ending
            or self._size >= WINDOW_SIZE
            or self._clock() < self._busy_until
        ):
            return 0
        return WINDOW - len(self.under_way)

    def is_over(self) -> bool:
        """Return whether there is no point in keeping it."""
        if self.under_way:
            return False
        rest = REST if self.state is State.GONE else IDLE
        return self._clock() - self._used_at > rest

    def advance(self) -> list[Item]:
        """Go on with connecting; return what is to be sent again.

        Those have this listener as their holder, unless it is gone: nobody
        will ever say what became of them then.
        """
        try:
            if self.state is State.PAUSED:
                if self._clock() >= self._pause_until:
                    self._open()
            elif self.state is State.CONNECTING:
                self._look_whether_connected()
            elif self._socket is not None and not self._socket.connected():
                # The last answers may have come right before the end.
                ending, self._ending = self._ending, True
                return self._lost() if ending else []
        except errors.PeerNotReady:
            self._failed()
        return []

    def send(self, item: Item, flags: int) -> bool:
        """Send an item; return whether it was handed to the connection."""
        if self._socket is None or self.state is not State.READY:
            return False
        stored = item.stored
        asked = self.holder in (item.holder, item.refused_by)
        header = envelope.encode_request(
            stored.message_id,
            stored.where.exchange,
            stored.where.topic,
            stored.pool or '',
            self.holder.incarnation,
            0.0,
            0.0,
            flags | (envelope.RESENT if asked else 0),
        )
        try:
            self._socket.send((header, stored.body))
        except errors.PeerNotReady:
            return False
        item.asked = asked
        item.holder = self.holder
        self._counters.add('requests_resent' if asked else 'requests_sent')
        self.under_way[stored.message_id] = item
        self._size += len(stored.body)
        self._used_at = self._clock()
        return True

    def answers(self) -> Iterator[Answer]:
        """Give what the listener has answered until now."""
        while (message := self._receive()) is not None:
            header = message.header
            if farewell.is_one(header):
                # The connection may stand for a moment, and nobody reads it.
                self._ending = True
                for item in self._take_all():
                    yield Answer(item, envelope.NackReason.UNKNOWN_TARGET)
                continue
            answered = self.under_way.get(header.message_id)
            if answered is None:
                continue
            if header.kind is envelope.Kind.ACK:
                self._finish(answered)
                self._busy = retry_.Backoff(*BUSY_PAUSES)
                yield Answer(answered, None)
            elif header.kind is envelope.Kind.NACK:
                self._finish(answered)
                reason = envelope.NackReason(header.reason)
                if reason is envelope.NackReason.BUSY:
                    self.rest()
                yield Answer(answered, reason)

    def rest(self) -> None:
        """Give the listener nothing for a while."""
        if self._clock() >= self._busy_until:
            self._busy_until = self._clock() + self._busy.pause()

    def close(self) -> None:
        """Close the connection."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _receive(self) -> envelope.Message | None:
        if self._socket is None:
            return None
        try:
            while (frames := self._socket.receive(0.0)) is not None:
                with contextlib.suppress(envelope.DecodeError):
                    return envelope.decode(frames)
        except errors.PeerLost:
            # The context ends, and with it everything.
            return None
        return None

    def _finish(self, item: Item) -> None:
        del self.under_way[item.stored.message_id]
        self._size -= len(item.stored.body)
        self._used_at = self._clock()

    def _take_all(self) -> list[Item]:
        items = list(self.under_way.values())
        self.under_way.clear()
        self._size = 0
        return items

    def _begin_again(self) -> None:
        """Allow for as many attempts as any other sender makes."""
        self._tries = sender_.RESEND_TRIES
        self._backoff = retry_.Backoff(*sender_.RESEND_PAUSES)
        self._connect_until = self._clock() + sender_.RESEND_WINDOW

    def _open(self) -> None:
        try:
            self._socket = self._open_socket(self.holder.endpoint)
        except zmq.ZMQError as error:
            if error.errno in _BAD_ENDPOINT:
                self._tries = 0
                self._failed()
                return
            # No descriptor is left, which says nothing about the listener.
            self.is_starved = True
            self.state = State.PAUSED
            self._pause_until = self._clock() + REST
            self._begin_again()
        else:
            self._tries -= 1
            self.is_starved = False
            self.state = State.CONNECTING

    def _look_whether_connected(self) -> None:
        if self._socket is not None and self._socket.wait_connected(0.0):
            self.state = State.READY
            self._ending = False
        elif self._clock() >= self._connect_until:
            self._tries = 0
            raise errors.PeerNotReady('no connection in time')

    def _failed(self) -> None:
        self.close()
        now = self._clock()
        if self._tries <= 0 or now >= self._connect_until:
            self.state = State.GONE
            self._used_at = now
            return
        self.state = State.PAUSED
        self._pause_until = now + self._backoff.pause()

    def _lost(self) -> list[Item]:
        """Return what was under way when the connection was lost."""
        self._counters.add('peers_lost')
        items = self._take_all()
        self._begin_again()
        self._failed()
        return items
