# SPDX-License-Identifier: Apache-2.0
"""One copy of a message to every server of a topic."""

from collections.abc import Collection
from collections.abc import Sequence
import logging
from typing import NamedTuple

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import errors
from zmq_driver.client import copies
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.client import sender as sender_
from zmq_driver.matchmaker import base as matchmaker_base

LOG = logging.getLogger(__name__)

_Routes = Sequence[address.Route]


class _Missing(NamedTuple):
    """Servers without a copy.

    Thread: any (immutable).
    """

    #: They did not get it, and may get it yet.
    again: _Routes
    #: Nothing more is tried.
    given_up: _Routes
    #: What to send next time.
    request: request_.Request


class Fanout:
    """Sends copies to all servers that are registered.

    Thread: any; each fanout runs on its caller's thread.
    """

    def __init__(
        self,
        sender: sender_.Sender,
        routing: routing_.Routing,
        counters: counters_.Counters,
    ) -> None:
        """Send with *sender* to whom *routing* finds."""
        self._sender = sender
        self._routing = routing
        self._counters = counters

    def send(
        self, request: request_.Request, attempts: retry_.Attempts
    ) -> None:
        """Send one copy to every server that is registered now.

        A copy that reached no server is tried again as long as that server
        is registered; but those that cannot be connected to are given up
        after ``connect_timeout``, because they may be dead. A copy that may
        have reached its server is asked for once more. What could not be
        delivered is logged and counted.

        :raises errors.DeliveryRefused: the matchmaker cannot be asked, so
            that nothing was sent
        :raises errors.DeliveryUnconfirmed: the driver was cleaned up
        """
        try:
            routes = self._routing.look(
                request.where, attempts.deadline
            ).routes
        except matchmaker_base.MatchmakerUnavailable as error:
            raise errors.DeliveryRefused(
                f'the fanout to {request.where} was not sent: the matchmaker '
                f'cannot be asked: {error}'
            ) from error
        try:
            missing = self._send_copies(request, self._alive(routes), attempts)
        except errors.DriverClosed as error:
            raise errors.DeliveryUnconfirmed(
                f'the fanout to {request.where} was cut short, some servers '
                f'may have it: {error}'
            ) from None
        if missing:
            self._counters.add('fanout_copies_failed', len(missing))
            LOG.warning(
                'fanout %s to %s was not delivered to %d server(s): %s',
                request.message_id.hex(),
                request.where,
                len(missing),
                ', '.join(sorted(route.server for route in missing)),
            )

    def _send_copies(
        self,
        request: request_.Request,
        routes: _Routes,
        attempts: retry_.Attempts,
    ) -> _Routes:
        """Send a copy to each of *routes*; return those it did not reach."""
        given_up: list[address.Route] = []
        connect = attempts.deadline.within(self._sender.connect_timeout)
        suspects = self._routing.suspects
        avoided = {route for route in routes if suspects.avoids(route)}
        while routes:
            again, hopeless, request = self._send_round(
                request, routes, avoided, attempts, connect
            )
            given_up += hopeless
            if not again:
                break
            self._routing.invalidate(request.where)
            if not attempts.failed():
                given_up += again
                break
            self._counters.add('requests_retried', len(again))
            attempts.pause()
            routes = self._still_there(request.where, again, attempts.deadline)
        return given_up

    def _send_round(
        self,
        request: request_.Request,
        routes: _Routes,
        avoided: Collection[address.Route],
        attempts: retry_.Attempts,
        connect: clock.Deadline,
    ) -> _Missing:
        """Send to all of *routes* once.

        :param avoided: those that are not waited for a second time
        :param connect: until when connections are waited for
        """
        outcome = self._round(request, attempts.deadline).send(
            routes, connect.left()
        )
        again = [*outcome.unsent, *outcome.refused]
        given_up = []
        for route in outcome.unreachable:
            if route in avoided or connect.passed():
                given_up.append(route)
            else:
                again.append(route)
        if outcome.lost:
            missing = self._ask_again(request, outcome.lost, attempts)
            again += missing.again
            given_up += missing.given_up
            # Who refused it then refuses the first copy (DL-58).
            request = missing.request
        return _Missing(again, given_up, request)

    def _ask_again(
        self,
        request: request_.Request,
        routes: _Routes,
        attempts: retry_.Attempts,
    ) -> _Missing:
        """Ask those whose connection was lost what became of their copy."""
        request = request_.resent(request)
        refused: list[address.Route] = []
        window = attempts.deadline.within(sender_.RESEND_WINDOW)
        for tries_left in reversed(range(sender_.RESEND_TRIES)):
            self._counters.add('requests_resent', len(routes))
            outcome = self._round(
                request, attempts.deadline, asks_again=True
            ).send(routes, window.left())
            refused += outcome.refused
            routes = [*outcome.unsent, *outcome.unreachable, *outcome.lost]
            if outcome.lost:
                # There was a connection once more.
                window = attempts.deadline.within(sender_.RESEND_WINDOW)
            if not routes or not tries_left or window.passed():
                break
            attempts.pause()
        return _Missing(refused, routes, request)

    def _round(
        self,
        request: request_.Request,
        deadline: clock.Deadline,
        asks_again: bool = False,
    ) -> copies.Round:
        return copies.Round(
            self._sender,
            self._routing,
            self._counters,
            request,
            deadline,
            asks_again,
        )

    def _still_there(
        self,
        where: address.Address,
        routes: _Routes,
        deadline: clock.Deadline,
    ) -> _Routes:
        """Return those of *routes* that did not leave meanwhile."""
        try:
            present = set(self._routing.look(where, deadline).routes)
        except matchmaker_base.MatchmakerUnavailable:
            return self._alive(routes)
        return self._alive([route for route in routes if route in present])

    def _alive(self, routes: _Routes) -> _Routes:
        """Return *routes* without those that are known to have stopped."""
        suspects = self._routing.suspects
        if not suspects.routes:
            return routes
        return [route for route in routes if not suspects.has_stopped(route)]
