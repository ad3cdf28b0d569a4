# SPDX-License-Identifier: Apache-2.0
"""Renewing the registrations of a member, whatever happens to Redis."""

from collections.abc import Callable
import logging
import math
import random
import threading
from typing import Any

from futurist import periodics

from zmq_driver import clock as clocks
from zmq_driver import threads
from zmq_driver.client import retry
from zmq_driver.matchmaker import base

LOG = logging.getLogger(__name__)

#: Pauses after a renewal that failed, in seconds: the first and the longest.
#: The longest is how late, at most, Redis has everything again when it comes
#: back; it is long enough for thousands of processes.
PAUSES = (0.5, 5.0)

#: A period is shortened by up to this part of it, so that processes that
#: began together do not renew together for ever.
JITTER = 0.2

#: Seconds between two looks whether it is time; a tenth of the period if
#: that is less.
TICK = 1.0

#: Seconds between two warnings about renewals that fail.
WARNING_INTERVAL = 30.0


class Renewal:
    """Calls a function once in each period, on a thread of its own.

    Thread: any.
    """

    def __init__(
        self,
        member: str,
        period: float,
        renew: Callable[[], object],
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Describe the renewal; nothing runs yet.

        :param member: the member whose registrations they are
        :param period: seconds
        :param renew: makes one round
        """
        self._member = member
        self._period = period
        self._renew = renew
        self._clock = clock
        self._lock = threading.Lock()
        self._worker: Any = None
        self._thread: threads.ServiceThread | None = None
        self._stopped = False
        self._in_round = False
        self._due = math.inf
        self._backoff = self._new_backoff()
        self._warn_at = -math.inf

    def start(self) -> None:
        """Begin, unless that was done; the first round is due soon."""
        with self._lock:
            if self._thread is not None or self._stopped:
                return
            self._due = self._clock() + self._period * random.uniform(0.2, 1)

            @periodics.periodic(spacing=min(TICK, self._period / 10))
            def tick() -> None:
                self.tick()

            self._worker = periodics.PeriodicWorker([(tick, (), {})])
            self._thread = threads.ServiceThread(
                'renewal', self._member, self._worker.start
            )
            thread = self._thread
        thread.start()

    def hurry(self) -> None:
        """Make the next round soon: something is not there yet."""
        with self._lock:
            self._due = min(self._due, self._clock() + PAUSES[0])

    def stop(self, deadline: clocks.Deadline) -> bool:
        """End; return whether it has ended, so that no round runs any more."""
        with self._lock:
            self._stopped = True
            worker, thread = self._worker, self._thread
            busy = self._in_round
        if worker is None or thread is None:
            return True
        # The worker of futurist holds a lock while it runs a round, and
        # stop() would wait for it. After a round it stops itself.
        if not busy:
            worker.stop()
        return thread.join(deadline.left())

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._lock = threading.Lock()
        self._worker = self._thread = None
        self._stopped = True
        self._in_round = False

    def tick(self) -> None:
        """Make a round if it is time; called by the worker, never raises."""
        with self._lock:
            if self._stopped or self._clock() < self._due:
                return
            self._in_round = True
        try:
            self._round()
        finally:
            self._end_round()

    def _end_round(self) -> None:
        with self._lock:
            self._in_round = False
            worker = self._worker if self._stopped else None
        if worker is not None:
            worker.stop()

    def _round(self) -> None:
        try:
            self._renew()
        except Exception as exc:
            pause = self._backoff.pause()
            self._due = self._clock() + pause
            self._complain(exc, pause)
        else:
            part = random.uniform(1.0 - JITTER, 1.0)
            self._due = self._clock() + self._period * part
            self._backoff = self._new_backoff()

    def _new_backoff(self) -> retry.Backoff:
        first, longest = PAUSES
        longest = min(longest, self._period)
        return retry.Backoff(min(first, longest), longest)

    def _complain(self, error: Exception, pause: float) -> None:
        now = self._clock()
        if now < self._warn_at:
            return
        self._warn_at = now + WARNING_INTERVAL
        if isinstance(error, base.MatchmakerUnavailable):
            LOG.warning(
                'Registrations were not renewed, next attempt in %.1f s: %s',
                pause,
                error,
            )
        else:
            LOG.error(
                'Registrations were not renewed because of a defect',
                exc_info=error,
            )
