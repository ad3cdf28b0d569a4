# SPDX-License-Identifier: Apache-2.0
"""Time as an argument: the clock type, and the one kind of limit we use."""

from collections.abc import Callable
import time

#: Returns monotonic seconds as a float. Tests pass their own.
Clock = Callable[[], float]

monotonic: Clock = time.monotonic


class Deadline:
    """A point in time by which an operation must have ended.

    It is made once, where the operation enters the driver, and handed down:
    lookup, checkout, connect, send and reply all draw from the same one.

    Thread: any.
    """

    __slots__ = ('_at', '_clock', 'timeout')

    def __init__(self, timeout: float, clock: Clock = monotonic) -> None:
        """Start the deadline now.

        :param timeout: seconds from now; zero or less has already passed
        :param clock: source of monotonic seconds
        """
        self.timeout = timeout
        self._clock = clock
        self._at = clock() + timeout

    def left(self) -> float:
        """Return the seconds that are left, never less than 0.0."""
        return max(0.0, self._at - self._clock())

    def within(self, timeout: float) -> 'Deadline':
        """Return the deadline of a part of the operation.

        :param timeout: seconds that the part may take; it cannot take
            longer than the whole
        """
        return Deadline(min(timeout, self.left()), clock=self._clock)

    def passed(self) -> bool:
        """Return whether no time is left."""
        return self._clock() >= self._at

    def __repr__(self) -> str:
        return f'<Deadline {self.left():.3f} s of {self.timeout:.3f} s left>'
