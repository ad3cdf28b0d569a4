# SPDX-License-Identifier: Apache-2.0
"""The cache between the senders of a driver and its matchmaker.

Rules MM-40 to MM-53 of ``doc/specs/matchmaker.rst``.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Sequence
import logging
import math
import threading
from typing import cast

import cachetools

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import entry as entry_

LOG = logging.getLogger(__name__)

#: Seconds between two warnings about a backend that is down.
WARNING_INTERVAL = 30.0


class CachedMatchmaker:
    """Answers lookups from memory, and asks the backend when it must.

    An answer is fresh (it is served), then stale (it is served if the
    backend cannot be asked), then gone. Every process makes its own.

    Thread: any.
    """

    def __init__(
        self,
        backend: base.Matchmaker,
        *,
        ttl: float = 30.0,
        negative_ttl: float = 0.5,
        stale_ttl: float = 600.0,
        check_interval: float = 0.01,
        maxsize: int = 10_000,
        on_left: Callable[[Iterable[address.Route]], object] | None = None,
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Put a cache before *backend*; all times are seconds.

        :param ttl: how long an answer is fresh
        :param negative_ttl: how long the answer "nobody" is fresh, and one
            whose revision the backend could not vouch for; also the pause
            between two questions to a backend that is down
        :param stale_ttl: how old an answer may be served while the backend
            is down
        :param check_interval: at most this often the revision of an address
            is compared, if the backend has revisions
        :param maxsize: how many addresses are remembered
        :param on_left: called, without any lock held, with the routes that
            an answer has no more and the answer before it had
        :param clock: source of monotonic seconds
        :raises ValueError: a number is out of range
        """
        if not (ttl > 0 and negative_ttl > 0 and maxsize > 0):
            raise ValueError('ttl, negative_ttl and maxsize must be positive')
        if not (stale_ttl >= 0 and check_interval >= 0):
            raise ValueError('stale_ttl and check_interval cannot be negative')
        self._backend = backend
        self._ttl = ttl
        self._negative_ttl = min(ttl, negative_ttl)
        self._stale_ttl = stale_ttl
        self._check_interval = check_interval
        self._on_left = on_left
        # A backend that overrides it means None as "not right now".
        self._has_revisions = (
            type(backend).revision is not base.Matchmaker.revision
        )
        self._settle_time = backend.settle_time
        self._clock = clock
        self._lock = threading.Lock()
        self._maxsize = maxsize
        self._entries = self._nothing()
        self._flights: dict[address.Address, entry_.Flight] = {}
        self._warn_at = -math.inf
        backend.watch(self._changed)

    def lookup(
        self, where: address.Address, deadline: clocks.Deadline
    ) -> base.Routes:
        """Return who listens at *where*.

        :returns: an answer that is fresh, or at most ``stale_ttl`` seconds
            old if the backend is down
        :raises MatchmakerUnavailable: the backend did not answer before
            *deadline*, and there is no answer to fall back on
        """
        now = self._clock()
        meanwhile = False
        with self._lock:
            entry = self._entry_locked(where)
            if entry is not None:
                if now < entry.check_at:
                    return entry.routes
                if self._serve_meanwhile_locked(entry, now):
                    meanwhile = True
                elif now < entry.fresh_until:
                    # This thread compares; the others go on meanwhile.
                    entry.delay_check(now + self._check_interval)
                else:
                    entry = None
        if entry is not None and meanwhile:
            self._ask_meanwhile(where)
            return entry.routes
        if entry is not None and self._is_current(where, entry):
            return entry.routes
        return self._ask(where, deadline)

    def invalidate(self, where: address.Address) -> None:
        """Ask the backend at the next lookup of *where*.

        What it answers to a lookup that has begun already is not kept.
        """
        with self._lock:
            self._flights.pop(where, None)
            entry = self._entry_locked(where)
            if entry is not None:
                entry.expire()

    def register(
        self, registration: address.Registration, deadline: clocks.Deadline
    ) -> None:
        """Publish a registration.

        :raises MatchmakerUnavailable: the backend did not take it
        """
        try:
            self._backend.register(registration, deadline)
        finally:
            self.invalidate(registration.address)

    def unregister(
        self, registration: address.Registration, deadline: clocks.Deadline
    ) -> None:
        """Withdraw a registration; an unknown one is no error.

        :raises MatchmakerUnavailable: the backend did not answer
        """
        try:
            self._backend.unregister(registration, deadline)
        finally:
            self.invalidate(registration.address)

    def records(self, deadline: clocks.Deadline) -> list[base.Record]:
        """Ask the backend, not the cache, for every registration.

        :raises MatchmakerUnavailable: the backend did not answer
        """
        return self._backend.records(deadline)

    def ports(
        self, addresses: Sequence[address.Address], server: str
    ) -> Sequence[int] | None:
        """Return the TCP ports at which others expect a listener.

        :returns: one of these has to be taken; None: any that is free
        :raises MatchmakerUnavailable: that is not known
        """
        return self._backend.ports(addresses, server)

    def clock_offset(self, deadline: clocks.Deadline) -> float | None:
        """Return how far the clock of the backend is ahead, in seconds.

        :returns: None if the backend has no clock of its own
        :raises MatchmakerUnavailable: the backend did not answer
        """
        return self._backend.clock_offset(deadline)

    def close(self, deadline: clocks.Deadline) -> None:
        """Close the backend, and forget its answers; idempotent."""
        with self._lock:
            self._entries.clear()
            self._flights.clear()
        self._backend.close(deadline)

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        # Another thread of the parent may have held it.
        self._lock = threading.Lock()
        self._flights = {}
        self._entries = self._nothing()
        self._backend.forget()

    def _nothing(self) -> cachetools.TTLCache[address.Address, entry_.Entry]:
        ttl = max(self._ttl, self._stale_ttl)
        return cachetools.TTLCache(self._maxsize, ttl, timer=self._clock)

    def _entry_locked(self, where: address.Address) -> entry_.Entry | None:
        try:
            return self._entries[where]
        except KeyError:
            return None

    def _serve_meanwhile_locked(self, entry: entry_.Entry, now: float) -> bool:
        """Return whether *entry* serves and is asked for meanwhile."""
        return False

    def _ask_meanwhile(self, where: address.Address) -> None:
        """Ask the backend without making anybody wait."""

    def _changed(self, where: address.Address) -> None:
        """Do what the backend's message that *where* changed requires."""
        self.invalidate(where)

    def _is_current(self, where: address.Address, entry: entry_.Entry) -> bool:
        """Compare revisions; an answer that may be outdated becomes stale."""
        revision = self._backend.revision(where)
        if revision is not None and revision == entry.revision:
            return True
        with self._lock:
            entry.expire()
        return False

    def _ask(
        self, where: address.Address, deadline: clocks.Deadline
    ) -> base.Routes:
        """Ask the backend, or wait for the answer somebody else asked for."""
        now = self._clock()
        with self._lock:
            entry = self._entry_locked(where)
            if entry is not None and now < entry.check_at:
                return entry.routes  # The answer has just arrived.
            flight = self._flights.get(where)
            leads = flight is None
            if flight is None:
                flight = self._flights[where] = entry_.Flight(now)
        if leads:
            self._lead(where, flight, deadline)
        elif not flight.done.wait(deadline.left()):
            return self._fall_back(
                where,
                base.MatchmakerUnavailable(
                    f'no time left to wait for the lookup of {where}, which '
                    f'another thread began'
                ),
            )
        if flight.routes is not None:
            return flight.routes
        # One that is not answered has failed.
        error = cast('base.MatchmakerUnavailable', flight.error)
        return self._fall_back(where, error)

    def _lead(
        self,
        where: address.Address,
        flight: entry_.Flight,
        deadline: clocks.Deadline,
    ) -> None:
        """Ask the backend on behalf of all who wait for *flight*."""
        revision: Hashable = None
        before = None
        try:
            # Before the lookup: a change in between must not go unseen.
            if self._has_revisions:
                revision = self._backend.revision(where)
            flight.routes = self._backend.lookup(where, deadline)
        except base.MatchmakerUnavailable as exc:
            flight.error = exc
        except BaseException as exc:
            # Ours to raise; those who wait are told what happened.
            flight.error = base.MatchmakerUnavailable(
                f'the lookup of {where} by another thread failed: {exc!r}'
            )
            raise
        finally:
            with self._lock:
                known = self._entry_locked(where)
                if self._settle_time:
                    flight.complete(where.scope, known, self._settle_time)
                # Not so if the address was invalidated in the meantime.
                if self._flights.get(where) is flight:
                    del self._flights[where]
                    if flight.routes is not None:
                        before = known
                        self._fill_locked(where, flight, revision)
            flight.done.set()
        if before is not None and flight.routes is not None:
            self._compare(before.routes, flight.routes)

    def _compare(self, before: base.Routes, after: base.Routes) -> None:
        """Tell who has left."""
        if self._on_left is None or before.routes == after.routes:
            return
        left = set(before.routes).difference(after.routes)
        if left:
            self._on_left(left)

    def _fill_locked(
        self, where: address.Address, flight: entry_.Flight, revision: Hashable
    ) -> entry_.Entry:
        """Keep the answer that a flight brought."""
        routes = cast('base.Routes', flight.routes)
        vouched = revision is not None or not self._has_revisions
        whole = bool(routes) and vouched and flight.settled
        ttl = self._ttl if whole else self._negative_ttl
        entry = entry_.Entry(routes, revision, flight.at)
        entry.settle_by = flight.settle_by
        entry.trust(flight.at + ttl)
        if self._has_revisions:
            entry.delay_check(flight.at + self._check_interval)
        self._entries[where] = entry
        return entry

    def _fall_back(
        self, where: address.Address, error: base.MatchmakerUnavailable
    ) -> base.Routes:
        """Return a stale answer, or raise because there is none."""
        now = self._clock()
        with self._lock:
            entry = self._entry_locked(where)
            if entry is None or not entry.is_usable(now, self._stale_ttl):
                raise base.MatchmakerUnavailable(str(error)) from error
            if entry.fresh_until <= now:
                # Not every sender is to pay for the silence of the backend.
                entry.trust(now + self._negative_ttl)
        self._warn(where, error)
        return entry.routes

    def _warn(
        self, where: address.Address, error: base.MatchmakerUnavailable
    ) -> None:
        """Say, now and then, that known answers are used."""
        now = self._clock()
        with self._lock:
            entry = self._entry_locked(where)
            if entry is None or now < self._warn_at:
                return
            self._warn_at = now + WARNING_INTERVAL
        LOG.warning(
            'Using known listeners, %.0f s old for %s, because the matchmaker '
            'cannot be asked: %s',
            now - entry.asked_at,
            where,
            error,
        )
