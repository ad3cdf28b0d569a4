# SPDX-License-Identifier: Apache-2.0
"""How often, and how soon, an attempt is made again. Policy only."""

from collections.abc import Callable
import random

from zmq_driver import address
from zmq_driver import clock


class Backoff:
    """Pauses that double, with jitter, between two bounds.

    Thread: any one.
    """

    __slots__ = ('_longest', '_next')

    def __init__(self, first: float, longest: float) -> None:
        """Begin with the first pause.

        :param first: seconds
        :param longest: seconds
        """
        self._next = first
        self._longest = longest

    def pause(self) -> float:
        """Return the seconds to pause now: half to all of the nominal."""
        pause = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._longest, self._next * 2)
        return pause


class Attempts:
    """Counts failed attempts against ``retry`` and the deadline.

    ``retry`` is oslo.messaging's: None or -1 is without limit, 0 is one
    attempt, N is at most N more.

    Thread: any one.
    """

    #: Pauses after every peer has refused: the first and the longest.
    PAUSES = (0.01, 0.5)

    def __init__(
        self,
        retry: int | None,
        deadline: clock.Deadline,
        sleep: Callable[[float], object],
    ) -> None:
        """Begin.

        :param sleep: waits for the given seconds, or less if there is no
            point in waiting any more
        """
        self.deadline = deadline
        #: Routes that refused a message when it was sent again (DL-58).
        self.refused_again: set[address.Route] = set()
        self._left = None if retry is None or retry < 0 else retry
        self._sleep = sleep
        self._backoff = Backoff(*self.PAUSES)

    @property
    def limited(self) -> bool:
        """Whether the number of retries is limited."""
        return self._left is not None

    def none_left(self) -> bool:
        """Return whether the next failure would be the last."""
        return self._left == 0

    def failed(self) -> bool:
        """Count a failed attempt; return whether another may follow."""
        if self._left is not None:
            if self._left == 0:
                return False
            self._left -= 1
        return not self.deadline.passed()

    def pause(self) -> None:
        """Wait a little longer than last time."""
        self._sleep(min(self._backoff.pause(), self.deadline.left()))
