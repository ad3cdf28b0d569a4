# SPDX-License-Identifier: Apache-2.0
"""A queue of the store, as the process knows it that drains it."""

import collections
from collections.abc import Sequence

from zmq_driver.client import retry as retry_
from zmq_driver.client import stream as stream_
from zmq_driver.store import base as store_

#: Pauses between two looks for members of a pool that has none.
NOBODY_PAUSES = (0.05, 1.0)
#: Listeners of which is remembered that they cannot be asked.
MAX_GONE = 1000


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
        #: Whether only what listeners may have was taken.
        self.partial = False
        #: Taken, and under way to nobody.
        self.waiting: collections.deque[stream_.Item] = collections.deque()
        #: Taken and not done.
        self.items = 0
        self.size = 0
        self._nobody = retry_.Backoff(*NOBODY_PAUSES)
        self._gone: set[store_.Holder] = set()
        self.paused_until = now

    def is_idle(self) -> bool:
        """Return whether nothing is under way."""
        return self.items == len(self.waiting)

    def add(self, copies: Sequence[store_.Stored]) -> None:
        """Take note of copies that were taken."""
        self.waiting.extend(stream_.Item(one) for one in copies)
        self.items += len(copies)
        self.size += sum(len(one.body) for one in copies)

    def drop(self, size: int) -> None:
        """Take note that a copy is dealt with, which had so many bytes."""
        self.items -= 1
        self.size -= size

    def is_held(self) -> bool:
        """Return whether something waits that a listener may have."""
        return any(self.may_have(item.holder) for item in self.waiting)

    def add_held(self, copies: Sequence[store_.Stored]) -> None:
        """Have only copies that some listener may have, and can be asked."""
        self.put_back()
        self.add([one for one in copies if self.may_have(one.holder)])
        self.partial = True

    def may_have(self, holder: store_.Holder | None) -> bool:
        """Return whether there is a holder that may answer."""
        return holder is not None and holder not in self._gone

    def give_up(self, holder: store_.Holder) -> None:
        """Let others have what a listener had that does not come back."""
        if len(self._gone) >= MAX_GONE:
            self._gone.clear()
        self._gone.add(holder)
        for item in self.waiting:
            if item.holder == holder:
                item.holder = None

    def put_back(self) -> None:
        """Forget what was taken, of which nothing is under way."""
        self.waiting.clear()
        self.items = self.size = self.taken = 0
        self.exhausted = self.partial = False

    def begin_pause(self, now: float) -> None:
        """Do nothing for a while, because nobody is there."""
        self.paused_until = now + self._nobody.pause()

    def found(self) -> None:
        """Take note that somebody is there."""
        self._gone.clear()
        self._nobody = retry_.Backoff(*NOBODY_PAUSES)
