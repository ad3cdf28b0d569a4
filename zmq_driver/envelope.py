# SPDX-License-Identifier: Apache-2.0
"""The envelope of a message: what is in its two frames, and nothing else.

Everything here is pure: bytes in, values out. ``doc/specs/wire-protocol.rst``
is the normative text, and its examples are the test vectors of this module.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import enum
import functools
import math
import struct
from typing import Final
from typing import NamedTuple

MAGIC: Final = b'ZO'
VERSION: Final = 1

#: Bytes of a message id and of an incarnation.
ID_SIZE: Final = 16
#: The bytes at the start of a header that no version will ever move.
FROZEN_SIZE: Final = 24
#: Bytes of a header in which all three names are empty.
MIN_HEADER_SIZE: Final = 54
#: Bytes that one name may have in UTF-8.
MAX_NAME_SIZE: Final = 0xFFFF
#: Seconds above which a duration is cut off: about 49.7 days.
MAX_SECONDS: Final = 0xFFFFFFFF / 1000

#: "Whichever listener has this address."
ANY_INCARNATION: Final = bytes(ID_SIZE)

# Flags are plain integers: an enum.IntFlag costs more to test than the whole
# header costs to decode.
#: The client waits for a REPLY: a call.
WANT_REPLY: Final = 0x01
#: The client waits for an ACK or a NACK.
WANT_ACK: Final = 0x02
#: This is one of the copies of a fanout.
FANOUT: Final = 0x04
#: The scope of the address is notifications, not RPC.
NOTIFICATION: Final = 0x08
#: The body of this REPLY is an exception.
FAILURE: Final = 0x10
#: The request went to this listener before, over a connection that is lost.
RESENT: Final = 0x20

#: Body codecs.
CODEC_NONE: Final = 0
CODEC_JSON: Final = 1


class Kind(enum.IntEnum):
    """What a message is.

    Thread: any (immutable).
    """

    REQUEST = 1
    REPLY = 2
    ACK = 3
    NACK = 4
    HEARTBEAT = 5


class NackReason(enum.IntEnum):
    """Why a receiver did not take a request. Only FORGOTTEN may have run.

    Thread: any (immutable).
    """

    #: No listener here has that address, or not in that incarnation.
    UNKNOWN_TARGET = 1
    #: The listener is being stopped.
    STOPPED = 2
    #: The listener's queue is full.
    BUSY = 3
    #: The receiver does not speak the version of the request.
    UNSUPPORTED_VERSION = 4
    #: The body is not what its codec says.
    UNDECODABLE = 5
    #: The time to live had passed before the request was taken.
    EXPIRED = 6
    #: The receiver has a defect, which its log tells about.
    FAILED = 7
    #: The receiver did not run for a while; who still waits sends again.
    STALLED = 8
    #: The receiver may have had the request, and has no answer any more.
    FORGOTTEN = 9


class EnvelopeError(ValueError):
    """A header cannot be encoded: the caller's values are wrong.

    Thread: any.
    """


class DecodeError(ValueError):
    """The frames are not a message. The text has sizes, never contents.

    Thread: any.
    """


class UnsupportedVersion(DecodeError):
    """The frames are a message of a version that is not spoken here.

    Only a REQUEST may be answered (with a NACK); an answer to an answer could
    go back and forth for ever.

    Thread: any.
    """

    def __init__(self, version: int, message_id: bytes, kind: int) -> None:
        """Say which version came, and for which message.

        :param version: the version that the header names
        :param message_id: the 16 bytes that a NACK has to repeat
        :param kind: the kind that the header names, perhaps unknown here
        """
        super().__init__(f'wire protocol {version}, this is {VERSION}')
        self.version = version
        self.message_id = message_id
        self.kind = kind


class Header(NamedTuple):
    """The first frame, as values.

    Thread: any (immutable).
    """

    kind: Kind
    #: 16 bytes that answers repeat.
    message_id: bytes
    exchange: str = ''
    topic: str = ''
    #: The server's name; for notifications the listener pool.
    server: str = ''
    #: The listener that the request is for, 16 bytes.
    incarnation: bytes = ANY_INCARNATION
    #: Seconds that the request is good for; 0.0 is without limit.
    ttl: float = 0.0
    #: Seconds without a HEARTBEAT after which a call fails; 0.0 is without.
    monitor_timeout: float = 0.0
    flags: int = 0
    codec: int = CODEC_NONE
    #: NACK only, otherwise 0.
    reason: int = 0


class Message(NamedTuple):
    """A header and the body that came with it, not decoded.

    Thread: any (immutable).
    """

    header: Header
    body: bytes


# What the first eight bytes of a header say: kind, flags, codec, reason.
_Shape = tuple[Kind, int, int, int]


def _shapes() -> Iterator[_Shape]:
    """Yield every combination that means something; all others are errors."""
    for flags in (0, WANT_REPLY, FANOUT, NOTIFICATION):
        for other in (0, WANT_ACK, RESENT, WANT_ACK | RESENT):
            if (flags | other) & (WANT_ACK | WANT_REPLY) or not other:
                yield Kind.REQUEST, flags | other, CODEC_JSON, 0
    for flags in (WANT_ACK, WANT_ACK | NOTIFICATION):
        yield Kind.REQUEST, flags, CODEC_NONE, 0
    for failure in (0, FAILURE):
        yield Kind.REPLY, failure, CODEC_JSON, 0
    yield Kind.ACK, 0, CODEC_NONE, 0
    for reason in NackReason:
        yield Kind.NACK, 0, CODEC_NONE, reason
    yield Kind.HEARTBEAT, 0, CODEC_NONE, 0


# So few are valid that one look-up checks everything before the message id.
_PREFIXES: Final[dict[tuple[int, ...], bytes]] = {
    (kind, flags, codec, reason): (
        MAGIC + bytes((VERSION, kind, codec, flags, reason, 0))
    )
    for kind, flags, codec, reason in _shapes()
}
_SHAPES: Final = {_PREFIXES[shape]: shape for shape in _shapes()}
_REQUEST: Final = struct.Struct('!8s16s16sIIHHH')
#: What follows the message id in everything that is not a REQUEST.
_ANSWER_TAIL: Final = bytes(MIN_HEADER_SIZE - FROZEN_SIZE)
_NO_ADDRESS: Final = ('', '', '', ANY_INCARNATION, 0.0, 0.0)
# Half the cost of a NamedTuple's own constructor.
_new: Final = tuple.__new__


def encode_header(header: Header) -> bytes:
    """Return the first frame of a message.

    :raises EnvelopeError: an id has not 16 bytes, a name is too long or has
        no UTF-8, a duration is negative, or the fields do not go together
    """
    shape = (header.kind, *header[8:])
    if header.kind == Kind.REQUEST and shape in _PREFIXES:
        return encode_request(*header[1:10])
    if header[2:8] != _NO_ADDRESS:
        raise EnvelopeError(f'a {header.kind!r} carries only a message id')
    return _encode_answer(header.message_id, *shape)


def encode_request(
    message_id: bytes,
    exchange: str,
    topic: str,
    server: str = '',
    incarnation: bytes = ANY_INCARNATION,
    ttl: float = 0.0,
    monitor_timeout: float = 0.0,
    flags: int = 0,
    codec: int = CODEC_JSON,
) -> bytes:
    """Return the header of a REQUEST; a probe has CODEC_NONE.

    Durations are rounded up to milliseconds and cut off at MAX_SECONDS.

    :raises EnvelopeError: as :func:`encode_header`
    """
    prefix = _PREFIXES.get((Kind.REQUEST, flags, codec, 0))
    if prefix is None:
        raise EnvelopeError(f'a request with flags {flags!r}, codec {codec}')
    if len(message_id) != ID_SIZE or len(incarnation) != ID_SIZE:
        raise EnvelopeError(
            f'a message id of {len(message_id)} bytes and an incarnation of '
            f'{len(incarnation)}'
        )
    if monitor_timeout and not flags & WANT_REPLY:
        raise EnvelopeError('a monitor timeout is for calls only')
    ttl_ms, monitor_ms = _to_ms(ttl), _to_ms(monitor_timeout)
    sizes, names = _encode_names(exchange, topic, server)
    fixed = _REQUEST.pack(
        prefix, message_id, incarnation, ttl_ms, monitor_ms, *sizes
    )
    return fixed + names


def encode_reply(message_id: bytes, failure: bool = False) -> bytes:
    """Return the header of a REPLY with a JSON body.

    :raises EnvelopeError: the message id has not 16 bytes
    """
    flags = FAILURE if failure else 0
    return _encode_answer(message_id, Kind.REPLY, flags, CODEC_JSON, 0)


def encode_ack(message_id: bytes) -> bytes:
    """Return the header of an ACK, whose body frame is empty.

    :raises EnvelopeError: the message id has not 16 bytes
    """
    return _encode_answer(message_id, Kind.ACK, 0, CODEC_NONE, 0)


def encode_nack(message_id: bytes, reason: NackReason) -> bytes:
    """Return the header of a NACK, whose body frame is empty.

    :raises EnvelopeError: the message id has not 16 bytes, or there is no
        such reason
    """
    return _encode_answer(message_id, Kind.NACK, 0, CODEC_NONE, reason)


def encode_heartbeat(message_id: bytes) -> bytes:
    """Return the header of a HEARTBEAT, whose body frame is empty.

    :raises EnvelopeError: the message id has not 16 bytes
    """
    return _encode_answer(message_id, Kind.HEARTBEAT, 0, CODEC_NONE, 0)


def decode(frames: Sequence[bytes]) -> Message:
    """Return the message in these frames, which are without the routing id.

    The body is handed over as it came.

    :raises UnsupportedVersion: it is a message, but of another version
    :raises DecodeError: it is not a message
    """
    if not frames:
        raise DecodeError('no frames')
    head = frames[0]
    shape = _SHAPES.get(head[:8])
    if shape is None:
        return _decode_foreign(head)
    if len(frames) != 2:
        raise DecodeError(f'{len(frames)} frames instead of 2')
    if len(head) < MIN_HEADER_SIZE:
        raise DecodeError(f'header of only {len(head)} bytes')
    body = frames[1]
    if body and shape[2] == CODEC_NONE:
        raise DecodeError(f'a {shape[0].name} with a body: {len(body)} bytes')
    if shape[0] is Kind.REQUEST:
        return _new(Message, (_decode_request(shape, head), body))
    return _new(Message, (_decode_answer(shape, head), body))


def _encode_answer(message_id: bytes, *shape: int) -> bytes:
    prefix = _PREFIXES.get(shape)
    if prefix is None:
        raise EnvelopeError(f'kind, flags, codec and reason: {shape}')
    if len(message_id) != ID_SIZE:
        raise EnvelopeError(f'a message id of {len(message_id)} bytes')
    return prefix + message_id + _ANSWER_TAIL


# A process talks to few addresses, again and again. Only the names of our own
# callers get in here, never those that a peer sends.
@functools.lru_cache(maxsize=1024)
def _encode_names(*names: str) -> tuple[tuple[int, ...], bytes]:
    """Return the sizes of the names in UTF-8, and their bytes in a row."""
    try:
        encoded = [name.encode() for name in names]
    except UnicodeEncodeError as exc:
        raise EnvelopeError('a name holds a lone surrogate') from exc
    sizes = tuple(map(len, encoded))
    if max(sizes) > MAX_NAME_SIZE:
        raise EnvelopeError(f'a name of more than {MAX_NAME_SIZE} bytes')
    return sizes, b''.join(encoded)


def _to_ms(seconds: float) -> int:
    """Return whole milliseconds, rounded up: 0 only for exactly 0.0."""
    if not seconds:
        return 0
    if seconds >= MAX_SECONDS:
        return 0xFFFFFFFF
    if not seconds > 0:
        raise EnvelopeError(f'a duration of {seconds!r} seconds')
    # Ten nanoseconds of grace, or the float 0.07 would become 71 ms, and a
    # decoded duration would grow each time it is encoded again.
    return max(1, math.ceil(seconds * 1000 - 1e-5))


def _decode_request(shape: _Shape, head: bytes) -> Header:
    fields = _REQUEST.unpack_from(head)
    _, message_id, incarnation, ttl, monitor, size1, size2, size3 = fields
    if monitor and not shape[1] & WANT_REPLY:
        raise DecodeError('a monitor timeout, but not in a call')
    names = _decode_names(head, size1, size2, size3)
    start = (shape[0], message_id, *names, incarnation)
    return _new(Header, (*start, ttl / 1000, monitor / 1000, *shape[1:]))


def _decode_names(
    head: bytes, exchange_size: int, topic_size: int, server_size: int
) -> tuple[str, str, str]:
    topic_at = MIN_HEADER_SIZE + exchange_size
    server_at = topic_at + topic_size
    end = server_at + server_size
    if end != len(head):
        raise DecodeError(f'header of {len(head)} bytes declares {end}')
    try:
        return (
            str(head[MIN_HEADER_SIZE:topic_at], 'utf-8'),
            str(head[topic_at:server_at], 'utf-8'),
            str(head[server_at:], 'utf-8'),
        )
    except UnicodeDecodeError:
        raise DecodeError('a name is not UTF-8') from None


def _decode_answer(shape: _Shape, head: bytes) -> Header:
    kind, flags, codec, reason = shape
    if len(head) != MIN_HEADER_SIZE or not head.endswith(_ANSWER_TAIL):
        raise DecodeError(f'a {kind.name} carries only a message id')
    start = (kind, head[8:FROZEN_SIZE], *_NO_ADDRESS)
    return _new(Header, (*start, flags, codec, reason))


def _decode_foreign(head: bytes) -> Message:
    """Read what every version has in common, or say what is wrong with it."""
    if len(head) < FROZEN_SIZE:
        raise DecodeError(f'header of only {len(head)} bytes')
    if head[:2] != MAGIC:
        raise DecodeError('no magic number')
    version, kind, codec, flags, reason, reserved = head[2:8]
    message_id = head[8:FROZEN_SIZE]
    if version != VERSION:
        refused = NackReason.UNSUPPORTED_VERSION
        if kind == Kind.NACK and reason == refused:
            return Message(Header(Kind.NACK, message_id, reason=refused), b'')
        raise UnsupportedVersion(version, message_id, kind)
    if reserved:
        raise DecodeError(f'{reserved} in the reserved byte')
    raise DecodeError(
        f'a message of kind {kind} with codec {codec}, flags {flags:#04x} '
        f'and reason {reason}'
    )
