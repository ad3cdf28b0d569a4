# SPDX-License-Identifier: Apache-2.0
"""The envelope does what doc/specs/wire-protocol.rst says."""

import itertools
import json
import math
import pathlib
import re
from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest

from zmq_driver import body
from zmq_driver import envelope

SPEC = pathlib.Path(__file__).parents[2] / 'doc/specs/wire-protocol.rst'

MESSAGE_ID = bytes(range(1, 17))
INCARNATION = bytes(range(101, 117))
MAX_SIZE = 1 << 20


# What the spec says, read from its text.


def blocks(name: str) -> list[str]:
    """Return the code blocks of a class in the spec."""
    found = re.findall(
        rf'^\.\. code-block:: text\n   :class: {name}\n\n((?:   .*\n|\n)+)',
        SPEC.read_text(),
        re.MULTILINE,
    )
    return [re.sub(r'^   ', '', block, flags=re.MULTILINE) for block in found]


def numbers_of(*columns: str) -> dict[str, int]:
    """Return names and numbers of the table with these first columns."""
    head = r'\s+'.join(columns)
    match = re.search(
        rf'^{head}.*\n=[= ]+\n((?:.+\n)+?)=[= ]+\n',
        SPEC.read_text(),
        re.MULTILINE,
    )
    assert match
    lines = match[1].splitlines()
    rows = [line.split() for line in lines if not line.startswith(' ')]
    return {row[1]: int(row[0], 0) for row in rows}


KINDS = numbers_of('Kind', 'Name')
CODECS = numbers_of('Codec', 'Name')
FLAGS = numbers_of('Flag', 'Name')
REASONS = numbers_of('Reason', 'Name')


def combinations() -> set[tuple[int, int, int, int]]:
    """Return what the spec's table allows: kind, codec, flags, reason."""
    rows = re.findall(
        r'^([A-Z]+) +(JSON|NONE) +(.+?)  +(0|one of the reasons)$',
        SPEC.read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 20
    return {
        (KINDS[kind], CODECS[codec], flags_of(flags), number)
        for kind, codec, flags, reason in rows
        for number in ((0,) if reason == '0' else REASONS.values())
    }


def flags_of(text: str) -> int:
    if text == 'none':
        return 0
    return sum(FLAGS[name] for name in text.split(' | '))


class Example:
    """One example of the spec: its values, and its two frames."""

    def __init__(self, text: str) -> None:
        values, header, content = re.split(r'\n(?:header|body):\n', text)
        self.values = dict(
            re.findall(r'^(\w+) =[ ]?(.*(?:\n  .*)*)', values, re.MULTILINE)
        )
        self.frames = [self._bytes(header), self._bytes(content)]

    @staticmethod
    def _bytes(text: str) -> bytes:
        return bytes.fromhex(re.sub(';.*', '', text))

    def header(self) -> envelope.Header:
        """Return the header that the values describe."""
        values = self.values
        kind = envelope.Kind[values['kind']]
        carries = kind in (envelope.Kind.REQUEST, envelope.Kind.REPLY)
        return envelope.Header(
            kind,
            bytes.fromhex(values['message_id']),
            values.get('exchange', ''),
            values.get('topic', ''),
            values.get('server', ''),
            bytes.fromhex(values.get('incarnation', '00' * 16)),
            float(values.get('ttl', 0)),
            float(values.get('monitor_timeout', 0)),
            flags_of(values.get('flags', 'none')),
            CODECS[values.get('codec', 'JSON' if carries else 'NONE')],
            REASONS.get(values.get('reason', ''), 0),
        )

    def body(self) -> bytes:
        """Return the body that the values describe."""
        text = ' '.join(self.values.get('body', '').split())
        if not text:
            return b''
        if self.values['kind'] == 'REQUEST':
            ctxt, message = json.loads(text)
            return body.encode_request(ctxt, message, MAX_SIZE)
        if self.values.get('flags') == 'FAILURE':
            return body.encode_failure(text, MAX_SIZE)
        if self.values['kind'] == 'REPLY':
            return body.encode_reply(json.loads(text), MAX_SIZE)
        return b''


EXAMPLES = [Example(text) for text in blocks('wp-example')]


def test_spec_has_examples_of_every_kind() -> None:
    assert len(EXAMPLES) >= 8
    assert {example.values['kind'] for example in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize('example', EXAMPLES)
@pytest.mark.spec('WP-02')
def test_example_is_encoded_to_its_bytes(example: Example) -> None:
    assert envelope.encode_header(example.header()) == example.frames[0]
    assert example.body() == example.frames[1]


@pytest.mark.parametrize('example', EXAMPLES)
@pytest.mark.spec('WP-02')
def test_example_is_decoded_to_its_values(example: Example) -> None:
    message = envelope.decode(example.frames)
    assert message.header == example.header()
    assert message.body == example.frames[1]


def test_numbers_are_those_of_the_spec() -> None:
    assert {kind.name: kind.value for kind in envelope.Kind} == KINDS
    assert {
        reason.name: reason.value for reason in envelope.NackReason
    } == REASONS
    for name, number in FLAGS.items():
        assert getattr(envelope, name) == number
    for name, number in CODECS.items():
        assert getattr(envelope, f'CODEC_{name}') == number


# Helpers that build frames without the encoder.


def raw(
    kind: int = 1,
    codec: int = 1,
    flags: int = 0,
    reason: int = 0,
    *,
    magic: bytes = b'ZO',
    version: int = 1,
    reserved: int = 0,
    ttl_ms: int = 0,
    monitor_ms: int = 0,
    names: tuple[bytes, bytes, bytes] = (b'', b'', b''),
) -> bytes:
    """Return a header, right or wrong."""
    return b''.join(
        [
            magic,
            bytes((version, kind, codec, flags, reason, reserved)),
            MESSAGE_ID,
            bytes(16),
            ttl_ms.to_bytes(4, 'big'),
            monitor_ms.to_bytes(4, 'big'),
            *(len(name).to_bytes(2, 'big') for name in names),
            *names,
        ]
    )


def refused(head: bytes, content: bytes = b'') -> bool:
    """Return whether the decoder refuses these frames of version 1."""
    try:
        envelope.decode([head, content])
    except envelope.UnsupportedVersion:
        raise
    except envelope.DecodeError:
        return True
    return False


REQUEST = envelope.encode_request(
    MESSAGE_ID,
    'nova',
    'compute',
    'node-1',
    INCARNATION,
    ttl=60.0,
    monitor_timeout=5.0,
    flags=envelope.WANT_REPLY,
)


# Frames.


@pytest.mark.spec('WP-01')
@pytest.mark.parametrize('count', [0, 1, 3, 4, 100])
def test_other_than_two_frames_are_refused(count: int) -> None:
    for head in (REQUEST, envelope.encode_ack(MESSAGE_ID)):
        with pytest.raises(envelope.DecodeError, match='frames'):
            envelope.decode([head, *([b''] * 99)][:count])


@pytest.mark.spec('WP-01')
def test_frames_may_be_any_sequence() -> None:
    assert envelope.decode((REQUEST, b'[]')) == envelope.decode(
        [REQUEST, b'[]']
    )


@pytest.mark.spec('WP-02')
def test_header_that_is_cut_anywhere_is_refused() -> None:
    for size in range(len(REQUEST)):
        assert refused(REQUEST[:size])


@pytest.mark.spec('WP-02')
def test_header_that_goes_on_is_refused() -> None:
    assert refused(REQUEST + b'\0')
    assert refused(REQUEST + REQUEST)


@pytest.mark.spec('WP-02')
@pytest.mark.spec('WP-14')
@pytest.mark.parametrize('offset', [48, 50, 52])
@pytest.mark.parametrize('size', [0, 0xFF, 0xFFFF])
def test_size_that_is_wrong_is_refused(offset: int, size: int) -> None:
    head = bytearray(REQUEST)
    head[offset : offset + 2] = size.to_bytes(2, 'big')
    assert refused(bytes(head))


@pytest.mark.spec('WP-03')
@pytest.mark.parametrize('magic', [b'ZZ', b'zo', b'\0\0', b'OZ'])
def test_magic_number_is_checked(magic: bytes) -> None:
    with pytest.raises(envelope.DecodeError, match='magic'):
        envelope.decode([raw(magic=magic), b''])


# Versions.


@pytest.mark.spec('WP-04')
@pytest.mark.parametrize('version', [0, 2, 255])
@pytest.mark.parametrize('kind', [1, 2, 99])
def test_unknown_version_is_reported_with_its_message_id(
    version: int, kind: int
) -> None:
    head = raw(kind, 77, 0xFF, 99, version=version, reserved=1)
    for frames in (
        [head],
        [head, b'', b'', b''],
        [head[: envelope.FROZEN_SIZE], b''],
        [head + b'more', b''],
    ):
        with pytest.raises(envelope.UnsupportedVersion) as caught:
            envelope.decode(frames)
        assert caught.value.version == version
        assert caught.value.message_id == MESSAGE_ID
        assert caught.value.kind == kind


@pytest.mark.spec('WP-04')
def test_unknown_version_without_message_id_is_just_wrong() -> None:
    assert refused(raw(version=2)[: envelope.FROZEN_SIZE - 1])


@pytest.mark.spec('WP-05')
@pytest.mark.parametrize('version', [0, 1, 2, 255])
def test_refusal_of_the_version_is_understood_in_all(version: int) -> None:
    reason = envelope.NackReason.UNSUPPORTED_VERSION
    head = raw(4, 0, reason=reason, version=version)
    message = envelope.decode([head, b''])
    assert message == (
        envelope.Header(envelope.Kind.NACK, MESSAGE_ID, reason=reason),
        b'',
    )


@pytest.mark.spec('WP-05')
def test_other_refusals_of_other_versions_are_not() -> None:
    head = raw(4, 0, reason=envelope.NackReason.BUSY, version=2)
    with pytest.raises(envelope.UnsupportedVersion):
        envelope.decode([head, b''])


# Values.


@pytest.mark.spec('WP-06')
@pytest.mark.parametrize(
    ('head', 'problem'),
    [
        (raw(kind=0), 'kind 0'),
        (raw(kind=6), 'kind 6'),
        (raw(codec=2), 'codec 2'),
        (raw(flags=0x20), 'flags 0x20'),
        (raw(flags=0x81), 'flags 0x81'),
        (raw(4, 0, reason=0), 'kind 4 .* reason 0'),
        (raw(4, 0, reason=10), 'kind 4 .* reason 10'),
        (raw(reserved=1), 'reserved'),
    ],
)
def test_unknown_value_is_refused(head: bytes, problem: str) -> None:
    with pytest.raises(envelope.DecodeError, match=problem):
        envelope.decode([head, b''])


@pytest.mark.spec('WP-07')
def test_combinations_are_those_of_the_table() -> None:
    allowed = combinations()
    assert len(allowed) == 19 + len(envelope.NackReason)
    for shape in itertools.product(
        range(8), range(4), range(64), range(len(REASONS) + 2)
    ):
        kind, codec, flags, reason = shape
        assert refused(raw(*shape)) is (shape not in allowed), shape
        header = envelope.Header(
            kind,  # type: ignore[arg-type]
            MESSAGE_ID,
            flags=flags,
            codec=codec,
            reason=reason,
        )
        if shape in allowed:
            assert envelope.encode_header(header) == raw(*shape)
        else:
            with pytest.raises(envelope.EnvelopeError):
                envelope.encode_header(header)


@pytest.mark.spec('WP-02')
def test_what_is_not_given_is_0() -> None:
    head = envelope.encode_request(MESSAGE_ID, 'x', 't')
    assert head == raw(names=(b'x', b't', b''))
    kind, codec = envelope.Kind.REQUEST, envelope.CODEC_JSON
    header = envelope.Header(kind, MESSAGE_ID, 'x', 't', codec=codec)
    assert envelope.encode_header(header) == head
    header = envelope.Header(envelope.Kind.ACK, MESSAGE_ID)
    assert envelope.encode_header(header) == raw(3, 0)


@pytest.mark.spec('WP-07')
def test_flags_that_exclude_each_other_are_not_sent() -> None:
    for flags in (
        envelope.WANT_REPLY | envelope.FANOUT,
        envelope.NOTIFICATION | envelope.WANT_REPLY,
        envelope.NOTIFICATION | envelope.FANOUT,
        envelope.FAILURE,
    ):
        with pytest.raises(envelope.EnvelopeError, match='flags'):
            envelope.encode_request(MESSAGE_ID, 'x', 't', flags=flags)


@pytest.mark.spec('WP-07')
def test_reason_that_is_none_is_not_sent() -> None:
    with pytest.raises(envelope.EnvelopeError):
        envelope.encode_nack(MESSAGE_ID, 0)  # type: ignore[arg-type]


ANSWERS = [
    envelope.encode_reply(MESSAGE_ID),
    envelope.encode_reply(MESSAGE_ID, failure=True),
    envelope.encode_ack(MESSAGE_ID),
    envelope.encode_nack(MESSAGE_ID, envelope.NackReason.STOPPED),
    envelope.encode_heartbeat(MESSAGE_ID),
]


@pytest.mark.spec('WP-08')
@pytest.mark.parametrize('head', ANSWERS)
def test_answer_carries_only_a_message_id(head: bytes) -> None:
    assert len(head) == envelope.MIN_HEADER_SIZE
    header = envelope.decode([head, b'']).header
    assert header.message_id == MESSAGE_ID
    for offset in range(envelope.FROZEN_SIZE, len(head)):
        assert refused(head[:offset] + b'\1' + head[offset + 1 :])
    assert refused(head[:-1])
    assert refused(head + b'\0')
    assert refused(head + bytes(30))
    for wrong in (
        {'exchange': 'e'},
        {'topic': 't'},
        {'server': 's'},
        {'incarnation': INCARNATION},
        {'ttl': 1.0},
        {'monitor_timeout': 1.0},
    ):
        with pytest.raises(envelope.EnvelopeError, match='only a message id'):
            envelope.encode_header(header._replace(**wrong))


@pytest.mark.spec('WP-08')
def test_answers_are_what_they_say() -> None:
    kinds = [envelope.decode([head, b'']).header[::8] for head in ANSWERS]
    assert kinds == [
        (envelope.Kind.REPLY, 0),
        (envelope.Kind.REPLY, envelope.FAILURE),
        (envelope.Kind.ACK, 0),
        (envelope.Kind.NACK, 0),
        (envelope.Kind.HEARTBEAT, 0),
    ]


@pytest.mark.spec('WP-08')
@pytest.mark.parametrize('reason', envelope.NackReason)
def test_nack_carries_its_reason(reason: envelope.NackReason) -> None:
    head = envelope.encode_nack(MESSAGE_ID, reason)
    assert envelope.decode([head, b'']).header.reason is reason


@pytest.mark.spec('WP-09')
@pytest.mark.parametrize('head', ANSWERS[2:])
def test_body_that_must_be_empty_is_refused(head: bytes) -> None:
    assert not refused(head)
    assert refused(head, b'1')


@pytest.mark.spec('WP-10')
def test_only_calls_are_monitored() -> None:
    call = envelope.WANT_REPLY
    assert not refused(raw(flags=call, monitor_ms=1))
    for flags in (0, envelope.WANT_ACK, envelope.FANOUT):
        assert refused(raw(flags=flags, monitor_ms=1))
        with pytest.raises(envelope.EnvelopeError, match='calls only'):
            envelope.encode_request(
                MESSAGE_ID, 'x', 't', monitor_timeout=1.0, flags=flags
            )


@pytest.mark.spec('WP-11')
@pytest.mark.parametrize(
    'names',
    [
        (b'\xff', b'', b''),
        (b'', b'\xed\xa0\x80', b''),  # a surrogate
        (b'', b'', b'\xc0\xaf'),  # longer than need be
        ('ä'.encode()[:1], 'ä'.encode()[1:], b''),  # divided
    ],
)
def test_name_that_is_not_utf8_is_refused(
    names: tuple[bytes, bytes, bytes],
) -> None:
    with pytest.raises(envelope.DecodeError, match='UTF-8'):
        envelope.decode([raw(names=names), b''])


@pytest.mark.spec('WP-11')
def test_name_that_is_not_unicode_is_not_sent() -> None:
    with pytest.raises(envelope.EnvelopeError, match='surrogate'):
        envelope.encode_request(MESSAGE_ID, 'x', '\ud800')


@pytest.mark.spec('WP-11')
def test_names_have_a_limit() -> None:
    longest = 'ä' * 32767 + 'x'
    head = envelope.encode_request(MESSAGE_ID, longest, longest, longest)
    assert envelope.decode([head, b'']).header[2:5] == (longest,) * 3
    for wrong in ('exchange', 'topic', 'server'):
        names = dict.fromkeys(('exchange', 'topic', 'server'), '')
        names[wrong] = longest + 'x'
        with pytest.raises(envelope.EnvelopeError, match='65535'):
            envelope.encode_request(MESSAGE_ID, **names)  # type: ignore


@pytest.mark.spec('WP-12')
@pytest.mark.parametrize('wrong', [b'', bytes(15), bytes(17)])
def test_id_of_another_size_is_not_sent(wrong: bytes) -> None:
    for encode in (
        envelope.encode_ack,
        envelope.encode_heartbeat,
        envelope.encode_reply,
        lambda i: envelope.encode_nack(i, envelope.NackReason.BUSY),
        lambda i: envelope.encode_request(i, 'x', 't'),
        lambda i: envelope.encode_request(MESSAGE_ID, 'x', 't', '', i),
    ):
        with pytest.raises(envelope.EnvelopeError, match='message id'):
            encode(wrong)


@pytest.mark.spec('WP-13')
@pytest.mark.parametrize(
    ('seconds', 'ms'),
    [
        (0.0, 0),
        (0, 0),
        (1e-300, 1),
        (0.000001, 1),
        (0.001, 1),
        (0.0011, 2),
        (0.07, 70),
        (1.001, 1001),
        (30, 30000),
        (4294967.294, 0xFFFFFFFE),
        (4294967.295, 0xFFFFFFFF),
        (4294967.2951, 0xFFFFFFFF),
        (4294967.296, 0xFFFFFFFF),
        (1e300, 0xFFFFFFFF),
        (math.inf, 0xFFFFFFFF),
    ],
)
def test_duration_is_rounded_up(seconds: float, ms: int) -> None:
    head = envelope.encode_request(
        MESSAGE_ID,
        'x',
        't',
        ttl=seconds,
        monitor_timeout=seconds,
        flags=envelope.WANT_REPLY,
    )
    assert head[40:48] == ms.to_bytes(4, 'big') * 2
    header = envelope.decode([head, b'']).header
    assert header.ttl == header.monitor_timeout == ms / 1000


@pytest.mark.spec('WP-13')
@pytest.mark.parametrize('seconds', [-1e-9, -1.0, -math.inf, math.nan])
def test_duration_that_is_none_is_not_sent(seconds: float) -> None:
    for name in ('ttl', 'monitor_timeout'):
        with pytest.raises(envelope.EnvelopeError, match='duration'):
            envelope.encode_request(
                MESSAGE_ID,
                'x',
                't',
                flags=envelope.WANT_REPLY,
                **{name: seconds},  # type: ignore[arg-type]
            )


@pytest.mark.spec('WP-16')
def test_errors_hold_no_bytes_of_the_frames() -> None:
    secret = b'SECRET'
    for frames in (
        [secret * 20, secret],
        [REQUEST + secret, secret],
        [raw(names=(secret + b'\xff', b'', b'')), secret],
        [envelope.encode_ack(MESSAGE_ID), secret],
        [raw(version=2) + secret, secret],
    ):
        with pytest.raises(envelope.DecodeError) as caught:
            envelope.decode(frames)
        assert 'SECRET' not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or (
            caught.value.__context__ is None
        )


# Properties.

IDS = st.binary(min_size=16, max_size=16)
NAMES = st.text(st.characters(codec='utf-8'), max_size=300)
MILLISECONDS = st.integers(0, 0xFFFFFFFF)


@st.composite
def headers(draw: Any) -> envelope.Header:
    """Return any header that can be sent."""
    kind, codec, flags, reason = draw(st.sampled_from(sorted(combinations())))
    header = envelope.Header(
        envelope.Kind(kind),
        draw(IDS),
        flags=flags,
        codec=codec,
        reason=reason,
    )
    if kind != envelope.Kind.REQUEST:
        return header
    monitored = flags & envelope.WANT_REPLY
    return header._replace(
        exchange=draw(NAMES),
        topic=draw(NAMES),
        server=draw(NAMES),
        incarnation=draw(IDS),
        ttl=draw(MILLISECONDS) / 1000,
        monitor_timeout=draw(MILLISECONDS) / 1000 if monitored else 0.0,
    )


def decode_anything(frames: list[bytes]) -> None:
    """Decode frames that anybody could have sent."""
    try:
        message = envelope.decode(frames)
    except envelope.DecodeError:
        return
    # What was accepted is valid: a sender would have made the same bytes.
    # The refusal of another version is the one that is never sent from here.
    if frames[0][2] == envelope.VERSION:
        assert envelope.encode_header(message.header) == frames[0]
        assert [message.body] == frames[1:]


@pytest.mark.spec('WP-15')
@hypothesis.given(headers(), st.binary(max_size=100))
def test_header_comes_back(header: envelope.Header, content: bytes) -> None:
    if header.codec == envelope.CODEC_NONE:
        content = b''
    frames = [envelope.encode_header(header), content]
    message = envelope.decode(frames)
    assert message == (header, content)
    assert type(message.header.kind) is envelope.Kind
    assert envelope.encode_header(message.header) == frames[0]


@pytest.mark.spec('WP-15')
@hypothesis.given(MILLISECONDS, MILLISECONDS)
def test_durations_do_not_grow(ttl_ms: int, monitor_ms: int) -> None:
    head = raw(flags=envelope.WANT_REPLY, ttl_ms=ttl_ms, monitor_ms=monitor_ms)
    header = envelope.decode([head, b'']).header
    assert envelope.encode_header(header) == head


@pytest.mark.spec('WP-13')
@hypothesis.given(st.floats(1e-9, 4e6))
def test_duration_is_never_shortened(seconds: float) -> None:
    head = envelope.encode_request(MESSAGE_ID, 'x', 't', ttl=seconds)
    ttl = envelope.decode([head, b'']).header.ttl
    assert seconds - 1e-7 <= ttl <= seconds + 0.0011


@pytest.mark.spec('WP-14')
@hypothesis.given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_frames_do_no_harm(frames: list[bytes]) -> None:
    decode_anything(frames)


@pytest.mark.spec('WP-14')
@hypothesis.given(st.binary(max_size=100), st.binary(max_size=20))
def test_random_bytes_after_the_magic_number_do_no_harm(
    rest: bytes, content: bytes
) -> None:
    decode_anything([b'ZO\1' + rest, content])
    decode_anything([b'ZO\1\1\1\0\0\0' + rest, content])
    decode_anything([b'ZO' + rest, content])


@pytest.mark.spec('WP-14')
@hypothesis.given(headers(), st.data())
def test_damaged_header_does_no_harm(
    header: envelope.Header, data: st.DataObject
) -> None:
    head = bytearray(envelope.encode_header(header))
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * len(head) - 1))
        head[bit // 8] ^= 1 << bit % 8
    decode_anything([bytes(head), b''])
    decode_anything([bytes(head), b'[{},{}]'])


@pytest.mark.spec('WP-14')
def test_every_flipped_bit_does_no_harm() -> None:
    for head in (REQUEST, *ANSWERS):
        for bit in range(8 * len(head)):
            damaged = bytearray(head)
            damaged[bit // 8] ^= 1 << bit % 8
            decode_anything([bytes(damaged), b''])


@pytest.mark.spec('WP-14')
@hypothesis.given(headers())
def test_header_that_is_cut_does_no_harm(header: envelope.Header) -> None:
    head = envelope.encode_header(header)
    for size in range(len(head)):
        assert refused(head[:size])


@pytest.mark.spec('WP-14')
def test_header_that_is_huge_is_refused() -> None:
    for head in (REQUEST, *ANSWERS):
        assert refused(head + bytes(10_000_000))
