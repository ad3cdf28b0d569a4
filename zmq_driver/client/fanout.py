# SPDX-License-Identifier: Apache-2.0
"""Many copies of a message at once, over a bounded number of sockets."""

from collections.abc import Sequence
import logging
import math

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver import sockets
from zmq_driver.client import delivery as delivery_
from zmq_driver.client import exchange as exchange_

LOG = logging.getLogger(__name__)

#: Copies of a fanout that are on their way at once.
FANOUT_WINDOW = 32
#: Seconds to wait for one connection before looking at the next one.
CONNECT_SLICE = 0.01

Lease = pool_.SocketLease[str, sockets.PeerSocket]


class Round:
    """One attempt to send a fanout to a number of servers.

    The copies are sent before the first acknowledgement is waited for, so
    that the round takes as long as its slowest server and not as long as all
    of them.

    Thread: owner only (the leases check).
    """

    def __init__(
        self,
        delivery: delivery_.Delivery,
        counters: counters_.Counters,
        request: delivery_.Request,
        deadline: clock.Deadline,
    ) -> None:
        """Prepare to send *request* over the sockets of *delivery*."""
        self._delivery = delivery
        self._counters = counters
        self._request = request
        self._deadline = deadline
        self._unsent: list[address.Route] = []

    def send(
        self, routes: Sequence[address.Route]
    ) -> tuple[address.Route, ...]:
        """Send a copy to each; return those that it did not reach."""
        leases: list[tuple[address.Route, Lease]] = []
        try:
            for route in routes:
                if len(leases) >= FANOUT_WINDOW:
                    self._exchange(leases)
                lease = self._checkout(route, holds_leases=bool(leases))
                if lease is None and leases:
                    # Holding sockets while waiting for one more could lock
                    # two fanouts against each other.
                    self._exchange(leases)
                    lease = self._checkout(route, holds_leases=False)
                if lease is None:
                    self._unsent.append(route)
                else:
                    leases.append((route, lease))
            self._exchange(leases)
        finally:
            # Left over if something came in between: an interrupt, or the
            # cleanup of the driver.
            while leases:
                _, lease = leases.pop()
                lease.retire(pool_.EvictReason.UNFINISHED)
                lease.release()
        return tuple(self._unsent)

    def _checkout(
        self, route: address.Route, holds_leases: bool
    ) -> Lease | None:
        deadline = self._deadline.within(0.0 if holds_leases else math.inf)
        try:
            return self._delivery.checkout(route, deadline)
        except (errors.PeerNotReady, errors.DeliveryRefused) as error:
            LOG.debug('a fanout copy waits: %s', error)
            return None

    def _exchange(self, leases: list[tuple[address.Route, Lease]]) -> None:
        """Send over all *leases*, wait for all answers, release all."""
        for route, lease, exchange in self._send_all(leases):
            self._receive(route, lease, exchange)
        while leases:
            _, lease = leases.pop()
            lease.release()

    def _send_all(
        self, leases: Sequence[tuple[address.Route, Lease]]
    ) -> list[tuple[address.Route, Lease, exchange_.Exchange]]:
        """Send to whom there is a connection first, to the others as it
        comes up.
        """
        sent = []
        give_up = self._deadline.within(self._delivery.connect_timeout)
        while leases:
            waiting = []
            for route, lease in leases:
                try:
                    if not self._is_connected(route, lease, give_up):
                        waiting.append((route, lease))
                        continue
                    exchange = self._delivery.send(
                        lease, route, self._request, self._deadline
                    )
                except errors.PeerNotReady as error:
                    self._not_sent(route, lease, error)
                else:
                    sent.append((route, lease, exchange))
            leases = waiting
        return sent

    def _is_connected(
        self, route: address.Route, lease: Lease, give_up: clock.Deadline
    ) -> bool:
        """Return whether there is a connection, after a short wait.

        :raises errors.PeerNotReady: there will be none
        """
        if not lease.fresh:
            return True
        try:
            if lease.socket.wait_connected(CONNECT_SLICE):
                return True
            if give_up.passed():
                raise errors.PeerNotReady('no connection in time')
        except errors.PeerNotReady:
            self._delivery.note_unreachable(route)
            raise
        return False

    def _not_sent(
        self,
        route: address.Route,
        lease: Lease,
        problem: object,
    ) -> None:
        LOG.debug('a fanout copy to %s was not sent: %s', route, problem)
        lease.retire(pool_.EvictReason.UNHEALTHY)
        self._unsent.append(route)

    def _receive(
        self,
        route: address.Route,
        lease: Lease,
        exchange: exchange_.Exchange,
    ) -> None:
        try:
            answer = self._delivery.receive(
                exchange, route, self._request, self._deadline
            )
            delivery_.check(answer, route, self._request)
        except errors.Refused as error:
            LOG.debug('a fanout copy is tried again: %s', error)
            self._unsent.append(route)
        except errors.DeliveryRefused as error:
            self._counters.add('fanout_copies_failed')
            LOG.warning('a fanout copy cannot be delivered: %s', error)
        except (errors.PeerLost, errors.ReplyTimeout) as error:
            lease.retire(pool_.EvictReason.UNFINISHED)
            self._counters.add('fanout_copies_failed')
            LOG.warning(
                'a fanout copy to %s server %s was not acknowledged: %s',
                self._request.where,
                route.server,
                error,
            )
