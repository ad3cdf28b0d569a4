# SPDX-License-Identifier: Apache-2.0
"""Brings one copy of a message to one listener, trying others if need be.

The line that everything here keeps: before the message is handed to a
connection nothing can have run, so another peer may be tried; after that,
only a NACK says that nothing ran.
"""

from collections.abc import Callable
from collections.abc import Sequence
import logging
from typing import NamedTuple

import zmq

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver import sockets
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.matchmaker import base as matchmaker_base

LOG = logging.getLogger(__name__)

#: Seconds; with less left, a message is not worth sending. The wire has
#: milliseconds, and zero stands for no limit there.
LEAST_TTL = 0.001

#: What a NACK means to the person who reads the error.
_REFUSALS = {
    envelope.NackReason.UNKNOWN_TARGET: 'has no such listener any more',
    envelope.NackReason.STOPPED: 'is being stopped',
    envelope.NackReason.BUSY: (
        'has as many messages as rpc_zmq_topic_backlog allows'
    ),
    envelope.NackReason.EXPIRED: 'got it too late',
    envelope.NackReason.FAILED: 'failed to take it, see its log',
    envelope.NackReason.STALLED: 'did not run for a while',
    envelope.NackReason.FORGOTTEN: 'may have had it before',
    envelope.NackReason.UNSUPPORTED_VERSION: (
        f'does not speak version {envelope.VERSION} of the wire protocol; '
        f'run the same release of the driver on both ends'
    ),
    envelope.NackReason.UNDECODABLE: 'cannot decode it',
}

#: Reasons that every other listener would give too.
_FINAL = (
    envelope.NackReason.UNSUPPORTED_VERSION,
    envelope.NackReason.UNDECODABLE,
)


class Request(NamedTuple):
    """A message to be delivered, serialized once.

    Thread: any (immutable).
    """

    where: address.Address
    #: The only server (or listener pool) that it is for; None: any.
    server: str | None
    #: What is waited for and how it is delivered: envelope.WANT_REPLY, ...
    flags: int
    body: bytes
    message_id: bytes
    monitor_timeout: float = 0.0


class Undelivered(Exception):
    """The attempts are used up, and no server has the message.

    :ivar timed_out: the deadline has passed (else: the retries were used up)
    :ivar nobody: nobody was registered at the last look
    """

    def __init__(
        self, request: Request, problem: object, timed_out: bool, nobody: bool
    ) -> None:
        """Say what went wrong last.

        :param problem: the last failed attempt, or why there was none
        """
        whom = f'{request.where}'
        if request.server:
            whom += f' server {request.server!r}'
        super().__init__(
            f'message {request.message_id.hex()} to {whom} was not sent: '
            f'{problem}'
        )
        self.timed_out = timed_out
        self.nobody = nobody


class Delivery:
    """Delivers requests over the sockets of a pool.

    Thread: any; each delivery runs on its caller's thread.
    """

    def __init__(
        self,
        pool: pool_.SocketPool[str, sockets.PeerSocket],
        routing: routing_.Routing,
        counters: counters_.Counters,
        connect_timeout: float,
        sleep: Callable[[float], object],
    ) -> None:
        """Deliver over *pool* to whom *routing* finds.

        :param connect_timeout: seconds to wait for one connection
        :param sleep: waits for the given seconds, or raises when there is no
            point in waiting any more
        """
        self._pool = pool
        self._routing = routing
        self._counters = counters
        #: Seconds to wait for one connection.
        self.connect_timeout = connect_timeout
        self._sleep = sleep

    def attempts(
        self, retry: int | None, deadline: clock.Deadline
    ) -> retry_.Attempts:
        """Return the attempts that *retry* and *deadline* allow."""
        return retry_.Attempts(retry, deadline, self._sleep)

    def deliver(
        self,
        request: Request,
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
            return self._attempt(route, request, deadline)
        except (errors.PeerNotReady, errors.Refused) as error:
            problem = error
        attempts = self.attempts(retry, deadline)
        self._note_failure(request, attempts, problem)
        return self.deliver_somewhere(request, attempts, wait, problem)

    def deliver_somewhere(
        self,
        request: Request,
        attempts: retry_.Attempts,
        wait: bool = True,
        problem: Exception | None = None,
    ) -> envelope.Message:
        """Do what :meth:`deliver` does, with attempts that were begun.

        :param problem: why the attempt before this failed
        """
        while True:
            for route in self._routing.in_turn(
                request.where,
                request.server,
                self._routes(request, attempts, wait, problem),
            ):
                try:
                    return self._attempt(route, request, attempts.deadline)
                except (errors.PeerNotReady, errors.Refused) as error:
                    problem = error
                self._note_failure(request, attempts, problem)
            attempts.pause()

    def _note_failure(
        self,
        request: Request,
        attempts: retry_.Attempts,
        problem: Exception,
    ) -> None:
        """Take note of an attempt that reached no listener.

        :raises Undelivered: it was the last
        """
        LOG.debug('%s; trying elsewhere', problem)
        self._routing.invalidate(request.where)
        if not attempts.failed():
            raise Undelivered(
                request, problem, attempts.deadline.passed(), False
            )

    def _routes(
        self,
        request: Request,
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
            raise Undelivered(
                request,
                f'the matchmaker cannot be asked: {error}',
                attempts.deadline.passed(),
                False,
            ) from error
        if not routes:
            nobody = 'nobody is registered for it'
            if problem is not None:
                nobody += f' any more, after {problem}'
            raise Undelivered(
                request, nobody, attempts.deadline.passed(), True
            )
        return routes

    def _attempt(
        self, route: address.Route, request: Request, deadline: clock.Deadline
    ) -> envelope.Message:
        with self.checkout(route, deadline) as lease:
            exchange = self.send(lease, route, request, deadline)
            answer = self.receive(exchange, route, request, deadline)
        return check(answer, route, request)

    def checkout(
        self, route: address.Route, deadline: clock.Deadline
    ) -> pool_.SocketLease[str, sockets.PeerSocket]:
        """Lease a socket to *route*.

        :raises errors.PeerNotReady: there was none in time
        :raises errors.DeliveryRefused: too many threads wait for one
        :raises errors.DriverClosed: the driver was cleaned up
        """
        try:
            return self._pool.checkout(route.endpoint, deadline)
        except pool_.PoolTimeout as error:
            raise errors.PeerNotReady(str(error)) from error
        except pool_.TooManyWaiters as error:
            raise errors.DeliveryRefused(str(error)) from error
        except pool_.PoolClosed as error:
            raise errors.DriverClosed(
                f'the transport was cleaned up: {error}'
            ) from error
        except zmq.ZMQError as error:
            self._counters.add('requests_not_sent')
            raise errors.PeerNotReady(
                f'cannot open a socket to {route.endpoint}: {error}'
            ) from error

    def send(
        self,
        lease: pool_.SocketLease[str, sockets.PeerSocket],
        route: address.Route,
        request: Request,
        deadline: clock.Deadline,
    ) -> exchange_.Exchange:
        """Send *request* over *lease*.

        :raises errors.PeerNotReady: it was not sent
        """
        exchange = exchange_.Exchange(
            lease, request.message_id, self._counters
        )
        try:
            exchange.connect(min(self.connect_timeout, deadline.left()))
        except errors.PeerNotReady:
            self.note_unreachable(route)
            raise
        try:
            left = deadline.left()
            if left <= LEAST_TTL:
                raise errors.PeerNotReady('no time was left to send it')
            header = envelope.encode_request(
                request.message_id,
                request.where.exchange,
                request.where.topic,
                route.server,
                route.incarnation,
                left,
                request.monitor_timeout,
                request.flags,
            )
            exchange.send((header, request.body))
        except errors.PeerNotReady:
            self._pool.clear(route.endpoint)
            raise
        suspects = self._routing.suspects
        if suspects.routes:
            suspects.forget(route)
        return exchange

    def note_unreachable(self, route: address.Route) -> None:
        """Take note that no connection to *route* came about."""
        self._routing.suspects.failed(route)
        self._pool.clear(route.endpoint)

    def receive(
        self,
        exchange: exchange_.Exchange,
        route: address.Route,
        request: Request,
        deadline: clock.Deadline,
    ) -> envelope.Message:
        """Wait for the answer.

        :raises errors.PeerLost: the connection is gone
        :raises errors.ReplyTimeout: it did not come in time
        """
        kind = (
            envelope.Kind.REPLY
            if request.flags & envelope.WANT_REPLY
            else envelope.Kind.ACK
        )
        try:
            answer = exchange.receive(kind, deadline, request.monitor_timeout)
        except errors.PeerLost:
            self._pool.clear(route.endpoint)
            self._routing.invalidate(request.where)
            raise
        if answer.header.kind is envelope.Kind.NACK:
            self._counters.add('requests_refused')
        return answer


def check(
    answer: envelope.Message, route: address.Route, request: Request
) -> envelope.Message:
    """Return an answer unless it is a NACK.

    :raises errors.Refused: this listener did not take it, another may
    :raises errors.DeliveryRefused: no listener would take it
    """
    if answer.header.kind is not envelope.Kind.NACK:
        return answer
    reason = envelope.NackReason(answer.header.reason)
    text = (
        f'message {request.message_id.hex()} to {request.where} was '
        f'refused: the process at {route.endpoint} {_REFUSALS[reason]}'
    )
    if reason in _FINAL:
        raise errors.DeliveryRefused(text)
    raise errors.Refused(text)
