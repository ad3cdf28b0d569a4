# SPDX-License-Identifier: Apache-2.0
"""What is said to the senders of messages after those were taken."""

from collections.abc import Callable
import logging
import os

from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver.server import recent as recent_

LOG = logging.getLogger(__name__)


class Settlement:
    """Ends what a message that was taken has under way.

    Thread: any.
    """

    def __init__(
        self,
        recent: recent_.Recent,
        counters: counters_.Counters,
        send: Callable[[bytes, bytes], None],
    ) -> None:
        """Note outcomes in *recent*, and tell them by *send*."""
        self._recent = recent
        self._counters = counters
        self._send = send
        self._pid = os.getpid()
        self._expired_log = counters_.LimitedLog(LOG, logging.WARNING)

    def acknowledge(
        self, record: recent_.Record, header: envelope.Header
    ) -> None:
        """Tell whoever waits for it that a notification was handled."""
        if os.getpid() != self._pid:
            # A method forked: all this is the parent's.
            return
        routing_id = self._recent.finish(record)
        if header.flags & envelope.WANT_ACK:
            self._send(routing_id, envelope.encode_ack(header.message_id))

    def turn_away(
        self,
        record: recent_.Record,
        header: envelope.Header,
        reason: envelope.NackReason,
    ) -> None:
        """Refuse a notification after it was taken: it is not handled."""
        if os.getpid() != self._pid:
            return
        self._counters.add('messages_refused')
        self._send(
            self._recent.refuse(record),
            envelope.encode_nack(header.message_id, reason),
        )

    def expire(self, record: recent_.Record, message_id: bytes) -> None:
        """Refuse a call that waited too long to be started."""
        if os.getpid() != self._pid:
            return
        self._counters.add('messages_expired')
        self._counters.add('messages_refused')
        self._expired_log(
            'A call was not started: it had waited in the executor for longer '
            'than its caller waits. The methods take too long, or '
            'executor_thread_pool_size is too small for so many calls; a '
            'smaller rpc_zmq_topic_backlog sends callers elsewhere sooner.'
        )
        expired = envelope.encode_nack(message_id, envelope.NackReason.EXPIRED)
        # Nothing ran, so it may come again: that is no answer to keep.
        self._send(self._recent.refuse(record), expired)
