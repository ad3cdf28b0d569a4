# SPDX-License-Identifier: Apache-2.0
"""The ROUTER socket of a driver, shared by the threads that answer.

The router thread receives. Answers are made by other threads, and take one of
two ways. While the router thread sleeps, whoever has an answer sends it
itself: waking a thread to do it would add its wake-up, and the wait for the
interpreter lock, to every call. While the router thread is awake, answers
wait in the outbox until it looks there next, which is soon, and nobody has to
wait for the socket's lock. ``doc/specs/thread-ownership.rst`` has the
measurements.

A libzmq socket may pass from thread to thread if a full memory barrier lies
in between, which the lock is. What must be minded is that ZMQ_FD, which the
router thread sleeps on, is edge-triggered: any use of the socket may swallow
the signal of a message that has just come in. So whoever has used the socket
looks whether it can be read, and wakes the router thread if so.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import logging
import select
import threading
import time

import zmq

from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import sockets
from zmq_driver.server import held
from zmq_driver.server import wakeup

LOG = logging.getLogger(__name__)

#: Seconds after which an idle router thread looks round unasked.
POLL_INTERVAL = 0.5

#: Seconds for which room for the last acknowledgements is waited for.
SETTLE = 0.5


class Channel:
    """Sends from any thread, receives on the router thread.

    Thread: any, except the methods that say: router.
    """

    def __init__(
        self,
        socket: sockets.RouterSocket,
        counters: counters_.Counters,
        lost: Callable[[bytes], None] | None = None,
    ) -> None:
        """Share *socket*, which the router thread has bound (router).

        :param lost: told the header of what could not be sent, with the lock
            held; it must not wait
        """
        self._socket = socket
        self._counters = counters
        self._lost = lost
        # Held for the time of a call into libzmq that does not wait.
        self._lock = threading.Lock()
        self._closed = False
        self._took_leave = False
        self._held = held.Held()
        self._outbox: collections.deque[Sequence[bytes]] = collections.deque()
        self._wakeup = wakeup.Wakeup()
        self._poll = select.poll()
        self._poll.register(socket.fileno(), select.POLLIN)
        self._poll.register(self._wakeup.fd, select.POLLIN)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send to the peer that the first frame names, or drop and count.

        It does not wait for anything.
        """
        if not (self._wakeup.asleep and self._send_directly(frames)):
            self._outbox.append(frames)
            self._wakeup.set()

    def _send_directly(self, frames: Sequence[bytes]) -> bool:
        """Send while the router thread sleeps; return whether that was so."""
        if not self._lock.acquire(blocking=False):
            return False
        # Until the socket has been looked at, the signal may be gone.
        signal_taken = True
        try:
            # It may have woken up before the lock was ours. It cannot go to
            # sleep again without having held the lock.
            if not self._wakeup.asleep:
                signal_taken = False
                return False
            self._socket.hand_over(threading.current_thread())
            self._send_locked(frames)
            # What is held is sent by the router thread.
            signal_taken = self._readable_locked() or bool(self._held)
        finally:
            self._lock.release()
            if signal_taken:
                self._wakeup.set()
        return True

    def wake(self) -> None:
        """Let the router thread return from :meth:`wait`."""
        self._wakeup.set()

    def wait(self, is_wanted: Callable[[], bool]) -> None:
        """Sleep until there is something to receive or to send (router).

        Only after :meth:`receive` has returned None: that look at the socket
        is what lets ZMQ_FD tell about the next message.

        :param is_wanted: tells whether the thread has other things to do;
            whoever makes it true calls :meth:`wake` afterwards
        """
        self._wakeup.sleep_begins()
        try:
            if not (self._outbox or is_wanted()):
                pause = held.PAUSE if self._held else POLL_INTERVAL
                self._poll.poll(pause * 1000)
        finally:
            self._wakeup.sleep_ends()

    def receive(self) -> list[bytes] | None:
        """Send what waits, and return the next message if any (router)."""
        with self._lock:
            self._socket.hand_over(threading.current_thread())
            self._flush_locked()
            if not self._socket.readable():
                return None
            return self._socket.receive()

    def take_leave(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Send what waits, and last messages that need no reader (router).

        A peer that has gone misses nothing, so it is not counted.
        """
        with self._lock:
            self._socket.hand_over(threading.current_thread())
            self._settle_locked()
            for frames in messages:
                if not self._held.holds(frames[0]):
                    self._socket.send(frames)
                else:
                    # Before the answers it would say that nothing ran.
                    self._held.add(frames)
            self._took_leave = True

    def close(self, sending: clock.Deadline) -> None:
        """Send what waits and close the socket (router).

        :param sending: when libzmq gives up, but for ``linger``, what it has
            not sent because its reader is slow
        """
        with self._lock:
            self._socket.hand_over(threading.current_thread())
            with contextlib.suppress(zmq.ZMQError):
                self._settle_locked()
            self._closed = True
            if self._took_leave:
                self._socket.close_when_read(sending.left())
            else:
                # What comes in now would seem to have been accepted.
                self._socket.close(sending.left())
        self._wakeup.close()

    def _flush_locked(self) -> None:
        if self._held:
            for frames in self._held.retry(
                self._socket.send, lambda: self._socket.full
            ):
                self._drop_locked(frames)
        while self._outbox:
            self._send_locked(self._outbox.popleft())

    def _settle_locked(self) -> None:
        """Send what waits; nobody waits for the lock, see :meth:`send`."""
        deadline = clock.Deadline(SETTLE)
        self._flush_locked()
        while self._held and not deadline.passed():
            time.sleep(held.PAUSE)
            self._flush_locked()

    def _send_locked(self, frames: Sequence[bytes]) -> None:
        if not self._closed:
            if self._socket.send(frames):
                return
            if self._socket.full and self._held.add(frames):
                return
        self._drop_locked(frames)

    def _drop_locked(self, frames: Sequence[bytes]) -> None:
        self._counters.add('replies_unroutable')
        LOG.debug(
            'an answer could not be sent: its client has gone, or reads '
            'nothing'
        )
        if self._lost is not None:
            self._lost(frames[1])

    def _readable_locked(self) -> bool:
        return not self._closed and self._socket.readable()
