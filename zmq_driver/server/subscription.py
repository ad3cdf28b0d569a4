# SPDX-License-Identifier: Apache-2.0
"""The place of a listener in the router and at the matchmaker."""

from collections.abc import Sequence
import logging
import os
import threading
from typing import Protocol

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.server import router as router_
from zmq_driver.server import sink as sink_

LOG = logging.getLogger(__name__)

#: Seconds that stop() may take to withdraw a listener.
STOP_TIMEOUT = 5.0


class Registry(Protocol):
    """The part of a matchmaker that a listener needs.

    Thread: any.
    """

    def register(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Publish a registration."""

    def unregister(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Withdraw a registration."""


class Subscription:
    """A listener's place in the router and at the matchmaker.

    Thread: any; the router reads it.
    """

    def __init__(
        self,
        router: router_.Router,
        registry: Registry,
        addresses: Sequence[address.Address],
        server: str,
    ) -> None:
        """Describe the subscription; nobody can see it yet.

        :param addresses: what the listener receives
        :param server: the RPC server's name, or the listener pool
        """
        self.incarnation = os.urandom(envelope.ID_SIZE)
        self._router = router
        self._registry = registry
        self._server = server
        self._scope = addresses[0].scope
        self._names = {(where.exchange, where.topic) for where in addresses}
        route = address.Route(router.endpoint, self.incarnation, server)
        self._registrations = [
            address.Registration(where, route, router.tcp_endpoint)
            for where in addresses
        ]
        self._lock = threading.Lock()
        self._open = False

    def serves(self, header: envelope.Header) -> bool:
        """Return whether a request is addressed to this listener."""
        notification = bool(header.flags & envelope.NOTIFICATION)
        return (
            (header.exchange, header.topic) in self._names
            and header.server == self._server
            and notification == (self._scope is address.Scope.NOTIFICATION)
        )

    def present(self) -> list[tuple[address.Address, str]]:
        """Return each address with the server's name, while it is open."""
        with self._lock:
            is_open = self._open
        return [
            (one.address, self._server)
            for one in self._registrations
            if is_open
        ]

    def open(self, sink: sink_.Sink, deadline: clock.Deadline) -> None:
        """Receive at the router, then be found at the matchmaker.

        :raises errors.ListenFailure: it cannot be found; the subscription is
            closed again
        """
        with self._lock:
            self._open = True
        self._router.attach(sink)
        try:
            for registration in self._registrations:
                self._registry.register(registration, deadline)
        except matchmaker_base.MatchmakerUnavailable as error:
            self.close(sink, clock.Deadline(STOP_TIMEOUT))
            raise errors.ListenFailure(
                f'cannot register a listener for '
                f'{self._registrations[0].address}: {error}'
            ) from error

    def close(self, sink: sink_.Sink, deadline: clock.Deadline) -> None:
        """Be found no more, then receive no more; idempotent."""
        with self._lock:
            was_open, self._open = self._open, False
        try:
            if was_open:
                self._withdraw(deadline.within(deadline.left() / 2))
        finally:
            # Also when somebody else is closing: the callback must not be
            # running any more when this returns.
            self._router.detach(sink, deadline)

    def _withdraw(self, deadline: clock.Deadline) -> None:
        for registration in self._registrations:
            try:
                self._registry.unregister(registration, deadline)
            except matchmaker_base.MatchmakerUnavailable as error:
                LOG.warning(
                    'the registration of %s could not be withdrawn, '
                    'it ends by itself: %s',
                    registration.address,
                    error,
                )
