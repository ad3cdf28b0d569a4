# SPDX-License-Identifier: Apache-2.0
"""Calls, casts and fanouts."""

from collections.abc import Sequence
import json
import logging
from typing import Any

import oslo_messaging

from zmq_driver import _oslo
from zmq_driver import address
from zmq_driver import body as body_
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import delivery as delivery_
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import fanout as fanout_
from zmq_driver.client import request as request_

LOG = logging.getLogger(__name__)


class RpcClient:
    """Sends RPC requests.

    Thread: any; each operation runs on its caller's thread.
    """

    def __init__(
        self,
        delivery: delivery_.Delivery,
        fanout: fanout_.Fanout,
        ids: exchange_.MessageIds,
        counters: counters_.Counters,
        allowed_remote_exmods: Sequence[str],
    ) -> None:
        """Send with *delivery*, and fanouts with *fanout*.

        :param allowed_remote_exmods: modules whose exceptions are rebuilt
            as themselves when a server raises them
        """
        self._delivery = delivery
        self._fanout = fanout
        self._ids = ids
        self._counters = counters
        self._allowed_remote_exmods = list(allowed_remote_exmods)

    def call(
        self,
        where: address.Address,
        server: str | None,
        body: bytes,
        *,
        deadline: clock.Deadline,
        monitor_timeout: float,
        retry: int | None,
        mandatory: bool,
    ) -> Any:
        """Send a request and return what the server's method returns.

        :param server: the only server that will do; None: any of the topic
        :param body: context and message, serialized
        :param monitor_timeout: seconds without a heartbeat from the server
            after which it is given up; 0.0 expects no heartbeats
        :param retry: more attempts after one that reached no server; None or
            -1: as many as the deadline allows
        :param mandatory: fail at once when nobody is registered
        :raises errors.ServerNotFound: not sent by the deadline
        :raises errors.DeliveryRefused: not sent, the retries are used up
        :raises errors.ReplyTimeout: sent, no reply by the deadline
        :raises errors.PeerLost: sent, and the server went away
        :raises oslo_messaging.MessageUndeliverable: *mandatory*, and nobody
            is registered
        :raises Exception: what the method raised
        """
        request = request_.Request(
            where,
            server,
            envelope.WANT_REPLY,
            body,
            self._ids.next(),
            monitor_timeout,
        )
        try:
            reply = self._delivery.deliver(
                request, retry, deadline, wait=not mandatory
            )
        except request_.Undelivered as error:
            if mandatory and error.nobody:
                raise _undeliverable(request, error) from None
            if error.timed_out:
                raise errors.ServerNotFound(
                    f'{error}, within {deadline.timeout} s'
                ) from None
            raise errors.DeliveryRefused(str(error)) from None
        return self._result(reply, request)

    def cast(
        self,
        where: address.Address,
        server: str | None,
        body: bytes,
        *,
        deadline: clock.Deadline,
        retry: int | None,
        mandatory: bool,
    ) -> None:
        """Send a request and return when a server has acknowledged it.

        The parameters are those of :meth:`call`.

        :raises errors.DeliveryRefused: not sent
        :raises errors.DeliveryUnconfirmed: sent, and not acknowledged
        :raises oslo_messaging.MessageUndeliverable: as with :meth:`call`
        """
        request = request_.Request(
            where, server, envelope.WANT_ACK, body, self._ids.next()
        )
        try:
            self._delivery.deliver(
                request, retry, deadline, wait=not mandatory
            )
        except request_.Undelivered as error:
            if mandatory and error.nobody:
                raise _undeliverable(request, error) from None
            raise errors.DeliveryRefused(str(error)) from None
        except (errors.PeerLost, errors.ReplyTimeout) as error:
            raise errors.DeliveryUnconfirmed(
                f'the cast to {where} was not acknowledged: {error}'
            ) from None

    def fanout(
        self,
        where: address.Address,
        body: bytes,
        *,
        deadline: clock.Deadline,
        retry: int | None,
    ) -> None:
        """Send one copy to every server that is registered now.

        What could not be delivered is logged and counted. Nobody registered
        is a success.

        :raises errors.DeliveryRefused: the matchmaker cannot be asked, so
            that nothing was sent
        """
        request = request_.Request(
            where,
            None,
            envelope.FANOUT | envelope.WANT_ACK,
            body,
            self._ids.next(),
        )
        self._fanout.send(request, self._delivery.attempts(retry, deadline))

    def _result(
        self, reply: envelope.Message, request: request_.Request
    ) -> Any:
        try:
            if not reply.header.flags & envelope.FAILURE:
                return body_.decode_reply(reply.body)
            failure = body_.decode_failure(reply.body)
        except body_.BodyDecodeError as error:
            self._counters.add('messages_undecodable')
            raise errors.ReplyUndecodable(
                f'the reply to message {request.message_id.hex()} to '
                f'{request.where} cannot be decoded, the call has run: '
                f'{error}'
            ) from error
        raise self._rebuild(failure)

    def _rebuild(self, failure: str) -> Exception:
        try:
            error: Exception = _oslo.deserialize_remote_exception(
                failure, self._allowed_remote_exmods
            )
        except Exception as problem:
            # Its class does not take the arguments that it was made with.
            LOG.warning('cannot rebuild a remote exception: %s', problem)
            described = json.loads(failure)
            error = oslo_messaging.RemoteError(
                described['class'], described['message'], described.get('tb')
            )
        return error


def _undeliverable(
    request: request_.Request, error: Exception
) -> oslo_messaging.MessageUndeliverable:
    routing_key = request.where.topic
    if request.server:
        routing_key += f'.{request.server}'
    return oslo_messaging.MessageUndeliverable(
        error, request.where.exchange, routing_key, str(error)
    )
