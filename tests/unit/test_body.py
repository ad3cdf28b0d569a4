# SPDX-License-Identifier: Apache-2.0
"""Bodies are what doc/specs/wire-protocol.rst says."""

import collections
from collections.abc import Callable
import contextlib
import datetime
import decimal
import ipaddress
import itertools
import json
import pathlib
import re
import sys
import threading
from typing import Any
import uuid

import hypothesis
from hypothesis import strategies as st
from oslo_messaging._drivers import common
from oslo_serialization import jsonutils
import pytest

from zmq_driver import body

SPEC = pathlib.Path(__file__).parents[2] / 'doc/specs/wire-protocol.rst'
MAX_SIZE = 1 << 20

# What the expressions of the spec may use.
NAMES = {
    module.__name__: module
    for module in (collections, datetime, decimal, ipaddress, uuid)
}


def types_of_the_spec() -> list[tuple[str, str]]:
    """Return expressions of Python and the JSON that they become."""
    block = re.search(r':class: wp-types\n\n((?:   .*\n)+)', SPEC.read_text())
    assert block
    return re.findall(r'^   (.*?) *=> (.*)$', block[1], re.MULTILINE)


class Opaque:
    """What JSON cannot represent, and what nobody may see."""

    def __repr__(self) -> str:
        return 'SECRET'


class Explosive:
    """An application's object that fails when somebody looks inside."""

    @property
    def items(self) -> Any:
        raise RuntimeError('SECRET')


class Context:
    """A context object, as some callers hand them to a driver."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def to_dict(self) -> Any:
        return self.values


def nested(depth: int) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> Any:
    value: dict[str, Any] = {'a': {}}
    value['a']['back'] = value
    return value


def ring() -> Any:
    value: collections.deque[Any] = collections.deque()
    value.append(value)
    return value


def complaint(message: Any) -> str:
    """Return what is said of a message that cannot be sent."""
    with pytest.raises(body.UnserializableBody) as caught:
        body.encode_request({'auth_token': 'SECRET'}, message, MAX_SIZE)
    check_secrecy(caught.value)
    return str(caught.value)


def check_secrecy(error: BaseException) -> None:
    """Assert that nothing of an error shows what the application sent."""
    assert error.__cause__ is None
    assert error.__context__ is None
    assert 'SECRET' not in f'{error} {error!r} {error.args} {vars(error)}'


# Values.


@pytest.mark.spec('WP-20')
@pytest.mark.parametrize(('expression', 'expected'), types_of_the_spec())
def test_type_becomes_what_the_spec_says(
    expression: str, expected: str
) -> None:
    value = eval(expression, dict(NAMES))
    assert body.encode_reply(value, MAX_SIZE).decode() == expected


@pytest.mark.spec('WP-20')
@pytest.mark.parametrize(
    'value',
    [
        *(
            eval(expression, dict(NAMES))
            for expression, _ in types_of_the_spec()
        ),
        {'a': [{'b': (1, {2})}], '': {}},
        Opaque,
        len,
        threading,
        (n for n in 'SECRET'),
        uuid.UUID(int=5),
        collections.OrderedDict(z=1, a=2),
        collections.UserDict({uuid.UUID(int=1): 1}),
        [[[[[[[[]]]]]]]],
        1 << 64,
        1e300,
        '\U0001f600',
        b'\xc3\xa4',
    ],
    ids=repr,
)
def test_value_is_that_of_jsonutils(value: Any) -> None:
    mine = body.encode_reply(value, MAX_SIZE)
    oslos = jsonutils.dump_as_bytes(value)
    assert repr(json.loads(mine)) == repr(json.loads(oslos))
    assert repr(body.decode_reply(mine)) == repr(jsonutils.loads(oslos))


@pytest.mark.spec('WP-20')
def test_function_is_sent_as_its_repr() -> None:
    # Surprising, but what services see with any other driver.
    sent = body.encode_reply(lambda: 1, MAX_SIZE)
    assert body.decode_reply(sent).startswith('<function ')


@pytest.mark.spec('WP-23')
@pytest.mark.parametrize('text', ['\ud800', 'a\udcffb', '\udfff\ud800'])
def test_lone_surrogate_travels(text: str) -> None:
    assert body.decode_reply(body.encode_reply(text, MAX_SIZE)) == text
    request = body.encode_request({text: text}, {text: [text]}, MAX_SIZE)
    assert body.decode_request(request) == ({text: text}, {text: [text]})


# Values that cannot be sent.


@pytest.mark.spec('WP-21')
@pytest.mark.spec('WP-16')
@pytest.mark.parametrize(
    ('value', 'problem'),
    [
        (Opaque(), r'handle is a .*\.Opaque, which JSON cannot'),
        (threading.Lock(), r'handle is a _thread.lock, which JSON cannot'),
        (Explosive(), r'handle is a .*\.Explosive that raised a RuntimeError'),
        (b'SECRET\xff', r'handle is a bytes that is not UTF-8'),
        (10**5000, r'handle is an int with too many digits'),
        ({uuid.UUID(int=1): 1}, r'handle has a key that is a uuid.UUID'),
        ({b'SECRET': 1}, r'handle has a key that is a bytes'),
        ([1, {'a': (2, Opaque())}], r'handle\[1\]\.a\[1\] is a .*Opaque'),
        ({Opaque()}, r'handle\{\} is a .*Opaque'),
        (collections.UserDict(a=Opaque()), r'handle\.a is a .*Opaque'),
        (collections.deque([Opaque()]), r'handle\[0\] is a .*Opaque'),
        ({'a SECRET': Opaque()}, r'handle\[key 0\] is a .*Opaque'),
        ({'SECRET' * 9: Opaque()}, r'handle\[key 0\] is a .*Opaque'),
        ({1: Opaque()}, r'handle\[key 0\] is a .*Opaque'),
        (circle(), r'handle\.a\.back is part of itself'),
        (ring(), r'handle\[0\] is part of itself'),
        (
            nested(100_000),
            r'handle(\[0\]){3}\.{3}(\[0\]){6} is nested too deep',
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_culprit_is_named_by_place_and_type(value: Any, problem: str) -> None:
    text = complaint({'args': {'before': [1], 'volume': {'handle': value}}})
    assert re.search(rf'The message at args\.volume\.{problem}', text), text
    assert 'serializer' in text
    assert len(text) < 500


@pytest.mark.spec('WP-21')
def test_structure_that_just_exceeds_the_encoder_is_explained() -> None:
    # How deep that is depends on the release of Python.
    fits, exceeds = 1, 100_000
    while exceeds - fits > 1:
        depth = (fits + exceeds) // 2
        try:
            body.encode_reply(nested(depth), MAX_SIZE)
        except body.UnserializableBody:
            exceeds = depth
        else:
            fits = depth
    assert 'nested too deeply' in complaint({'args': nested(exceeds + 50)})


@pytest.mark.spec('WP-21')
def test_first_culprit_is_the_one_named() -> None:
    assert 'at a is' in complaint({'a': Opaque(), 'b': Opaque()})


@pytest.mark.spec('WP-21')
@pytest.mark.spec('WP-16')
def test_culprit_in_the_context_is_named() -> None:
    for ctxt in (
        {'SECRET_': 1, 'user': Opaque()},
        Context({'user': Opaque()}),
    ):
        with pytest.raises(body.UnserializableBody) as caught:
            body.encode_request(ctxt, {'password': 'SECRET'}, MAX_SIZE)
        assert str(caught.value).startswith('The context at user is a ')
        check_secrecy(caught.value)


@pytest.mark.spec('WP-21')
def test_culprit_in_the_reply_is_named() -> None:
    for value, start in (
        (Opaque(), 'The reply is a '),
        ([Opaque()], 'The reply at [0] is a '),
        ({'a': Opaque()}, 'The reply at a is a '),
    ):
        with pytest.raises(body.UnserializableBody) as caught:
            body.encode_reply(value, MAX_SIZE)
        assert str(caught.value).startswith(start)
        check_secrecy(caught.value)


@pytest.mark.spec('WP-21')
def test_error_is_what_oslo_raises_too() -> None:
    assert issubclass(body.UnserializableBody, ValueError)
    assert issubclass(body.UnserializableBody, TypeError)


@pytest.mark.spec('WP-21')
def test_iterator_that_the_first_attempt_used_up_is_still_an_error() -> None:
    values = itertools.chain([Opaque()])
    text = complaint({'args': values})
    assert text.startswith('The values changed while')


@pytest.mark.spec('WP-21')
def test_container_that_fails_only_when_searched_is_still_an_error() -> None:
    class Fickle(collections.UserDict):  # type: ignore[type-arg]
        calls = 0

        def items(self) -> Any:
            self.calls += 1
            if self.calls == 4:
                raise KeyError('SECRET')
            return {'a': Opaque()}.items()

    text = complaint({'args': Fickle()})
    assert text.startswith('The message has no representation in JSON')


@pytest.mark.spec('WP-21')
@pytest.mark.parametrize(
    ('ctxt', 'message', 'problem'),
    [
        ({}, ['SECRET'], 'The message is a list, not a dict.'),
        ({}, None, 'The message is a NoneType, not a dict.'),
        ('SECRET', {}, 'The context is a str, not a dict.'),
        (Context(['SECRET']), {}, 'The context is a list, not a dict.'),
    ],
)
def test_request_is_made_of_dictionaries(
    ctxt: Any, message: Any, problem: str
) -> None:
    with pytest.raises(body.UnserializableBody) as caught:
        body.encode_request(ctxt, message, MAX_SIZE)
    assert str(caught.value) == problem
    check_secrecy(caught.value)


def test_memory_error_is_left_alone() -> None:
    class Exhausting:
        @property
        def items(self) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        body.encode_reply(Exhausting(), MAX_SIZE)


# Sizes.


@pytest.mark.spec('WP-22')
def test_size_has_a_limit() -> None:
    encoders: dict[str, Callable[[int], bytes]] = {
        'message': lambda limit: body.encode_request({}, {'a': 'b'}, limit),
        'reply': lambda limit: body.encode_reply({'a': 'SECRET'}, limit),
        'failure': lambda limit: body.encode_failure('{"SECRET": 0}', limit),
    }
    for what, encode in encoders.items():
        size = len(encode(MAX_SIZE))
        assert len(encode(size)) == size
        with pytest.raises(body.BodyTooLarge) as caught:
            encode(size - 1)
        assert str(caught.value) == (
            f'the {what} has {size} bytes as JSON, the option '
            f'max_message_size allows {size - 1}'
        )
        assert (caught.value.size, caught.value.limit) == (size, size - 1)
        check_secrecy(caught.value)


# Requests.


@pytest.mark.spec('WP-18')
def test_request_is_context_and_message() -> None:
    sent = body.encode_request({'u': 1}, {'method': 'm'}, MAX_SIZE)
    assert sent == b'[{"u":1},{"method":"m"}]'
    assert body.decode_request(sent) == ({'u': 1}, {'method': 'm'})


@pytest.mark.spec('WP-18')
def test_no_context_is_an_empty_one() -> None:
    sent = body.encode_request(None, {}, MAX_SIZE)
    assert sent == b'[null,{}]'
    assert body.decode_request(sent) == ({}, {})


@pytest.mark.spec('WP-18')
def test_request_may_be_made_of_other_mappings() -> None:
    sent = body.encode_request(
        Context({'u': 1}), collections.UserDict(a=1), MAX_SIZE
    )
    assert sent == b'[{"u":1},{"a":1}]'
    sent = body.encode_request(collections.UserDict(u=1), {}, MAX_SIZE)
    assert sent == b'[{"u":1},{}]'


@pytest.mark.spec('WP-18')
def test_blanks_of_another_sender_do_not_matter() -> None:
    sent = b' [ {"u" : 1} ,\n {} ] '
    assert body.decode_request(sent) == ({'u': 1}, {})


@pytest.mark.spec('WP-18')
@pytest.mark.parametrize(
    'content',
    [
        b'[]',
        b'[{}]',
        b'[{},{},{}]',
        b'{}',
        b'null',
        b'"ab"',
        b'7',
        b'[{},null]',
        b'[{},[]]',
        b'[[],{}]',
        b'["",{}]',
        b'[0,{}]',
        b'[false,{}]',
    ],
)
def test_request_of_another_form_is_refused(content: bytes) -> None:
    with pytest.raises(body.BodyDecodeError):
        body.decode_request(content)


# Replies.


@pytest.mark.spec('WP-19')
def test_reply_is_the_result() -> None:
    results: list[Any] = [None, 0, '', [], {}, {'a': [1.5, True]}]
    for result in results:
        sent = body.encode_reply(result, MAX_SIZE)
        assert body.decode_reply(sent) == result
    assert body.encode_reply(None, MAX_SIZE) == b'null'


@pytest.mark.spec('WP-19')
def test_failure_is_what_oslo_made_of_it() -> None:
    try:
        raise ValueError('nein \u2713')
    except ValueError:
        failure = common.serialize_remote_exception(sys.exc_info())
    sent = body.encode_failure(failure, MAX_SIZE)
    assert body.decode_failure(sent) == failure
    rebuilt = common.deserialize_remote_exception(failure, ['builtins'])
    assert isinstance(rebuilt, ValueError)


@pytest.mark.spec('WP-19')
@pytest.mark.parametrize(
    'change',
    [
        {'class': None},
        {'class': 1},
        {'module': ['os']},
        {'message': {}},
        {'tb': 'text'},
        {'tb': None},
        {'tb': [1]},
    ],
)
def test_failure_of_another_form_is_refused(change: dict[str, Any]) -> None:
    failure = {'class': 'E', 'module': 'm', 'message': '', 'tb': []}
    assert body.decode_failure(json.dumps(failure).encode())
    with pytest.raises(body.BodyDecodeError):
        body.decode_failure(json.dumps(failure | change).encode())


@pytest.mark.spec('WP-19')
@pytest.mark.parametrize('content', [b'', b'[]', b'null', b'"text"', b'{}'])
def test_failure_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(body.BodyDecodeError):
        body.decode_failure(content)


@pytest.mark.spec('WP-17')
def test_failure_that_is_not_unicode_is_not_sent() -> None:
    with pytest.raises(body.UnserializableBody) as caught:
        body.encode_failure('SECRET\ud800', MAX_SIZE)
    check_secrecy(caught.value)


# Bytes from the network.


@pytest.mark.spec('WP-17')
@pytest.mark.spec('WP-16')
@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'', 'not JSON at character 0, in a body of 0 bytes'),
        (b'"SECRET', 'not JSON at character 0'),
        (b'"SECRET" x', 'not JSON at character 9'),
        (b'"\n"', 'not JSON'),
        (rb'"\q"', 'not JSON'),
        (b'"SECRET\xff"', 'not UTF-8 at byte 7'),
        (b'"\xed\xa0\x80"', 'not UTF-8'),
        (b'\xef\xbb\xbf1', 'not JSON'),
        ('"text"'.encode('utf-16'), 'not UTF-8'),
        ('"text"'.encode('utf-16-le'), 'not JSON'),
        ('"text"'.encode('utf-32-be'), 'not JSON'),
        (b'[' * 100_000, 'nested too deeply'),
        (b'{"a":' * 100_000, 'nested too deeply'),
        (b'9' * 5000, 'too many digits'),
        (b'[1,-' + b'9' * 5000 + b']', 'too many digits'),
        (b"{'a': 1}", 'not JSON'),
        (b'[1,]', 'not JSON'),
    ],
    ids=lambda value: str(value[:12]),
)
def test_what_is_not_json_is_refused(content: bytes, problem: str) -> None:
    for decode in (
        body.decode_request,
        body.decode_reply,
        body.decode_failure,
    ):
        with pytest.raises(body.BodyDecodeError, match=problem) as caught:
            decode(content)
        check_secrecy(caught.value)


# Properties.

TEXTS = st.text(st.characters(codec='utf-8'))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=15,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


def decode_anything(content: bytes) -> None:
    """Decode a body that anybody could have sent."""
    for decode in (
        body.decode_request,
        body.decode_reply,
        body.decode_failure,
    ):
        with contextlib.suppress(body.BodyDecodeError):
            decode(content)


@pytest.mark.spec('WP-20')
@hypothesis.given(VALUES)
def test_reply_comes_back(value: Any) -> None:
    assert body.decode_reply(body.encode_reply(value, MAX_SIZE)) == value


@pytest.mark.spec('WP-18')
@hypothesis.given(OBJECTS, OBJECTS)
def test_request_comes_back(ctxt: Any, message: Any) -> None:
    sent = body.encode_request(ctxt, message, MAX_SIZE)
    assert body.decode_request(sent) == (ctxt, message)


@pytest.mark.spec('WP-17')
@hypothesis.given(st.binary(max_size=200))
def test_random_bytes_do_no_harm(content: bytes) -> None:
    decode_anything(content)
    decode_anything(b'[{},' + content + b']')


@pytest.mark.spec('WP-17')
@hypothesis.given(OBJECTS, OBJECTS, st.data())
def test_damaged_body_does_no_harm(
    ctxt: Any, message: Any, data: st.DataObject
) -> None:
    sent = bytearray(body.encode_request(ctxt, message, MAX_SIZE))
    decode_anything(bytes(sent[: data.draw(st.integers(0, len(sent)))]))
    bit = data.draw(st.integers(0, 8 * len(sent) - 1))
    sent[bit // 8] ^= 1 << bit % 8
    decode_anything(bytes(sent))


@pytest.mark.spec('WP-16')
@pytest.mark.spec('WP-21')
@hypothesis.given(OBJECTS, st.data())
def test_no_error_shows_a_value(message: Any, data: st.DataObject) -> None:
    message['secret'] = {
        'SECRET ' + data.draw(TEXTS): ['SECRET', Opaque()],
    }
    assert ' at secret[key 0][1] is a ' in complaint(message)
