# SPDX-License-Identifier: Apache-2.0
"""A queue of the store, as the process knows it that drains it."""

import collections

from zmq_driver.client import retry as retry_
from zmq_driver.client import stream as stream_
from zmq_driver.store import base as store_

#: Pauses between two looks for members of a pool that has none.
NOBODY_PAUSES = (0.05, 1.0)


class WaitingQueue:
    """A queue of the store that somebody has to be found for.

    Thread: drain.
    """

    def __init__(self, queue: store_.Queue, now: float) -> None:
        """Begin with nothing taken."""
        self.number = queue.number
        self.where = queue.where
        self.pool = queue.pool
        #: The number of the last copy that was taken.
        self.taken = 0
        #: Whether the store had no more when it was asked last.
        self.exhausted = False
        #: Taken, and under way to nobody.
        self.waiting: collections.deque[stream_.Item] = collections.deque()
        #: Taken and not done.
        self.items = 0
        self.size = 0
        self._nobody = retry_.Backoff(*NOBODY_PAUSES)
        self.paused_until = now

    def put_back(self) -> None:
        """Forget what was taken, of which nothing is under way."""
        self.waiting.clear()
        self.items = self.size = self.taken = 0
        self.exhausted = False

    def begin_pause(self, now: float) -> None:
        """Do nothing for a while, because nobody is there."""
        self.paused_until = now + self._nobody.pause()

    def found(self) -> None:
        """Take note that somebody is there."""
        self._nobody = retry_.Backoff(*NOBODY_PAUSES)
