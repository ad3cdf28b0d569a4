# SPDX-License-Identifier: Apache-2.0
"""Copies of a fanout: many at once, over a bounded number of sockets."""

from collections.abc import Sequence
import logging
import math
from typing import NamedTuple

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import request as request_
from zmq_driver.client import routing as routing_
from zmq_driver.client import sender as sender_

LOG = logging.getLogger(__name__)

#: Copies of a fanout that are on their way at once.
FANOUT_WINDOW = 32
#: Seconds to wait for one connection before looking at the next one.
CONNECT_SLICE = 0.01
#: Seconds to wait for a connection to who could not be connected to lately.
SUSPECT_PATIENCE = 0.1

_Leases = list[tuple[address.Route, sender_.Lease]]


class Outcome(NamedTuple):
    """The servers that a round did not reach.

    Thread: any (immutable).
    """

    #: No socket was free, or the connection went before the copy was sent.
    unsent: Sequence[address.Route]
    #: No connection came about.
    unreachable: Sequence[address.Route]
    #: They did not take it; nothing ran.
    refused: Sequence[address.Route]
    #: The connection was lost after the copy was sent.
    lost: Sequence[address.Route]


class Round:
    """One attempt to send a fanout to a number of servers.

    The copies are sent before the first acknowledgement is waited for, so
    that the round takes as long as its slowest server and not as long as all
    of them.

    Thread: owner only (the leases check).
    """

    def __init__(
        self,
        sender: sender_.Sender,
        routing: routing_.Routing,
        counters: counters_.Counters,
        request: request_.Request,
        deadline: clock.Deadline,
        asks_again: bool = False,
    ) -> None:
        """Prepare to send *request* over the sockets of *sender*.

        :param asks_again: whether all who get it may have a copy already
        """
        self._asks_again = asks_again
        self._sender = sender
        self._suspects = routing.suspects
        self._counters = counters
        self._request = request
        self._deadline = deadline
        self._unsent: list[address.Route] = []
        self._unreachable: list[address.Route] = []
        self._refused: list[address.Route] = []
        self._lost: list[address.Route] = []

    def send(
        self, routes: Sequence[address.Route], patience: float
    ) -> Outcome:
        """Send a copy to each; return those that it did not reach.

        What cannot be delivered at all is logged and counted here.

        :param patience: seconds to wait for connections
        """
        leases: _Leases = []
        try:
            for route in routes:
                if len(leases) >= FANOUT_WINDOW:
                    self._exchange(leases, patience)
                lease = self._checkout(route, holds_leases=bool(leases))
                if lease is None and leases:
                    # Holding sockets while waiting for one more could lock
                    # two fanouts against each other.
                    self._exchange(leases, patience)
                    lease = self._checkout(route, holds_leases=False)
                if lease is None:
                    self._unsent.append(route)
                else:
                    leases.append((route, lease))
            self._exchange(leases, patience)
        finally:
            # Left over if something came in between: an interrupt, or the
            # cleanup of the driver.
            while leases:
                _, lease = leases.pop()
                lease.retire(pool_.EvictReason.UNFINISHED)
                lease.release()
        return Outcome(
            self._unsent, self._unreachable, self._refused, self._lost
        )

    def _checkout(
        self, route: address.Route, holds_leases: bool
    ) -> sender_.Lease | None:
        deadline = self._deadline.within(0.0 if holds_leases else math.inf)
        try:
            return self._sender.checkout(route, deadline)
        except (errors.PeerNotReady, errors.DeliveryRefused) as error:
            LOG.debug('a fanout copy waits: %s', error)
            return None

    def _exchange(self, leases: _Leases, patience: float) -> None:
        """Send over all *leases*, wait for all answers, release all."""
        for route, lease, exchange in self._send_all(leases, patience):
            self._receive(route, lease, exchange)
        while leases:
            _, lease = leases.pop()
            lease.release()

    def _send_all(
        self, leases: _Leases, patience: float
    ) -> list[tuple[address.Route, sender_.Lease, exchange_.Exchange]]:
        """Send to whom there is a connection first, to the others as it
        comes up.
        """
        sent = []
        connect = self._deadline.within(patience)
        suspect = self._deadline.within(min(patience, SUSPECT_PATIENCE))
        ends = {
            route: suspect if self._suspects.avoids(route) else connect
            for route, _ in leases
        }
        while leases:
            waiting = []
            for route, lease in leases:
                try:
                    if not self._is_connected(route, lease, ends[route]):
                        waiting.append((route, lease))
                        continue
                    exchange = self._sender.send(
                        lease,
                        route,
                        self._request,
                        self._deadline,
                        self._deadline,
                    )
                except errors.PeerNotReady as error:
                    LOG.debug('a copy to %s was not sent: %s', route, error)
                    lease.retire(pool_.EvictReason.UNHEALTHY)
                    if route not in self._unreachable:
                        self._unsent.append(route)
                else:
                    sent.append((route, lease, exchange))
            leases = waiting
        return sent

    def _is_connected(
        self,
        route: address.Route,
        lease: sender_.Lease,
        end: clock.Deadline,
    ) -> bool:
        """Return whether there is a connection, after a short wait.

        :raises errors.PeerNotReady: there will be none
        """
        if not lease.fresh:
            return True
        try:
            if lease.socket.wait_connected(CONNECT_SLICE):
                return True
            if end.passed():
                raise errors.PeerNotReady('no connection in time')
        except errors.PeerNotReady as error:
            self._sender.note_unreachable(route, error)
            self._unreachable.append(route)
            raise
        return False

    def _receive(
        self,
        route: address.Route,
        lease: sender_.Lease,
        exchange: exchange_.Exchange,
    ) -> None:
        try:
            answer = self._sender.receive(
                exchange, route, self._request, self._deadline
            )
        except errors.PeerLost as error:
            lease.retire(pool_.EvictReason.UNFINISHED)
            LOG.debug('a fanout copy may be lost: %s', error)
            self._lost.append(route)
            return
        except errors.ReplyTimeout as error:
            lease.retire(pool_.EvictReason.UNFINISHED)
            self._fail(route, error)
            return
        try:
            self._check(answer, route)
        except errors.Refused as error:
            LOG.debug('a fanout copy is tried again: %s', error)
            self._refused.append(route)
        except (errors.DeliveryRefused, errors.PeerLost) as error:
            # Another attempt would be answered the same.
            self._fail(route, error)

    def _fail(self, route: address.Route, error: object) -> None:
        self._counters.add('fanout_copies_failed')
        LOG.warning(
            'a fanout copy to %s server %s was not acknowledged: %s',
            self._request.where,
            route.server,
            error,
        )

    def _check(self, answer: envelope.Message, route: address.Route) -> None:
        if self._asks_again:
            request_.check_resent(answer, route, self._request)
        else:
            request_.check(answer, route, self._request)
