# SPDX-License-Identifier: Apache-2.0
"""The cache for backends that wait for a server.

Rules MM-80 to MM-87 of ``doc/specs/matchmaker-redis.rst``.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
import random
from typing import Any

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import options
from zmq_driver.client import retry
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import cache
from zmq_driver.matchmaker import entry as entry_
from zmq_driver.matchmaker import refresher as refresher_

#: An answer that is in use is asked for again at about this part of its TTL.
REFRESH_AT = (0.7, 0.8)
#: Seconds that asking in the background may take.
REFRESH_TIMEOUT = 5.0
#: Pauses between two questions to a backend that is down, in seconds: the
#: first and the longest.
DOWN_PAUSES = (0.1, 2.0)
#: Seconds between two questions because of joins and leaves, and how much
#: more for each listener: an answer of 10,000 is 2.5 MB.
CHANGE_INTERVAL = 0.1
CHANGE_INTERVAL_EACH = 0.0002


class RefreshedMatchmaker(cache.CachedMatchmaker):
    """A cache that asks before its answers are too old, on its own thread.

    So nobody who uses an address again and again waits for the backend,
    whether it answers or not.

    Thread: any.
    """

    def __init__(
        self,
        backend: base.Matchmaker,
        *,
        member: str,
        clock: clocks.Clock = clocks.monotonic,
        **kwargs: Any,
    ) -> None:
        """Put a cache before *backend*; see the class above.

        :param member: the member that this is for, in names of threads
        """
        self._refresher = refresher_.Refresher(member, self._refresh, clock)
        #: Not None as long as the backend is known to be down.
        self._pauses: retry.Backoff | None = None
        super().__init__(backend, clock=clock, **kwargs)

    def close(self, deadline: clocks.Deadline) -> None:
        """Close the backend, and forget its answers; idempotent."""
        # First, because it asks the backend.
        self._refresher.stop(deadline.within(deadline.left() / 2))
        super().close(deadline)

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._refresher.forget()
        self._pauses = None
        super().forget()

    def _serve_meanwhile_locked(self, entry: entry_.Entry, now: float) -> bool:
        """Return whether *entry* serves while it is asked for again.

        That is so a while before it is too old, and then too as long as the
        backend is known to be down.
        """
        if now < entry.fresh_until:
            entry.delay_check(entry.fresh_until)
        elif self._pauses is not None and entry.is_usable(
            now, self._stale_ttl
        ):
            entry.trust(now + self._pauses.pause())
        else:
            return False
        return True

    def _ask_meanwhile(self, where: address.Address) -> None:
        self._refresher.request(where, self._clock())

    def _changed(self, where: address.Address) -> None:
        """Ask again soon, but not more often than the answer's size allows.

        An answer that is too old is not in use, and asked for when it is.
        """
        now = self._clock()
        with self._lock:
            flight = self._flights.get(where)
            entry = self._entry_locked(where)
            if flight is not None:
                asked_at = flight.at
            elif entry is not None and now < entry.fresh_until:
                asked_at = entry.asked_at
            else:
                return
            count = len(entry.routes) if entry is not None else 0
        pause = CHANGE_INTERVAL + count * CHANGE_INTERVAL_EACH
        self._refresher.request(where, max(now, asked_at + pause))

    def _refresh(self, where: address.Address) -> None:
        """Ask the backend in the background."""
        now = self._clock()
        with self._lock:
            busy = where in self._flights
            if not busy:
                flight = self._flights[where] = entry_.Flight(now)
        if busy:
            # Its answer may be older than what this is about.
            self._refresher.request(where, now + CHANGE_INTERVAL)
            return
        self._lead(where, flight, clocks.Deadline(REFRESH_TIMEOUT))
        if flight.error is not None:
            self._warn(where, flight.error)

    def _lead(
        self,
        where: address.Address,
        flight: entry_.Flight,
        deadline: clocks.Deadline,
    ) -> None:
        try:
            super()._lead(where, flight, deadline)
        finally:
            with self._lock:
                if flight.routes is not None:
                    self._pauses = None
                elif self._pauses is None:
                    self._pauses = retry.Backoff(*DOWN_PAUSES)

    def _fill_locked(
        self, where: address.Address, flight: entry_.Flight, revision: Hashable
    ) -> entry_.Entry:
        entry = super()._fill_locked(where, flight, revision)
        if entry.routes:
            span = entry.fresh_until - entry.asked_at
            part = random.uniform(*REFRESH_AT)
            entry.delay_check(entry.asked_at + span * part)
        return entry


def cache_for(
    backend: base.Matchmaker,
    settings: options.Settings,
    on_left: Callable[[Iterable[address.Route]], object],
) -> cache.CachedMatchmaker:
    """Return the cache that suits a backend.

    :param settings: may set its times; the backend has defaults for them
    :param on_left: called with routes to listeners that have left
    """
    ttl, negative_ttl = settings.lookup_ttl, settings.lookup_negative_ttl
    times: dict[str, Any] = {
        'ttl': backend.lookup_ttl if ttl is None else ttl,
        'negative_ttl': (
            backend.lookup_negative_ttl
            if negative_ttl is None
            else negative_ttl
        ),
        'stale_ttl': settings.lookup_stale_ttl,
    }
    if backend.waits_for_server:
        return RefreshedMatchmaker(
            backend, member=backend.settings.member, on_left=on_left, **times
        )
    return cache.CachedMatchmaker(backend, on_left=on_left, **times)
