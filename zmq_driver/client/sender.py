# SPDX-License-Identifier: Apache-2.0
"""One request to one listener, also if a connection is lost on the way.

The line that everything here keeps: before the message is handed to a
connection nothing can have run; after that, only the listener knows. So when
a connection is lost, the sender asks the same listener what became of the
request, and nobody else.
"""

from collections.abc import Callable
import logging

import zmq

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver import sockets
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import incidents
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_

LOG = logging.getLogger(__name__)

#: Seconds; with less left, a message is not worth sending. The wire has
#: milliseconds, and zero stands for no limit there.
LEAST_TTL = 0.001

#: Seconds for which a listener is asked again after a lost connection. With
#: the 1.5 s in which heartbeats notice a frozen peer it leaves 3 s room.
RESEND_WINDOW = 1.0
#: How often it is asked at most, and the pauses in between: a listener that
#: was killed refuses at once, and is given up within a quarter of a second.
RESEND_TRIES = 4
RESEND_PAUSES = (0.02, 0.2)
#: How many connections in a row may be lost: what makes connections is alive.
RESEND_LOSSES = 10

#: How often a request is sent again to a listener that was held up, and the
#: pauses in between.
STALLED_TRIES = 10
STALLED_PAUSES = (0.001, 0.05)

#: Reasons that a listener gives when it will never take anything again.
_GONE = (envelope.NackReason.STOPPED, envelope.NackReason.UNKNOWN_TARGET)
_STALLED = int(envelope.NackReason.STALLED)

Lease = pool_.SocketLease[str, sockets.PeerSocket]


class Sender:
    """Sends requests to listeners, and gets their answers.

    Thread: any; each exchange runs on its caller's thread.
    """

    def __init__(
        self,
        pool: pool_.SocketPool[str, sockets.PeerSocket],
        routing: routing_.Routing,
        counters: counters_.Counters,
        connect_timeout: float,
        sleep: Callable[[float], object],
    ) -> None:
        """Send over *pool*, and tell *routing* who cannot be reached.

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
        self._incidents = incidents.Incidents()

    def request(
        self,
        route: address.Route,
        request: request_.Request,
        deadline: clock.Deadline,
    ) -> envelope.Message:
        """Send *request* to one listener and return the REPLY or ACK.

        :raises errors.PeerNotReady: it was not sent
        :raises errors.Refused: this listener did not take it, another may
        :raises errors.DeliveryRefused: it cannot be delivered at all
        :raises errors.PeerLost: the listener had it and went away
        :raises errors.ReplyTimeout: the listener had it and did not answer
        :raises errors.DriverClosed: the driver was cleaned up; not sent
        """
        try:
            answer = self._exchange(route, request, deadline, deadline)
        except errors.PeerLost as lost:
            return self._ask_again(route, request, deadline, lost)
        return request_.check(answer, route, request)

    def _exchange(
        self,
        route: address.Route,
        request: request_.Request,
        deadline: clock.Deadline,
        connect: clock.Deadline,
    ) -> envelope.Message:
        """Return the answer of the listener, which may be a NACK.

        :param connect: until when there must be a connection
        """
        answer = self._exchange_once(route, request, deadline, connect)
        if answer.header.reason != _STALLED:
            return answer
        # Nothing ran, and it runs again.
        backoff = retry_.Backoff(*STALLED_PAUSES)
        for _ in range(STALLED_TRIES):
            self._sleep(min(backoff.pause(), deadline.left()))
            answer = self._exchange_once(route, request, deadline, deadline)
            if answer.header.reason != _STALLED:
                break
        return answer

    def _exchange_once(
        self,
        route: address.Route,
        request: request_.Request,
        deadline: clock.Deadline,
        connect: clock.Deadline,
    ) -> envelope.Message:
        with self.checkout(route, connect) as lease:
            try:
                exchange = self.send(lease, route, request, deadline, connect)
            except errors.NoTimeLeft:
                # Nothing is wrong with the socket.
                lease.release()
                raise
            return self.receive(exchange, route, request, deadline)

    def _ask_again(
        self,
        route: address.Route,
        request: request_.Request,
        deadline: clock.Deadline,
        lost: errors.PeerLost,
    ) -> envelope.Message:
        """Ask a listener what became of a request; return its answer.

        :param lost: how the connection was lost, raised if there is no answer
        """
        again = request_.resent(request)
        backoff = retry_.Backoff(*RESEND_PAUSES)
        end = deadline.within(RESEND_WINDOW)
        tries, losses = RESEND_TRIES, RESEND_LOSSES
        while tries and losses and not end.passed():
            tries -= 1
            stable = deadline.within(RESEND_WINDOW)
            try:
                answer = self._exchange(route, again, deadline, end)
            except errors.PeerLost as error:
                lost = error
                end = deadline.within(RESEND_WINDOW)
                tries = RESEND_TRIES
                losses = RESEND_LOSSES if stable.passed() else losses - 1
            except (errors.PeerNotReady, errors.DeliveryRefused) as error:
                LOG.debug('%s; asking again', error)
            except errors.DriverClosed:
                raise lost from None
            else:
                return self.resent(answer, route, again)
            if tries:
                self._pause(min(backoff.pause(), end.left()), lost)
        self._incidents.lost(route, request, lost)
        raise lost

    def resent(
        self,
        answer: envelope.Message,
        route: address.Route,
        request: request_.Request,
    ) -> envelope.Message:
        """Return the answer to a request that was sent again, unless a NACK.

        :raises errors.PeerLost: what became of the first copy is not known
        :raises errors.RefusedAgain: it was not taken, another listener may
        """
        try:
            request_.check_resent(answer, route, request)
        except errors.PeerLost as lost:
            self._incidents.lost(route, request, lost)
            raise
        self._incidents.found_again(route, request)
        return answer

    def _pause(self, seconds: float, lost: errors.PeerLost) -> None:
        try:
            self._sleep(seconds)
        except errors.DriverClosed:
            # What was closed is not the whole story: it may have run.
            raise lost from None

    def checkout(
        self, route: address.Route, deadline: clock.Deadline
    ) -> Lease:
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
        lease: Lease,
        route: address.Route,
        request: request_.Request,
        deadline: clock.Deadline,
        connect: clock.Deadline,
    ) -> exchange_.Exchange:
        """Send *request* over *lease*.

        :param connect: until when there must be a connection
        :raises errors.PeerNotReady: it was not sent
        """
        exchange = exchange_.Exchange(
            lease, request.message_id, self._counters
        )
        if lease.fresh:
            try:
                exchange.connect(min(self.connect_timeout, connect.left()))
            except errors.PeerNotReady as error:
                if not deadline.passed():
                    self.note_unreachable(route, error)
                raise
        left = deadline.left()
        if left <= LEAST_TTL:
            raise errors.NoTimeLeft('no time was left to send it')
        try:
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
        if request.flags & envelope.RESENT:
            self._counters.add('requests_resent')
        suspects = self._routing.suspects
        if suspects.routes:
            suspects.connected(route)
        return exchange

    def note_unreachable(self, route: address.Route, error: object) -> None:
        """Take note that no connection to *route* came about."""
        self._routing.suspects.failed(route)
        self._incidents.unreachable(route, error)
        self._pool.clear(route.endpoint)

    def receive(
        self,
        exchange: exchange_.Exchange,
        route: address.Route,
        request: request_.Request,
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
            self._note_lost(route, request)
            raise
        self._note_answer(answer, route, request)
        return answer

    def look(
        self,
        exchange: exchange_.Exchange,
        route: address.Route,
        request: request_.Request,
    ) -> envelope.Message | None:
        """Return the ACK or NACK if it is here; does not wait.

        :raises errors.PeerLost: the connection is gone
        """
        try:
            answer = exchange.look(envelope.Kind.ACK)
        except errors.PeerLost:
            self._note_lost(route, request)
            raise
        if answer is not None:
            self._note_answer(answer, route, request)
        return answer

    def _note_lost(
        self, route: address.Route, request: request_.Request
    ) -> None:
        self._pool.clear(route.endpoint)
        self._routing.invalidate(request.where)

    def _note_answer(
        self,
        answer: envelope.Message,
        route: address.Route,
        request: request_.Request,
    ) -> None:
        if answer.header.kind is envelope.Kind.NACK:
            self._counters.add('requests_refused')
            self._incidents.refused(route, request, answer.header.reason)
            if (
                answer.header.reason in _GONE
                and route.incarnation != envelope.ANY_INCARNATION
            ):
                self._routing.suspects.gone(route)
        else:
            self._counters.add('requests_answered')
