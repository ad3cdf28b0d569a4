# SPDX-License-Identifier: Apache-2.0
"""Copies of a fanout: many at once, over a bounded number of sockets."""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import logging
from typing import NamedTuple

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import sender as sender_
from zmq_driver.client import suspects as suspects_

LOG = logging.getLogger(__name__)

#: Copies of a fanout that are on their way at once.
FANOUT_WINDOW = 32
#: Seconds after which one that has not answered makes room for another.
SLOW = 0.5
#: Seconds to wait at one socket when nothing is to be done, before all
#: others are looked at again.
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
    ) -> None:
        """Prepare to send *request* over the sockets of *sender*.

        :param asks_again: whether all who get it may have a copy already
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
        while routes or full or self._copies:
            if self._deadline.passed():
                self._end(full, routes)
                return
            busy = self._begin(routes, full, connect)
            for copy in list(self._copies):
                busy |= self._advance(copy)
            if not busy:
                self._wait(full, connect)
                routes.extend(full)
                full.clear()

    def _begin(
        self,
        routes: collections.deque[address.Route],
        full: collections.deque[address.Route],
        connect: clock.Deadline,
    ) -> bool:
        """Fill the window; return whether anything was begun."""
        begun = False
        slow = sum(copy.slow_from.passed() for copy in self._copies)
        while routes and len(self._copies) - slow < FANOUT_WINDOW:
            route = routes.popleft()
            lease = self._checkout(route, 0.0)
            if lease is None:
                full.append(route)
            else:
                self._add(route, lease, connect)
                begun = True
        return begun

    def _add(
        self,
        route: address.Route,
        lease: sender_.Lease,
        connect: clock.Deadline,
    ) -> None:
        patience = connect
        if connect.passed():
            patience = self._deadline.within(LATE_PATIENCE)
        elif self._suspects.avoids(route):
            patience = connect.within(SUSPECT_PATIENCE)
        slow_from = self._deadline.within(SLOW)
        request = self._for(route)
        self._copies.append(_Copy(route, lease, request, patience, slow_from))

    def _for(self, route: address.Route) -> request_.Request:
        if self._asks_again or route in self._attempts.refused_again:
            return self._again
        return self._request

    def _checkout(
        self, route: address.Route, timeout: float
    ) -> sender_.Lease | None:
        try:
            return self._sender.checkout(route, self._deadline.within(timeout))
        except (errors.PeerNotReady, errors.DeliveryRefused) as error:
            LOG.debug('a fanout copy waits: %s', error)
            return None

    def _advance(self, copy: _Copy, timeout: float = 0.0) -> bool:
        """Do what can be done for a copy; return whether it was something.

        :param timeout: seconds to wait for a connection, if it needs one
        """
        if copy.exchange is not None:
            return self._receive(copy, copy.exchange)
        try:
            if copy.lease.fresh and not self._is_connected(copy, timeout):
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
        return True

    def _is_connected(self, copy: _Copy, timeout: float) -> bool:
        """Return whether there is a connection.

        :raises errors.PeerNotReady: there will be none
        """
        try:
            if copy.lease.socket.wait_connected(timeout):
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
        self, full: collections.deque[address.Route], connect: clock.Deadline
    ) -> None:
        """Wait a moment for whoever comes first in the window."""
        if not self._copies:
            # Nothing is held, so to wait for a socket locks nobody out.
            route = full.popleft()
            lease = self._checkout(route, SOCKET_SLICE)
            if lease is None:
                full.append(route)
            else:
                self._add(route, lease, connect)
            return
        copy = self._copies.pop(0)
        self._copies.append(copy)
        if copy.exchange is None:
            self._advance(copy, SLICE)
        else:
            copy.exchange.wait(SLICE)

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
        if reason is not None:
            copy.lease.retire(reason)
        copy.lease.release()
        self._copies.remove(copy)
