# SPDX-License-Identifier: Apache-2.0
"""Incoming messages, as oslo.messaging's servers handle them."""

from collections.abc import Callable
import functools
import json
import logging
import os
import sys
from typing import Any

import oslo_messaging

from zmq_driver import _oslo
from zmq_driver import body
from zmq_driver import clock as clock_
from zmq_driver import envelope
from zmq_driver.server import recent
from zmq_driver.server import router as router_
from zmq_driver.server import sink as sink_

LOG = logging.getLogger(__name__)

#: Characters that are sent of the names of a class and its module.
NAME_LIMIT = 200


class RpcIncoming(_oslo.RpcIncomingMessage):  # type: ignore[misc]
    """A call or cast on its way through the server.

    It was acknowledged when it was received. A call gets exactly one answer.

    Thread: any; oslo.messaging replies from executor workers and sends
    heartbeats from threads of its own.
    """

    message: dict[str, Any]

    def __init__(
        self,
        router: router_.Router,
        delivery: sink_.Delivery,
        max_size: int,
        finished: Callable[[], None],
        clock: clock_.Clock = clock_.monotonic,
    ) -> None:
        """Wrap a delivery, at the time when it is received.

        :param max_size: bytes that a reply may have
        :param finished: called once, when the message is dealt with
        """
        header = delivery.header
        super().__init__(delivery.ctxt, delivery.message, *_oslo.NO_MSG_ID)
        self.msg_id = header.message_id.hex()
        if header.monitor_timeout:
            # oslo.messaging beats at half of it, in whole seconds.
            self.client_timeout = header.monitor_timeout
        self._router = router
        self._record = delivery.record
        self._message_id = header.message_id
        self._wants_reply = bool(header.flags & envelope.WANT_REPLY)
        self._max_size = max_size
        self._clock = clock
        self._expires_at = _expires_at(header, clock)
        self._expired = False
        self._finished: Callable[[], None] | None = finished
        self._pid = os.getpid()

    def __del__(self) -> None:
        """Answer a call whose method ended by what nobody catches."""
        # This may run on any thread, also while it holds a lock.
        finished = getattr(self, '_finished', None)
        if finished is not None:
            self._router.abandoned.add(
                functools.partial(
                    _give_up,
                    self._router,
                    self._record,
                    self._message_id if self._wants_reply else None,
                    self._max_size,
                    finished,
                )
            )

    def refuse(self) -> None:
        """Be done with a message that the server did not take."""
        finished, self._finished = self._finished, None
        if finished is not None:
            finished()

    def acknowledge(self) -> None:
        """Keep a call from being started for a caller that gave up.

        Nothing is to be acknowledged, but oslo.messaging says by it that it
        starts the method now.
        """
        if self._expires_at is not None and self._clock() >= self._expires_at:
            self._expired = True
            self.message = _Expired(self.message)

    def requeue(self) -> None:
        """Do nothing: calls and casts are delivered at most once."""

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        """Queue the answer of a call; a cast gets none.

        :param reply: the result
        :param failure: ``sys.exc_info()`` of what the method raised
        """
        if os.getpid() != self._pid:
            # A method forked, and the child came back from it. The parent
            # replies; its locks may be held here for ever.
            return
        finished, self._finished = self._finished, None
        if finished is None:
            LOG.warning(
                'message %s was replied to twice; the second reply is dropped',
                self.msg_id,
            )
            return
        try:
            if self._expired:
                self._router.settlement.expire(self._record, self._message_id)
            elif self._wants_reply:
                self._reply(reply, failure)
        except Exception:
            LOG.exception('cannot reply to message %s', self.msg_id)
        finally:
            finished()

    def heartbeat(self) -> None:
        """Tell the waiting caller that its call is still being executed."""
        if self._wants_reply:
            self._router.send(
                self._record.routing_id,
                envelope.encode_heartbeat(self._message_id),
            )

    def _reply(self, reply: Any, failure: Any) -> None:
        content = None
        if failure is None:
            try:
                content = body.encode_reply(reply, self._max_size)
            except Exception:
                # Too large, no JSON, no memory, or a bug of its class. The
                # caller learns why; without an answer it would wait.
                LOG.exception(
                    'the result of message %s cannot be sent', self.msg_id
                )
                failure = sys.exc_info()
        if content is None:
            content = _encode_failure(failure, self._max_size)
        self._router.reply(
            self._record,
            envelope.encode_reply(self._message_id, failure is not None),
            content,
        )


def _give_up(
    router: router_.Router,
    record: recent.Record,
    message_id: bytes | None,
    max_size: int,
    finished: Callable[[], None],
) -> None:
    """Deal with a message that was dropped; None: no answer is wanted."""
    try:
        if message_id is not None:
            error = RuntimeError(
                'the server dropped the call without a reply: its method '
                'ended by SystemExit, for example'
            )
            router.reply(
                record,
                envelope.encode_reply(message_id, failure=True),
                _encode_failure((type(error), error, None), max_size),
            )
    finally:
        finished()


class _Expired(dict[str, Any]):
    """The message of a call that must not be started.

    An error of acknowledge() would be logged with its stack, and the call
    never answered. oslo.messaging's dispatcher reads the method, then the
    arguments; what it catches there goes to reply().

    Thread: any.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, but not the arguments."""
        if key == 'args':
            raise oslo_messaging.ExpectedException
        return super().get(key, default)


def _expires_at(header: envelope.Header, clock: clock_.Clock) -> float | None:
    """Return when the caller gives up at the latest; None: never."""
    if not header.flags & envelope.WANT_REPLY:
        return None
    # Until the method runs there are no heartbeats.
    limits = [limit for limit in (header.ttl, header.monitor_timeout) if limit]
    return clock() + min(limits) if limits else None


def _encode_failure(failure: Any, max_size: int) -> bytes:
    """Return what rebuilds an exception at the caller.

    An exception that cannot be serialized, or is too large, travels as its
    class and text.
    """
    try:
        content = body.encode_failure(
            str(_oslo.serialize_remote_exception(failure)), max_size
        )
    except Exception as error:
        LOG.warning(
            'of a remote %s only the text is sent: %s',
            failure[0].__name__,
            error,
        )
    else:
        return content
    # One character takes up to twelve bytes as JSON, and stands twice.
    text = _text_of(failure[1])[: max_size // 32]
    return json.dumps(
        {
            'class': failure[0].__name__[:NAME_LIMIT],
            'module': failure[0].__module__[:NAME_LIMIT],
            'message': text,
            'tb': [],
            'args': [text],
            'kwargs': {},
        }
    ).encode()


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f'<{type(error).__name__} whose text cannot be shown>'


class NotificationIncoming(_oslo.IncomingMessage):  # type: ignore[misc]
    """A notification on its way through a listener.

    Its sender waits, or keeps it, until it is acknowledged.

    Thread: any; oslo.messaging answers from executor workers.
    """

    def __init__(
        self,
        router: router_.Router,
        delivery: sink_.Delivery,
        finished: Callable[[], None],
        requeue: Callable[['NotificationIncoming'], None],
    ) -> None:
        """Wrap a delivery.

        :param finished: called once, when the listener is done with it
        :param requeue: called when the listener wants to see it again
        """
        super().__init__(delivery.ctxt, delivery.message, *_oslo.NO_MSG_ID)
        self.msg_id = delivery.header.message_id.hex()
        self._router = router
        self._delivery = delivery
        #: How often the listener asked to see it again.
        self.requeued = 0
        self._finished: Callable[[], None] | None = finished
        self._requeue = requeue
        self._pid = os.getpid()

    def __del__(self) -> None:
        """Free the place of one whose endpoint was ended from outside."""
        finished = getattr(self, '_finished', None)
        if finished is not None:
            self._router.abandoned.add(
                functools.partial(
                    _give_back,
                    self._router,
                    self._delivery,
                    envelope.NackReason.FAILED,
                    finished,
                )
            )

    def acknowledge(self) -> None:
        """Be done with the notification: its sender may forget it."""
        finished = self._take_finished()
        if finished is not None:
            try:
                self._router.settlement.acknowledge(
                    self._delivery.record, self._delivery.header
                )
            finally:
                finished()

    def turn_away(self) -> None:
        """Give the notification back: its sender finds another listener."""
        finished = self._take_finished()
        if finished is not None:
            stopped = envelope.NackReason.STOPPED
            _give_back(self._router, self._delivery, stopped, finished)

    def _take_finished(self) -> Callable[[], None] | None:
        if os.getpid() != self._pid:
            return None
        finished, self._finished = self._finished, None
        return finished

    def requeue(self) -> None:
        """Let the listener see the notification again, a little later."""
        if os.getpid() != self._pid:
            return
        self.requeued += 1
        self._requeue(self)


def _give_back(
    router: router_.Router,
    delivery: sink_.Delivery,
    reason: envelope.NackReason,
    finished: Callable[[], None],
) -> None:
    """Refuse a notification after it was taken."""
    try:
        router.settlement.turn_away(delivery.record, delivery.header, reason)
    finally:
        finished()
