# SPDX-License-Identifier: Apache-2.0
"""Copies of a fanout: many at once, over a bounded number of sockets."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import logging
from typing import Any
from typing import NamedTuple

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import readiness as readiness_
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import sender as sender_
from zmq_driver.client import suspects as suspects_

LOG = logging.getLogger(__name__)

#: Copies of a fanout that are on their way at once.
FANOUT_WINDOW = 32
#: Seconds after which one that has not answered makes room for another.
SLOW = 0.5
#: Seconds after which all copies are looked at unasked; and while connections
#: or sockets are waited for, which have no descriptor that always tells.
LOOK_INTERVAL = 0.05
SLICE = 0.005
#: Seconds to wait for a socket to one server, before the next one that has
#: none free is tried.
SOCKET_SLICE = 0.1
#: Seconds to wait for a connection to who could not be connected to lately.
SUSPECT_PATIENCE = 0.1
#: The same for everybody, when the time for connections is over.
LATE_PATIENCE = 0.1

#: Servers, and why they did not get a copy.
Problems = dict[address.Route, object]
#: Makes what watches the sockets of a round.
Readiness = Callable[[], readiness_.Readiness[Any]]


class Outcome(NamedTuple):
    """The servers that a round did not reach.

    Thread: any (immutable).
    """

    #: No socket was free in time, or the connection went before the copy was
    #: sent.
    unsent: Problems
    #: No connection came about.
    unreachable: Problems
    #: They did not take it; nothing ran.
    refused: Problems
    #: The connection was lost after the copy was sent.
    lost: Problems
    #: They had it and did not answer, or another attempt would fail too.
    failed: Problems


class _Copy:
    """A copy on its way.

    Thread: owner only (the lease checks).
    """

    __slots__ = (
        'exchange',
        'lease',
        'patience',
        'request',
        'route',
        'slow_from',
    )

    def __init__(
        self,
        route: address.Route,
        lease: sender_.Lease,
        request: request_.Request,
        patience: clock.Deadline,
        slow_from: clock.Deadline,
    ) -> None:
        self.route = route
        self.lease = lease
        self.request = request
        #: Until when there must be a connection.
        self.patience = patience
        #: From when on it does not keep others from being begun.
        self.slow_from = slow_from
        #: None until it was sent.
        self.exchange: exchange_.Exchange | None = None


class Round:
    """One attempt to send a fanout to a number of servers.

    A window moves over the servers: whoever has answered, or is slow, makes
    room for the next, so that no server waits long for the answer of another.

    Thread: owner only (the leases check).
    """

    def __init__(
        self,
        sender: sender_.Sender,
        suspects: suspects_.Suspects,
        request: request_.Request,
        attempts: retry_.Attempts,
        asks_again: bool = False,
        readiness: Readiness = readiness_.Readiness,
    ) -> None:
        """Prepare to send *request* over the sockets of *sender*.

        :param asks_again: whether all who get it may have a copy already
        :param readiness: makes what watches the sockets
        """
        self._sender = sender
        self._suspects = suspects
        self._request = request
        self._again = request_.resent(request)
        self._attempts = attempts
        self._deadline = attempts.deadline
        self._asks_again = asks_again
        self._outcome = Outcome({}, {}, {}, {}, {})
        self._copies: list[_Copy] = []
        self._at_once = clock.Deadline(0.0)
        self._readiness = readiness()
        # Those that the readiness is to tell of, and does not yet.
        self._unwatched: list[_Copy] = []
        self._look_at: clock.Deadline | None = None

    def send(
        self, routes: Sequence[address.Route], connect: clock.Deadline
    ) -> Outcome:
        """Send a copy to each; return those that it did not reach.

        :param connect: until when connections are waited for
        """
        try:
            self._run(self._in_order(routes), connect)
        finally:
            # Left over if something came in between: an interrupt, or the
            # cleanup of the driver.
            while self._copies:
                self._release(self._copies[-1], pool_.EvictReason.UNFINISHED)
        return self._outcome

    def _in_order(
        self, routes: Iterable[address.Route]
    ) -> collections.deque[address.Route]:
        """Return *routes* with those last that may take longest."""
        return collections.deque(sorted(routes, key=self._suspects.avoids))

    def _run(
        self,
        routes: collections.deque[address.Route],
        connect: clock.Deadline,
    ) -> None:
        # Those to whom no socket was free.
        full: collections.deque[address.Route] = collections.deque()
        look: list[_Copy] = []
        while routes or full or self._copies:
            if self._deadline.passed():
                self._end(full, routes)
                return
            if routes:
                look += self._begin(routes, full, connect)
            busy = bool(look)
            # What was sent is looked at once more before it is waited for:
            # the readiness tells of what comes after that.
            look = [copy for copy in look if self._advance(copy)]
            if look or (busy and routes):
                continue
            if self._copies or full:
                look = self._wait(bool(routes), full, connect)
                routes.extend(full)
                full.clear()

    def _begin(
        self,
        routes: collections.deque[address.Route],
        full: collections.deque[address.Route],
        connect: clock.Deadline,
    ) -> list[_Copy]:
        """Fill the window; return what was begun."""
        begun = []
        slow = sum(copy.slow_from.passed() for copy in self._copies)
        slow_from = self._deadline.within(SLOW)
        while routes and len(self._copies) - slow < FANOUT_WINDOW:
            route = routes.popleft()
            lease = self._checkout(route, self._at_once)
            if lease is None:
                full.append(route)
            else:
                begun.append(self._add(route, lease, connect, slow_from))
        return begun

    def _add(
        self,
        route: address.Route,
        lease: sender_.Lease,
        connect: clock.Deadline,
        slow_from: clock.Deadline,
    ) -> _Copy:
        patience = connect
        if connect.passed():
            patience = self._deadline.within(LATE_PATIENCE)
        elif self._suspects.avoids(route):
            patience = connect.within(SUSPECT_PATIENCE)
        request = self._for(route)
        copy = _Copy(route, lease, request, patience, slow_from)
        self._copies.append(copy)
        self._unwatched.append(copy)
        return copy

    def _for(self, route: address.Route) -> request_.Request:
        if self._asks_again or route in self._attempts.refused_again:
            return self._again
        return self._request

    def _checkout(
        self, route: address.Route, deadline: clock.Deadline
    ) -> sender_.Lease | None:
        try:
            return self._sender.checkout(route, deadline)
        except (errors.PeerNotReady, errors.DeliveryRefused) as error:
            LOG.debug('a fanout copy waits: %s', error)
            return None

    def _advance(self, copy: _Copy) -> bool:
        """Do what can be done for a copy; return whether it was sent now."""
        if copy.exchange is not None:
            self._receive(copy, copy.exchange)
            return False
        try:
            if copy.lease.fresh and not self._is_connected(copy):
                return False
            copy.exchange = self._sender.send(
                copy.lease,
                copy.route,
                copy.request,
                self._deadline,
                self._deadline,
            )
        except errors.PeerNotReady as error:
            LOG.debug('a copy to %s was not sent: %s', copy.route, error)
            if copy.route not in self._outcome.unreachable:
                self._outcome.unsent[copy.route] = error
            self._release(copy, pool_.EvictReason.UNHEALTHY)
            return False
        return True

    def _is_connected(self, copy: _Copy) -> bool:
        """Return whether there is a connection.

        :raises errors.PeerNotReady: there will be none
        """
        # What tells of news is another descriptor after this.
        self._readiness.remove(copy)
        if copy not in self._unwatched:
            self._unwatched.append(copy)
        try:
            if copy.lease.socket.wait_connected(0.0):
                return True
            if copy.patience.passed():
                raise errors.PeerNotReady('no connection in time')
        except errors.PeerNotReady as error:
            self._sender.note_unreachable(copy.route, error)
            self._outcome.unreachable[copy.route] = error
            raise
        return False

    def _receive(self, copy: _Copy, exchange: exchange_.Exchange) -> bool:
        """Return whether the copy is dealt with."""
        outcome = self._outcome
        try:
            answer = self._sender.look(exchange, copy.route, copy.request)
        except errors.PeerLost as error:
            outcome.lost[copy.route] = error
            self._release(copy, pool_.EvictReason.UNFINISHED)
            return True
        if answer is None:
            return False
        try:
            self._check(answer, copy)
        except errors.Refused as error:
            LOG.debug('a fanout copy is tried again: %s', error)
            outcome.refused[copy.route] = error
        except (errors.DeliveryRefused, errors.PeerLost) as error:
            # Another attempt would be answered the same.
            outcome.failed[copy.route] = error
        self._release(copy)
        return True

    def _check(self, answer: envelope.Message, copy: _Copy) -> None:
        if self._asks_again:
            self._sender.resent(answer, copy.route, copy.request)
        else:
            request_.check(answer, copy.route, copy.request)

    def _wait(
        self,
        crowded: bool,
        full: collections.deque[address.Route],
        connect: clock.Deadline,
    ) -> list[_Copy]:
        """Wait a moment; return what to look at.

        :param crowded: whether the window has no room for all
        """
        if not self._copies:
            # Nothing is held, so to wait for a socket locks nobody out.
            route = full.popleft()
            lease = self._checkout(route, self._deadline.within(SOCKET_SLICE))
            if lease is None:
                full.append(route)
                return []
            slow_from = self._deadline.within(SLOW)
            return [self._add(route, lease, connect, slow_from)]
        for copy in self._unwatched:
            crowded |= copy.exchange is None
            self._readiness.add(copy, copy.lease.socket)
        self._unwatched = [c for c in self._unwatched if c.exchange is None]
        interval = SLICE if crowded or full else LOOK_INTERVAL
        if self._look_at is None:
            self._look_at = self._deadline.within(interval)
        ready = []
        if not self._look_at.passed():
            ready = self._readiness.wait(self._look_at.left())
        if not ready:
            self._look_at = None
            return list(self._copies)
        return ready

    def _end(self, *rest: Iterable[address.Route]) -> None:
        """Sort what is not done at the deadline."""
        late = errors.NoTimeLeft('no time was left to send it')
        for routes in rest:
            self._outcome.unsent.update(dict.fromkeys(routes, late))
        for copy in list(self._copies):
            if copy.exchange is None:
                self._outcome.unsent[copy.route] = late
            elif not self._receive(copy, copy.exchange):
                self._outcome.failed[copy.route] = copy.exchange.timed_out(
                    self._deadline
                )
            else:
                continue
            self._release(copy, pool_.EvictReason.UNFINISHED)

    def _release(
        self, copy: _Copy, reason: pool_.EvictReason | None = None
    ) -> None:
        """End the lease of a copy."""
        self._readiness.remove(copy)
        if self._unwatched and copy in self._unwatched:
            self._unwatched.remove(copy)
        if reason is not None:
            copy.lease.retire(reason)
        copy.lease.release()
        self._copies.remove(copy)
