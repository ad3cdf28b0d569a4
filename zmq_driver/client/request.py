# SPDX-License-Identifier: Apache-2.0
"""A message on its way, and what a listener's answer to it means."""

from typing import NamedTuple

from zmq_driver import address
from zmq_driver import envelope
from zmq_driver import errors

#: What a NACK means to the person who reads the error.
_REFUSALS = {
    envelope.NackReason.UNKNOWN_TARGET: 'has no such listener any more',
    envelope.NackReason.STOPPED: 'is being stopped',
    envelope.NackReason.BUSY: (
        'is busy, it has as many messages as rpc_zmq_topic_backlog or '
        'max_backlog_size allows'
    ),
    envelope.NackReason.EXPIRED: 'got it too late',
    envelope.NackReason.FAILED: 'failed to take it, see its log',
    envelope.NackReason.STALLED: 'did not run for a while',
    envelope.NackReason.FORGOTTEN: 'has no answer to it any more',
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
#: Reasons that do not say that an earlier copy did not run either.
_DOUBTFUL = (
    envelope.NackReason.UNKNOWN_TARGET,
    envelope.NackReason.FORGOTTEN,
    *_FINAL,
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


def resent(request: Request) -> Request:
    """Return *request* as it is sent again, to the same listener."""
    return request._replace(flags=request.flags | envelope.RESENT)


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


def check(
    answer: envelope.Message, route: address.Route, request: Request
) -> envelope.Message:
    """Return an answer unless it is a NACK.

    :raises errors.Busy: this listener has enough to do, another may not
    :raises errors.Refused: this listener did not take it, another may
    :raises errors.DeliveryRefused: no listener would take it
    :raises errors.PeerLost: it was taken, and the answer is not kept
    """
    if answer.header.kind is not envelope.Kind.NACK:
        return answer
    reason = envelope.NackReason(answer.header.reason)
    if reason is envelope.NackReason.FORGOTTEN:
        raise _doubt(reason, route, request)
    text = (
        f'message {request.message_id.hex()} to {request.where} was '
        f'refused: the process at {route.endpoint} {_REFUSALS[reason]}'
    )
    if reason in _FINAL:
        raise errors.DeliveryRefused(text)
    if reason is envelope.NackReason.BUSY:
        raise errors.Busy(text)
    raise errors.Refused(text)


def check_resent(
    answer: envelope.Message, route: address.Route, request: Request
) -> envelope.Message:
    """Return the answer to a request that was sent again, unless a NACK.

    :raises errors.PeerLost: what became of the first copy is not known
    :raises errors.RefusedAgain: it was not taken, another listener may
    """
    if answer.header.reason in _DOUBTFUL:
        raise _doubt(envelope.NackReason(answer.header.reason), route, request)
    try:
        return check(answer, route, request)
    except errors.Busy as error:
        raise errors.BusyAgain(str(error)) from None
    except errors.Refused as error:
        raise errors.RefusedAgain(str(error)) from None


def _doubt(
    reason: envelope.NackReason, route: address.Route, request: Request
) -> errors.PeerLost:
    return errors.PeerLost(
        f'the connection to {route.endpoint} was lost while it had message '
        f'{request.message_id.hex()}, and what became of that is not known: '
        f'the process {_REFUSALS[reason]}; it may have run'
    )
