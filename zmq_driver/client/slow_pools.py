# SPDX-License-Identifier: Apache-2.0
"""Listener pools that did not handle a notification in time."""

import threading

from zmq_driver import address
from zmq_driver import clock as clock_
from zmq_driver.client import retry

#: Seconds for which a pool is not waited for, the first time and at most. The
#: first is several times what finding out costs
#: (``notification_direct_timeout``): to store meanwhile costs little.
PAUSES = (4.0, 30.0)
#: Pools of which that is remembered.
MAX_POOLS = 10000


class SlowPools:
    """Keeps notifiers from waiting for the same slow pool again and again.

    What is for it goes to the store at once, for a pause that doubles, with
    jitter, as long as it goes on to be late. So those that are slow by
    nature, such as listeners for batches, cost a notifier little; and what
    comes behind a notification that was late does not overtake it.

    Thread: any.
    """

    def __init__(self, clock: clock_.Clock) -> None:
        """Take all pools for fast."""
        self._clock = clock
        self._lock = threading.Lock()
        # The pauses to come, and until when; written under the lock.
        self._slow: dict[
            tuple[address.Address, str], tuple[retry.Backoff, float]
        ] = {}

    def contains(self, where: address.Address, pool: str) -> bool:
        """Return whether not to wait for a pool now."""
        found = self._slow.get((where, pool))
        return found is not None and self._clock() < found[1]

    def late(self, where: address.Address, pool: str) -> None:
        """Take note that a pool did not answer in time."""
        now = self._clock()
        with self._lock:
            found = self._slow.get((where, pool))
            if found is not None and now < found[1]:
                # Others have waited at the same time, which counts once.
                return
            if len(self._slow) >= MAX_POOLS:
                self._slow.clear()
            backoff = found[0] if found else retry.Backoff(*PAUSES)
            self._slow[where, pool] = backoff, now + backoff.pause()

    def in_time(self, where: address.Address, pool: str) -> None:
        """Take note that a pool is fast."""
        if self._slow:
            with self._lock:
                self._slow.pop((where, pool), None)
