# SPDX-License-Identifier: Apache-2.0
"""A queue of the store, as the process knows it that drains it."""

import collections
from collections.abc import Sequence

from zmq_driver.client import retry as retry_
from zmq_driver.client import stream as stream_
from zmq_driver.store import base as store_

#: Copies of one queue, and their bytes, that are taken in turn; and as many
#: that listeners may have are taken out of turn.
TAKEN = 512
TAKEN_SIZE = 4 * 1024 * 1024
#: Seconds between two looks for those.
EARLY_PAUSE = 0.25
#: Seconds between two times that a queue is read from its beginning.
AGAIN_PAUSE = 1.0
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
        # The number of the last copy that was taken out of turn.
        self._taken_early = 0
        # What had been added to the store when nothing was found so.
        self._additions = -1
        self._early_at = self._again_at = now
        #: Taken, and under way to nobody.
        self.waiting: collections.deque[stream_.Item] = collections.deque()
        # The numbers of those that were taken and are not done; of them those
        # that were taken out of turn, which leave the others their room.
        self._numbers: set[int] = set()
        self._early: set[int] = set()
        #: Bytes of them.
        self.size = 0
        self._early_size = 0
        self._nobody = retry_.Backoff(*NOBODY_PAUSES)
        self._gone: set[store_.Holder] = set()
        self.paused_until = now

    def is_idle(self) -> bool:
        """Return whether nothing is under way."""
        return self.items == len(self.waiting)

    @property
    def items(self) -> int:
        """How many were taken and are not done."""
        return len(self._numbers)

    def look_again(self, copies: int, renumbers: bool, now: float) -> None:
        """Take note that the store may have more.

        :param copies: how many it has, those included that were taken
        :param renumbers: whether all that is new has larger numbers
        """
        if (
            self.exhausted
            and copies > self.items
            and not renumbers
            and now >= self._again_at
        ):
            # They may have come from another queue, with their old numbers.
            self.taken = 0
            self._again_at = now + AGAIN_PAUSE
        self.exhausted = False

    def take(self, store: store_.NotificationStore) -> None:
        """Take copies in turn, if none is left that anybody may get."""
        room = TAKEN - self.items + len(self._early)
        size = TAKEN_SIZE - self.size + self._early_size
        if self.exhausted or min(room, size) <= 0 or self._any_is_free():
            return
        copies = store.take(self.number, room, self.taken, size=size)
        self.waiting.extend(self._new(copies))
        self.taken = max([self.taken, *(one.key.number for one in copies)])
        self.exhausted = not copies

    def take_early(
        self, store: store_.NotificationStore, additions: int, now: float
    ) -> None:
        """Take out of turn what listeners may have, so that it comes first.

        They are asked as long as they are there, and remember it.

        :param additions: differs from last time if something was added
        """
        room = TAKEN - len(self._early)
        size = TAKEN_SIZE - self._early_size
        if (
            self._additions == additions
            or now < self._early_at
            or min(room, size) <= 0
        ):
            return
        self._early_at = now + EARLY_PAUSE
        after = max(self.taken, self._taken_early)
        copies = store.take(self.number, room, after, size=size, held=True)
        new = self._new(copies)
        self.waiting.extendleft(reversed(new))
        self._early.update(item.stored.key.number for item in new)
        self._early_size += sum(len(item.stored.body) for item in new)
        self._taken_early = max([after, *(one.key.number for one in copies)])
        if not copies:
            self._additions = additions

    def _any_is_free(self) -> bool:
        """Return whether one waits that no listener has to be asked for."""
        return any(item.holder is None for item in self.waiting)

    def drop(self, stored: store_.Stored) -> None:
        """Take note that a copy is dealt with."""
        number, size = stored.key.number, len(stored.body)
        self._numbers.discard(number)
        self.size -= size
        if number in self._early:
            self._early.discard(number)
            self._early_size -= size

    def is_held(self) -> bool:
        """Return whether something waits that a listener may have."""
        return any(self.may_have(item.holder) for item in self.waiting)

    def take_held(self, store: store_.NotificationStore) -> None:
        """Take nothing but what some listener may have, and can be asked."""
        self.put_back()
        copies = store.take(self.number, TAKEN, size=TAKEN_SIZE, held=True)
        self.waiting.extend(
            self._new([one for one in copies if self.may_have(one.holder)])
        )
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
        self._numbers.clear()
        self._early.clear()
        self.size = self._early_size = self.taken = self._taken_early = 0
        self._additions = -1
        self.exhausted = self.partial = False

    def begin_pause(self, now: float) -> None:
        """Do nothing for a while, because nobody is there."""
        self.paused_until = now + self._nobody.pause()

    def found(self) -> None:
        """Take note that somebody is there."""
        self._gone.clear()
        self._nobody = retry_.Backoff(*NOBODY_PAUSES)

    def _new(self, copies: Sequence[store_.Stored]) -> list[stream_.Item]:
        """Return those that were not taken before, out of turn or in turn."""
        new = [one for one in copies if one.key.number not in self._numbers]
        self._numbers.update(one.key.number for one in new)
        self.size += sum(len(one.body) for one in new)
        return [stream_.Item(one) for one in new]
