# SPDX-License-Identifier: Apache-2.0
"""What goes wrong while sending, in lines that an operator can act on."""

import logging

from zmq_driver import address
from zmq_driver import counters
from zmq_driver import envelope
from zmq_driver.client import request as request_

LOG = logging.getLogger(__name__)

#: What to do about refusals that a healthy deployment does not see.
_ADVICE = {
    envelope.NackReason.BUSY: (
        'its executor does not keep up: more servers, more executor threads '
        'or faster methods help'
    ),
    envelope.NackReason.FAILED: 'its log says why',
    envelope.NackReason.UNSUPPORTED_VERSION: (
        'run the same release of the driver on both ends'
    ),
    envelope.NackReason.UNDECODABLE: 'its log says why',
}


class Incidents:
    """Logs incidents; each kind at most once in ten seconds.

    Thread: any.
    """

    def __init__(self) -> None:
        """Begin with nothing to tell."""
        self._lost = counters.LimitedLog(LOG, logging.WARNING)
        self._found = counters.LimitedLog(LOG, logging.INFO)
        self._unreachable = counters.LimitedLog(LOG, logging.WARNING)
        self._refused = counters.LimitedLog(LOG, logging.WARNING)

    def lost(
        self, route: address.Route, request: request_.Request, error: object
    ) -> None:
        """Tell that a listener went away, and what the caller is told."""
        then = 'is not sent again'
        if request.flags & envelope.NOTIFICATION:
            then = 'goes to another listener if there is one'
        self._lost(
            'server %r of %s went away with a message, which may have run '
            'and %s: %s',
            route.server,
            request.where,
            then,
            error,
        )

    def found_again(
        self, route: address.Route, request: request_.Request
    ) -> None:
        """Tell that only a connection was lost, and nothing else."""
        self._found(
            'the connection to server %r of %s at %s was lost and made '
            'again, and nothing was lost with it',
            route.server,
            request.where,
            route.endpoint,
        )

    def unreachable(self, route: address.Route, error: object) -> None:
        """Tell that no connection to a listener came about."""
        self._unreachable(
            'server %r cannot be reached, others are tried before it: %s',
            route.server,
            error,
        )

    def refused(
        self,
        route: address.Route,
        request: request_.Request,
        reason: int,
    ) -> None:
        """Tell of a refusal that somebody has to do something about."""
        advice = _ADVICE.get(envelope.NackReason(reason))
        if advice is not None:
            self._refused(
                'server %r of %s at %s refuses messages (%s): %s',
                route.server,
                request.where,
                route.endpoint,
                envelope.NackReason(reason).name,
                advice,
            )
