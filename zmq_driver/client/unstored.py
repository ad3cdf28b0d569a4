# SPDX-License-Identifier: Apache-2.0
"""Notifications without a store: to the listeners that are there, or fail."""

from collections.abc import Sequence
import logging

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import delivery as delivery_
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.matchmaker import base as matchmaker_base

LOG = logging.getLogger(__name__)

_FLAGS = envelope.NOTIFICATION | envelope.WANT_ACK


class UnstoredNotifier:
    """Waits until one member of each listener pool has handled it.

    Thread: any; each operation runs on its caller's thread.
    """

    def __init__(
        self,
        delivery: delivery_.Delivery,
        routing: routing_.Routing,
    ) -> None:
        """Send over *delivery*."""
        self._delivery = delivery
        self._routing = routing

    def notify(
        self,
        where: address.Address,
        message_id: bytes,
        body: bytes,
        *,
        deadline: clock.Deadline,
        retry: int | None,
    ) -> None:
        """Return when a member of each listener pool has handled it.

        While there is no listener at all, wait for one. A listener pool that
        appears after that gets no copy of this notification.

        :param body: context and message, serialized
        :param retry: more attempts after one that reached no listener, for
            each pool; None or -1: as many as the deadline allows
        :raises errors.DeliveryRefused: no listener took it
        :raises errors.DeliveryUnconfirmed: one pool did not take it, another
            has it or may have it
        """
        attempts = self._delivery.attempts(retry, deadline)
        while True:
            names = self._listener_pools(where, message_id, attempts)
            served = self._notify_pools(
                names, where, body, message_id, deadline, retry
            )
            if served:
                return
            # Every pool lost its last member in between.
            if not attempts.failed():
                raise errors.DeliveryRefused(
                    f'notification {message_id.hex()} to {where} was not '
                    f'sent: its last listener has left'
                )
            attempts.pause()

    def _listener_pools(
        self,
        where: address.Address,
        message_id: bytes,
        attempts: retry_.Attempts,
    ) -> Sequence[str]:
        """Wait until there is a listener; return the names of the pools."""
        problem = 'nobody listens'
        try:
            routes = self._routing.wait(where, None, attempts)
        except matchmaker_base.MatchmakerUnavailable as error:
            routes = ()
            problem = f'the matchmaker cannot be asked: {error}'
        if not routes:
            raise errors.DeliveryRefused(
                f'notification {message_id.hex()} to {where} was not sent '
                f'within {attempts.deadline.timeout} s: {problem}'
            )
        return sorted({route.server for route in routes})

    def _notify_pools(
        self,
        names: Sequence[str],
        where: address.Address,
        body: bytes,
        message_id: bytes,
        deadline: clock.Deadline,
        retry: int | None,
    ) -> int:
        """Send to each pool; return how many took it.

        :raises errors.DeliveryRefused: no listener has it
        :raises errors.DeliveryUnconfirmed: one pool did not take it, another
            has it or may have it
        """
        served = 0
        uncertain = False
        problems = []
        for index, name in enumerate(names):
            # One pool that does not answer leaves the others their share.
            share = deadline.within(deadline.left() / (len(names) - index))
            request = request_.Request(where, name, _FLAGS, body, message_id)
            try:
                self._notify_pool(request, share, retry)
                served += 1
            except request_.Undelivered as error:
                # Its last member has left: it is no pool any more.
                if not error.nobody:
                    problems.append(f'listener pool {name!r}: {error}')
            except oslo_messaging.MessagingException as error:
                uncertain = uncertain or getattr(error, 'may_have_run', True)
                problems.append(f'listener pool {name!r}: {error}')
        if problems:
            failure = (
                errors.DeliveryUnconfirmed
                if served or uncertain
                else errors.DeliveryRefused
            )
            raise failure(
                f'notification {message_id.hex()} to {where} was taken by '
                f'{served} of {len(names)} listener pools; '
                + '; '.join(problems)
            )
        return served

    def _notify_pool(
        self,
        request: request_.Request,
        deadline: clock.Deadline,
        retry: int | None,
    ) -> None:
        """Send to one pool.

        :raises request.Undelivered: no member has it
        :raises oslo_messaging.MessagingException: as its ``may_have_run``
            says
        """
        attempts = self._delivery.attempts(retry, deadline)
        lost: errors.PeerLost | None = None
        while True:
            try:
                self._delivery.deliver_somewhere(request, attempts, wait=False)
            except errors.PeerLost as error:
                # A notification is delivered at least once: the listener
                # died before it acknowledged, another one gets it.
                if not attempts.failed():
                    raise
                lost = error
                LOG.debug('%s; another listener gets it', error)
            except (request_.Undelivered, errors.DriverClosed):
                if lost is None:
                    raise
                # Nobody else took it; the one that died may have run it.
                raise lost from None
            else:
                return
