# SPDX-License-Identifier: Apache-2.0
"""Brings one copy of a message to one listener, trying others if need be."""

from collections.abc import Callable
from collections.abc import Sequence
import logging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.client import sender as sender_
from zmq_driver.matchmaker import base as matchmaker_base

LOG = logging.getLogger(__name__)


class Delivery:
    """Delivers requests to who listens.

    Thread: any; each delivery runs on its caller's thread.
    """

    def __init__(
        self,
        sender: sender_.Sender,
        routing: routing_.Routing,
        counters: counters_.Counters,
        sleep: Callable[[float], object],
    ) -> None:
        """Deliver with *sender* to whom *routing* finds.

        :param sleep: waits for the given seconds, or raises when there is no
            point in waiting any more
        """
        self._sender = sender
        self._routing = routing
        self._counters = counters
        self._sleep = sleep

    def attempts(
        self, retry: int | None, deadline: clock.Deadline
    ) -> retry_.Attempts:
        """Return the attempts that *retry* and *deadline* allow."""
        return retry_.Attempts(retry, deadline, self._sleep)

    def deliver(
        self,
        request: request_.Request,
        retry: int | None,
        deadline: clock.Deadline,
        wait: bool = True,
    ) -> envelope.Message:
        """Send to one listener after the other until one takes it.

        :param retry: more attempts after one that reached no listener; None
            or -1: as many as the deadline allows
        :param wait: whether to wait for a listener when there is none
        :returns: the REPLY or the ACK
        :raises Undelivered: no server has it
        :raises errors.DeliveryRefused: it cannot be delivered at all
        :raises errors.PeerLost: a server had it and went away
        :raises errors.ReplyTimeout: a server had it and did not answer
        """
        # Nearly always the first attempt is the last.
        route = self._routing.first(request.where, request.server, deadline)
        if route is None:
            return self.deliver_somewhere(
                request, self.attempts(retry, deadline), wait
            )
        try:
            return self._sender.request(route, request, deadline)
        except (errors.PeerNotReady, errors.Refused) as error:
            problem = error
        attempts = self.attempts(retry, deadline)
        self._note_failure(request, attempts, route, problem, problem)
        return self.deliver_somewhere(request, attempts, wait, problem, route)

    def deliver_somewhere(
        self,
        request: request_.Request,
        attempts: retry_.Attempts,
        wait: bool = True,
        problem: Exception | None = None,
        tried: address.Route | None = None,
    ) -> envelope.Message:
        """Do what :meth:`deliver` does, with attempts that were begun.

        :param problem: why the attempt before this failed
        :param tried: with whom that was; the others come first
        """
        while True:
            for route in self._routing.in_turn(
                request.where,
                request.server,
                self._routes(request, attempts, wait, problem),
                tried,
            ):
                try:
                    return self._sender.request(
                        route,
                        _for(route, request, attempts),
                        attempts.deadline,
                    )
                except (errors.PeerNotReady, errors.Refused) as error:
                    failure = error
                if problem is None or not isinstance(
                    failure, errors.NoTimeLeft
                ):
                    problem = failure
                # Else what went wrong before it says more.
                tried = route
                self._note_failure(request, attempts, route, failure, problem)
            attempts.pause()

    def _note_failure(
        self,
        request: request_.Request,
        attempts: retry_.Attempts,
        route: address.Route,
        failure: Exception,
        problem: Exception,
    ) -> None:
        """Take note of an attempt that reached no listener.

        :param failure: how it ended
        :param problem: what to tell the caller if it was the last
        :raises Undelivered: it was the last
        """
        LOG.debug('%s; trying elsewhere', failure)
        if isinstance(failure, errors.RefusedAgain):
            attempts.refused_again.add(route)
        if not isinstance(failure, (errors.Busy, errors.NoTimeLeft)):
            self._routing.invalidate(request.where)
        if not attempts.failed():
            raise request_.Undelivered(
                request, problem, attempts.deadline.passed(), False
            )
        self._counters.add('requests_retried')

    def _routes(
        self,
        request: request_.Request,
        attempts: retry_.Attempts,
        wait: bool,
        problem: object,
    ) -> Sequence[address.Route]:
        """Return who listens; not empty."""
        try:
            if wait:
                routes = self._routing.wait(
                    request.where, request.server, attempts
                )
            else:
                routes = self._routing.find(
                    request.where, request.server, attempts.deadline
                )
        except matchmaker_base.MatchmakerUnavailable as error:
            raise request_.Undelivered(
                request,
                f'the matchmaker cannot be asked: {error}',
                attempts.deadline.passed(),
                False,
            ) from error
        if not routes:
            nobody = 'nobody is registered for it'
            if problem is not None:
                nobody += f' any more, after {problem}'
            raise request_.Undelivered(
                request, nobody, attempts.deadline.passed(), True
            )
        return routes


def _for(
    route: address.Route, request: request_.Request, attempts: retry_.Attempts
) -> request_.Request:
    """Return *request* as it is to be sent to *route* (DL-58)."""
    if route in attempts.refused_again:
        return request_.resent(request)
    return request
