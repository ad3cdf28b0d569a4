# SPDX-License-Identifier: Apache-2.0
"""What the cache keeps of an address."""

from collections.abc import Hashable
import math
import threading

from zmq_driver import address
from zmq_driver.matchmaker import base


class Entry:
    """An answer and how long it holds.

    Thread: caller holds the lock.
    """

    __slots__ = (
        'asked_at',
        'check_at',
        'fresh_until',
        'revision',
        'routes',
        'settle_by',
    )

    def __init__(
        self, routes: base.Routes, revision: Hashable, asked_at: float
    ) -> None:
        """Begin with an answer that is fresh no more."""
        self.routes = routes
        self.revision = revision
        self.asked_at = asked_at
        self.fresh_until = asked_at
        #: Until then nothing is asked at all; never after fresh_until.
        self.check_at = asked_at
        #: Until then listeners that the backend lost are kept; None: it has
        #: lost none.
        self.settle_by: float | None = None

    def is_usable(self, now: float, stale_ttl: float) -> bool:
        """Return whether it may serve while the backend is down."""
        # A stale "nobody" would hide that nothing is known.
        return bool(self.routes) and now - self.asked_at < stale_ttl

    def trust(self, until: float) -> None:
        """Serve it until then."""
        self.fresh_until = self.check_at = until

    def delay_check(self, until: float) -> None:
        """Ask nothing until then, as long as it is fresh."""
        self.check_at = min(until, self.fresh_until)

    def expire(self) -> None:
        """Serve it no more."""
        self.trust(-math.inf)


class Flight:
    """One lookup on its way, and those who wait for it.

    Thread: any (written by the leader before ``done`` is set).
    """

    __slots__ = ('at', 'done', 'error', 'routes', 'settle_by', 'settled')

    def __init__(self, at: float) -> None:
        """Begin at a time."""
        self.at = at
        self.done = threading.Event()
        self.routes: base.Routes | None = None
        self.error: base.MatchmakerUnavailable | None = None
        #: Whether the backend says that the answer is all there is.
        self.settled = True
        #: See :attr:`Entry.settle_by`.
        self.settle_by: float | None = None

    def complete(
        self, scope: address.Scope, before: Entry | None, settle_time: float
    ) -> None:
        """Add to the answer what the backend lost and will have again.

        :param before: what was known
        :param settle_time: seconds for which that is believed
        """
        after = self.routes
        if after is None:
            # What was away may have lost more when it is back.
            if before is not None:
                before.settle_by = None
            return
        if after.settled:
            return
        self.settled = False
        if before is None:
            return
        self.settle_by = before.settle_by
        if self.settle_by is None:
            self.settle_by = self.at + settle_time
        if self.at < self.settle_by:
            self.routes = with_lost(scope, before.routes, after)


def with_lost(
    scope: address.Scope, before: base.Routes, after: base.Routes
) -> base.Routes:
    """Return an answer with what its backend has lost, as far as known.

    :param before: what was known
    :param after: the answer, which is not settled
    :returns: the answer, and all that was known but has not left. An RPC
        server that is registered anew is not looked for at its old place.
    """
    known = {route.incarnation for route in after.routes}
    lost = [
        route
        for route in before.routes
        if route.incarnation not in known
        and route.incarnation not in after.gone
        and not (scope is address.Scope.RPC and after.of_server(route.server))
    ]
    if not lost:
        return after
    return base.Routes((*after.routes, *lost), settled=False, gone=after.gone)
