# SPDX-License-Identifier: Apache-2.0
"""Finds who gets a message: look up, wait for somebody, take turns."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import random
import threading
from typing import Protocol

import cachetools

from zmq_driver import address
from zmq_driver import clock
from zmq_driver.client import retry as retry_
from zmq_driver.client import suspects as suspects_
from zmq_driver.matchmaker import base as matchmaker_base

#: Pauses between two looks while nobody is registered, in seconds: the first
#: and the longest. With the cache's negative TTL they keep a new server from
#: being seen later than 0.1 s.
PAUSES = (0.005, 0.04)

#: Addresses whose turn is remembered.
MAX_TURNS = 10000


class Lookups(Protocol):
    """The part of a matchmaker that a client needs.

    Thread: any.
    """

    def lookup(
        self, where: address.Address, deadline: clock.Deadline
    ) -> matchmaker_base.Routes:
        """Return who listens."""

    def invalidate(self, where: address.Address) -> None:
        """Ask the backend next time."""


class Routing:
    """Chooses routes so that all listeners share the load evenly.

    Thread: any.
    """

    def __init__(
        self,
        lookups: Lookups,
        retry_interval: float,
        sleep: Callable[[float], object],
        suspects: suspects_.Suspects,
    ) -> None:
        """Choose among what *lookups* finds.

        :param retry_interval: seconds that one of a limited number of
            retries waits for somebody to register
        :param sleep: waits for the given seconds, or less if there is no
            point in waiting any more
        :param suspects: the routes to choose after all others
        """
        self.suspects = suspects
        self._lookups = lookups
        self._retry_interval = retry_interval
        self._sleep = sleep
        self._lock = threading.Lock()
        self._turns: cachetools.LRUCache[
            tuple[address.Address, str | None, bool], Iterator[int]
        ] = cachetools.LRUCache(MAX_TURNS)

    def invalidate(self, where: address.Address) -> None:
        """Forget the cached answer: it led to somebody who is not there."""
        self._lookups.invalidate(where)

    def look(
        self, where: address.Address, deadline: clock.Deadline
    ) -> matchmaker_base.Routes:
        """Return who listens now, maybe nobody.

        :raises matchmaker.base.MatchmakerUnavailable: that is not known
        """
        return self._lookups.lookup(where, deadline)

    def find(
        self,
        where: address.Address,
        server: str | None,
        deadline: clock.Deadline,
    ) -> Sequence[address.Route]:
        """Return who listens now, maybe nobody.

        A server that the known answer does not name may have come since, so
        it is asked for once.

        :param server: only this server will do; None: any
        :raises matchmaker.base.MatchmakerUnavailable: that is not known
        """
        found = self.look(where, deadline)
        routes = found.matching(server)
        if found and not routes:
            self.invalidate(where)
            routes = self.look(where, deadline).matching(server)
        return routes

    def first(
        self,
        where: address.Address,
        server: str | None,
        deadline: clock.Deadline,
    ) -> address.Route | None:
        """Return the route whose turn it is, or None if that takes longer."""
        try:
            found = self._lookups.lookup(where, deadline).matching(server)
        except matchmaker_base.MatchmakerUnavailable:
            return None
        if len(found) > 1:
            route = found[self._next_turn(where, server) % len(found)]
            if self.suspects.routes and not self.suspects.take(route):
                return self._instead_of(route, where, server, found)
            return route
        return found[0] if found else None

    def _instead_of(
        self,
        suspect: address.Route,
        where: address.Address,
        server: str | None,
        found: Sequence[address.Route],
    ) -> address.Route:
        """Return another route if there is one that is not avoided.

        The turns that suspects have are shared by the others, also in turn.
        """
        others = [
            route for route in found if not self.suspects.avoids(route)
        ] or [route for route in found if not self.suspects.has_stopped(route)]
        if not others:
            return suspect
        turn = self._next_turn(where, server, True)
        route = others[turn % len(others)]
        self.suspects.take(route)
        return route

    def wait(
        self,
        where: address.Address,
        server: str | None,
        attempts: retry_.Attempts,
    ) -> Sequence[address.Route]:
        """Wait until somebody listens, as long as *attempts* allow.

        Unlimited retries look all the time until the deadline. Each of a
        limited number waits ``retry_interval`` for somebody to appear.

        :param server: only this server will do; None: any
        :returns: who listens; empty when nobody did
        :raises matchmaker.base.MatchmakerUnavailable: that is not known, and
            the attempts are used up
        """
        while True:
            routes = self._wait_once(where, server, attempts)
            if routes or not attempts.failed():
                return routes

    def _wait_once(
        self,
        where: address.Address,
        server: str | None,
        attempts: retry_.Attempts,
    ) -> Sequence[address.Route]:
        end = attempts.deadline
        if attempts.limited:
            span = 0.0 if attempts.none_left() else self._retry_interval
            end = end.within(span)
        backoff = retry_.Backoff(*PAUSES)
        find = self.find
        while True:
            unknown = None
            try:
                found = find(where, server, attempts.deadline)
            except matchmaker_base.MatchmakerUnavailable as error:
                unknown = error
            else:
                if found:
                    return found
                find = self._find_known
            if end.passed():
                if unknown is not None and (
                    attempts.none_left() or attempts.deadline.passed()
                ):
                    raise unknown
                return ()
            self._sleep(min(backoff.pause(), end.left()))

    def _find_known(
        self,
        where: address.Address,
        server: str | None,
        deadline: clock.Deadline,
    ) -> Sequence[address.Route]:
        return self.look(where, deadline).matching(server)

    def in_turn(
        self,
        where: address.Address,
        server: str | None,
        routes: Sequence[address.Route],
        tried: address.Route | None = None,
    ) -> Iterator[address.Route]:
        """Yield each route once, beginning with the one whose turn it is.

        Suspects come last, and those that have stopped after them.

        :param server: keeps the turns of servers and of the topic apart
        :param tried: the route that was tried just now, which comes after
            those that were not
        """
        count = len(routes)
        first = 0 if count <= 1 else self._next_turn(where, server) % count
        later, avoided = [], []
        for offset in range(count):
            route = routes[(first + offset) % count]
            if self.suspects.routes and not self.suspects.take(route):
                avoided.append(route)
            elif route == tried:
                later.append(route)
            else:
                yield route
        yield from later
        yield from sorted(avoided, key=self.suspects.has_stopped)

    def _next_turn(
        self,
        where: address.Address,
        server: str | None,
        of_suspects: bool = False,
    ) -> int:
        key = (where, server, of_suspects)
        with self._lock:
            numbers = self._turns.get(key)
            if numbers is None:
                # Clients that start together must not all begin with the
                # same server.
                numbers = itertools.count(random.randrange(1 << 16))
                self._turns[key] = numbers
        return next(numbers)
