# SPDX-License-Identifier: Apache-2.0
"""Asking again in the background for addresses that are in use."""

from collections.abc import Callable
import logging
import threading

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import threads

LOG = logging.getLogger(__name__)

#: Seconds after which the thread looks round unasked.
LOOK_ROUND = 5.0

Refresh = Callable[[address.Address], object]


class Refresher:
    """Calls a function for addresses at their times, one after the other.

    Its thread starts with the first request.

    Thread: any.
    """

    def __init__(
        self,
        member: str,
        refresh: Refresh,
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Request nothing yet.

        :param member: the member that it works for
        :param refresh: called without any lock held; what it raises is logged
        """
        self._member = member
        self._refresh = refresh
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[address.Address, float] = {}
        self._thread = threads.LazyThread('refresh', member)
        self._stopped = False

    def request(self, where: address.Address, at: float) -> None:
        """Refresh an address at a time, or sooner if that was requested.

        :param at: by the clock of this object
        """
        with self._changed:
            if self._stopped:
                return
            known = self._due.get(where)
            if known is not None and known <= at:
                return
            self._due[where] = at
            self._changed.notify()
        self._thread.start(self._run)

    def stop(self, deadline: clocks.Deadline) -> bool:
        """End; return whether the thread has ended."""
        with self._changed:
            self._stopped = True
            self._due.clear()
            self._changed.notify()
        return self._thread.end(deadline)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def forget(self) -> None:
        """Let go of what a forked child inherited, and begin anew."""
        self._changed = threading.Condition()
        self._due = {}
        self._thread = threads.LazyThread('refresh', self._member)

    def _run(self) -> None:
        while True:
            where = self._next()
            if where is None:
                return
            try:
                self._refresh(where)
            except Exception:
                LOG.exception('Looking up %s again failed by a defect', where)

    def _next(self) -> address.Address | None:
        """Wait for the next address; None if there will be none."""
        with self._changed:
            while not self._stopped:
                pause = LOOK_ROUND
                if self._due:
                    where = min(self._due, key=self._due.__getitem__)
                    pause = min(pause, self._due[where] - self._clock())
                    if pause <= 0:
                        del self._due[where]
                        return where
                self._changed.wait(pause)
            return None
