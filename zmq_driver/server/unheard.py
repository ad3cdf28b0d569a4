# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements that reached nobody, until they are asked for again."""

import collections
import threading
import time

from zmq_driver import clock as clock_
from zmq_driver import envelope

#: Messages that are remembered; the oldest are forgotten first.
MAX_LOST = 10_000
#: Seconds between two looks while they are waited for.
PAUSE = 0.01


class Unheard:
    """Knows which messages were dealt with, and their senders do not.

    A notifier that does not wait any longer stores its notification. Whoever
    drains that asks the listener what became of it; but if the listener has
    gone by then, nobody knows, and another one is given what this one has
    handled.

    Thread: any.
    """

    def __init__(self, clock: clock_.Clock = clock_.monotonic) -> None:
        """Begin with none."""
        self._clock = clock
        self._lock = threading.Lock()
        # Message id, and monotonic seconds; the oldest first.
        self._lost: collections.OrderedDict[bytes, float] = (
            collections.OrderedDict()
        )

    def lost(self, frame: bytes) -> None:
        """Take note of an answer that could not be sent; it does not wait.

        :param frame: its header, as it is on the wire
        """
        try:
            header = envelope.decode((frame, b'')).header
        except envelope.DecodeError:
            return
        if header.kind is not envelope.Kind.ACK:
            return
        with self._lock:
            self._lost[header.message_id] = self._clock()
            self._lost.move_to_end(header.message_id)
            if len(self._lost) > MAX_LOST:
                self._lost.popitem(last=False)

    def asked(self, message_id: bytes) -> None:
        """Take note that somebody asks what became of a message."""
        if self._lost:
            with self._lock:
                self._lost.pop(message_id, None)

    def is_any(self, ttl: float) -> bool:
        """Return whether somebody may still ask.

        :param ttl: seconds for which that may happen
        """
        with self._lock:
            if not self._lost:
                return False
            newest = self._lost[next(reversed(self._lost))]
        return self._clock() - newest < ttl

    def wait(self, ttl: float, deadline: clock_.Deadline) -> None:
        """Wait until nobody is expected to ask any more.

        :param ttl: as for :meth:`is_any`
        """
        while self.is_any(ttl) and not deadline.passed():
            time.sleep(min(PAUSE, deadline.left()))
