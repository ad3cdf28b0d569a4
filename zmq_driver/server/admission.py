# SPDX-License-Identifier: Apache-2.0
"""Which requests are handed over, and which are only answered.

Rules DL-50, DL-51 and DL-53 of ``doc/specs/delivery.rst``.
"""

from collections.abc import Callable
import logging

from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver.server import recent as recent_
from zmq_driver.server import stall as stall_
from zmq_driver.server import unheard as unheard_

LOG = logging.getLogger(__name__)

#: What is not finished when it was taken: a call until it is answered, a
#: notification until it was handled.
_UNDER_WAY = envelope.WANT_REPLY | envelope.NOTIFICATION

#: Hands a request to its listener, or says why not.
Deliver = Callable[
    [recent_.Record, envelope.Message], envelope.NackReason | None
]
#: Sends a header and a body to a connection.
Send = Callable[[bytes, bytes, bytes], None]


class Admission:
    """Lets a request pass once.

    Thread: router.
    """

    def __init__(
        self,
        recent: recent_.Recent,
        stall: stall_.Stall,
        unheard: unheard_.Unheard,
        counters: counters_.Counters,
        deliver: Deliver,
        send: Send,
    ) -> None:
        """Decide by *recent* and *stall*, act by *deliver* and *send*.

        :param unheard: told who asks again
        """
        self._recent = recent
        self._stall = stall
        self._unheard = unheard
        self._counters = counters
        self._deliver = deliver
        self._send = send
        self._repeat_log = counters_.LimitedLog(LOG, logging.DEBUG)

    def admit(
        self, routing_id: bytes, message: envelope.Message
    ) -> envelope.NackReason | None:
        """Hand over a request, unless that was done before.

        :returns: None if it has been handed over, now or before
        """
        header = message.header
        record = self._recent.take(header, routing_id)
        if isinstance(record, recent_.Repeat):
            return self._repeat(routing_id, header, record)
        taken = False
        try:
            if self._stall.refuses(header):
                return envelope.NackReason.STALLED
            # A worker may answer before this returns.
            reason = self._deliver(record, message)
            taken = reason is None
        finally:
            if not taken:
                self._recent.refuse(record)
        if taken and not header.flags & _UNDER_WAY:
            self._recent.finish(record)
        return reason

    def _repeat(
        self,
        routing_id: bytes,
        header: envelope.Header,
        repeat: recent_.Repeat,
    ) -> envelope.NackReason | None:
        """Answer a request as it was answered before."""
        self._repeat_log(
            'message %s came again and is not run again',
            header.message_id.hex(),
        )
        if repeat.known:
            self._counters.add('messages_duplicate')
            self._unheard.asked(header.message_id)
        if repeat.refused:
            return envelope.NackReason.EXPIRED
        if repeat.forgotten:
            self._counters.add('messages_forgotten')
            return envelope.NackReason.FORGOTTEN
        if repeat.answer is not None:
            self._send(routing_id, *repeat.answer)
        return None


def is_acknowledged_now(header: envelope.Header) -> bool:
    """Return whether its ACK says that a request was taken, not handled."""
    handled = header.flags & envelope.NOTIFICATION
    is_probe = header.codec == envelope.CODEC_NONE
    return bool(header.flags & envelope.WANT_ACK) and (is_probe or not handled)
