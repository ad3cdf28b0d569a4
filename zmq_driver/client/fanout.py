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
from zmq_driver.client import readiness as readiness_
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.client import sender as sender_
from zmq_driver.matchmaker import base as matchmaker_base

LOG = logging.getLogger(__name__)

#: Servers that are named in one line of the log.
MOST_NAMES = 5

_Routes = Sequence[address.Route]


class _Missing(NamedTuple):
    """Servers without a copy.

    Thread: any (immutable).
    """

    #: They did not get it, and may get it yet.
    again: copies.Problems
    #: Nothing more is tried.
    given_up: copies.Problems


class Fanout:
    """Sends copies to all servers that are registered.

    Thread: any; each fanout runs on its caller's thread.
    """

    def __init__(
        self,
        sender: sender_.Sender,
        routing: routing_.Routing,
        counters: counters_.Counters,
        readiness: copies.Readiness = readiness_.Readiness,
    ) -> None:
        """Send with *sender* to whom *routing* finds.

        :param readiness: makes what watches the sockets of one fanout
        """
        self._sender = sender
        self._routing = routing
        self._counters = counters
        self._readiness = readiness
        self._log = counters_.LimitedLog(LOG, logging.WARNING)

    def send(
        self, request: request_.Request, attempts: retry_.Attempts
    ) -> None:
        """Send one copy to every server that is registered now.

        A copy that reached no server is tried again as long as that server
        is registered; but those that cannot be connected to are given up
        after ``connect_timeout``, because they may be dead. A copy that may
        have reached its server is asked for, as often as any other message.
        What could not be delivered is logged and counted.

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
            self._log(
                'fanout %s to %s was not delivered to %d server(s): %s',
                request.message_id.hex(),
                request.where,
                len(missing),
                _describe(missing),
            )

    def _send_copies(
        self,
        request: request_.Request,
        routes: _Routes,
        attempts: retry_.Attempts,
    ) -> copies.Problems:
        """Send a copy to each of *routes*; return those it did not reach."""
        given_up: copies.Problems = {}
        connect = attempts.deadline.within(self._sender.connect_timeout)
        suspects = self._routing.suspects
        avoided = {route for route in routes if suspects.avoids(route)}
        while routes:
            again, hopeless = self._send_round(
                request, routes, avoided, attempts, connect
            )
            given_up.update(hopeless)
            if not again:
                break
            self._routing.invalidate(request.where)
            if not attempts.failed():
                given_up.update(again)
                break
            self._counters.add('requests_retried', len(again))
            attempts.pause()
            routes = self._still_there(
                request.where, list(again), attempts.deadline
            )
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
        outcome = self._round(request, attempts).send(routes, connect)
        again = {**outcome.unsent, **outcome.refused}
        given_up = dict(outcome.failed)
        for route, problem in outcome.unreachable.items():
            hopeless = route in avoided or connect.passed()
            (given_up if hopeless else again)[route] = problem
        if outcome.lost:
            missing = self._ask_again(request, list(outcome.lost), attempts)
            again.update(missing.again)
            given_up.update(missing.given_up)
        return _Missing(again, given_up)

    def _ask_again(
        self,
        request: request_.Request,
        routes: _Routes,
        attempts: retry_.Attempts,
    ) -> _Missing:
        """Ask those whose connection was lost what became of their copy."""
        refused: copies.Problems = {}
        failed: copies.Problems = {}
        missing: copies.Problems = {}
        window = attempts.deadline.within(sender_.RESEND_WINDOW)
        tries = sender_.RESEND_TRIES
        for losses_left in reversed(range(sender_.RESEND_LOSSES)):
            tries -= 1
            outcome = self._round(request, attempts, asks_again=True).send(
                routes, window
            )
            refused.update(outcome.refused)
            failed.update(outcome.failed)
            missing = {**outcome.unsent, **outcome.unreachable, **outcome.lost}
            if outcome.lost:
                # There was a connection once more.
                window = attempts.deadline.within(sender_.RESEND_WINDOW)
                tries = sender_.RESEND_TRIES
            if not (missing and losses_left and tries) or window.passed():
                break
            attempts.pause()
            routes = list(missing)
        # Who refused it then refuses the first copy too (DL-58).
        attempts.refused_again.update(refused)
        return _Missing(refused, {**failed, **missing})

    def _round(
        self,
        request: request_.Request,
        attempts: retry_.Attempts,
        asks_again: bool = False,
    ) -> copies.Round:
        return copies.Round(
            self._sender,
            self._routing.suspects,
            request,
            attempts,
            asks_again,
            self._readiness,
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


def _describe(missing: copies.Problems) -> str:
    """Return the names of some servers, with what was wrong."""
    shown = sorted((r.server, str(p)) for r, p in missing.items())
    text = '; '.join(f'{name} ({why})' for name, why in shown[:MOST_NAMES])
    left = len(shown) - MOST_NAMES
    return f'{text}; and {left} more' if left > 0 else text
