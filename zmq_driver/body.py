# SPDX-License-Identifier: Apache-2.0
"""Bodies: what the application sends, to and from the bytes of JSON.

Whatever ``jsonutils`` of oslo.serialization can carry travels as it does with
the other drivers of oslo.messaging. Contexts hold tokens and messages hold
passwords, so no error raised here has a value in its text or in a chained
exception: only types, sizes and places.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import json
import re
from typing import Any
from typing import Final

from oslo_serialization import jsonutils

#: The option that sets the limit, for the texts of errors.
MAX_SIZE_OPTION: Final = 'max_message_size'

# What is part of itself is found by the depth that it has; to look for it in
# advance takes a tenth of the time that a message of many parts needs.
_ENCODER: Final = json.JSONEncoder(
    default=jsonutils.to_primitive,
    separators=(',', ':'),
    check_circular=False,
)
_DECODER: Final = json.JSONDecoder()

#: What an error may show of a key; anything else could be data.
_PLAIN_KEY: Final = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,30}')
#: How many steps of a path an error shows at either end.
_SHOWN_STEPS: Final = 6
#: Where the search for a culprit stops, and nesting is to blame.
_MAX_STEPS: Final = 200
#: What json.dumps turns into the key of an object.
_KEY_TYPES: Final = (str, int, float, bool, type(None))

_FIX: Final = (
    'Send only what JSON knows, or give the client or notifier a serializer '
    'that turns this into it.'
)
#: When the search finds nothing wrong any more.
_CHANGED: Final = (
    'The values changed while they were being encoded, or are nested too '
    'deeply.'
)


class UnserializableBody(ValueError, TypeError):
    """The application's values cannot be sent as JSON.

    Both a ValueError and a TypeError, because it is sometimes the one and
    sometimes the other that ``jsonutils`` raises.

    Thread: any.
    """


class BodyTooLarge(ValueError):
    """The encoded values are larger than a message may be.

    Thread: any.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        """Say how large it is.

        :param what: 'message', 'reply' or 'failure'
        :param size: bytes of the encoded body
        :param limit: bytes that it may have
        """
        super().__init__(
            f'the {what} has {size} bytes as JSON, the option '
            f'{MAX_SIZE_OPTION} allows {limit}'
        )
        self.size = size
        self.limit = limit


class BodyDecodeError(ValueError):
    """A body from the network is not what it should be.

    Thread: any.
    """


def encode_request(ctxt: Any, message: Any, max_size: int) -> bytes:
    """Return the body of a REQUEST: the array of context and message.

    :param ctxt: a dictionary, None, or an object with ``to_dict()``
    :param message: a dictionary
    :param max_size: bytes that the body may have
    :raises UnserializableBody: a value has no representation in JSON
    :raises BodyTooLarge: it has more than ``max_size`` bytes
    """
    if ctxt is not None:
        ctxt = _to_dict('context', ctxt)
    message = _to_dict('message', message)
    text = _encode([ctxt, message])
    if text is None:
        raise UnserializableBody(
            _explain('message', message)
            or _explain('context', ctxt)
            or _CHANGED
        )
    return _checked('message', text, max_size)


def encode_reply(result: Any, max_size: int) -> bytes:
    """Return the body of a REPLY: what the server's method returned.

    :param result: any value
    :param max_size: bytes that the body may have
    :raises UnserializableBody: a value has no representation in JSON
    :raises BodyTooLarge: it has more than ``max_size`` bytes
    """
    text = _encode(result)
    if text is None:
        raise UnserializableBody(_explain('reply', result) or _CHANGED)
    return _checked('reply', text, max_size)


def encode_failure(failure: str, max_size: int) -> bytes:
    """Return the body of a REPLY with the flag FAILURE.

    :param failure: what oslo.messaging's ``serialize_remote_exception`` made
    :param max_size: bytes that the body may have
    :raises UnserializableBody: it is not Unicode
    :raises BodyTooLarge: it has more than ``max_size`` bytes
    """
    try:
        return _checked('failure', failure, max_size)
    except UnicodeEncodeError:
        pass
    raise UnserializableBody('The failure holds a lone surrogate.')


def decode_request(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the context and the message of a REQUEST.

    :raises BodyDecodeError: it is not JSON, or not these two
    """
    value = _decode(body)
    if not isinstance(value, list) or len(value) != 2:
        raise BodyDecodeError('not an array of a context and a message')
    ctxt, message = value
    if ctxt is None:
        ctxt = {}
    if not isinstance(ctxt, dict) or not isinstance(message, dict):
        raise BodyDecodeError('the context or the message is not an object')
    return ctxt, message


def decode_reply(body: bytes) -> Any:
    """Return what the server's method returned.

    :raises BodyDecodeError: it is not JSON
    """
    return _decode(body)


def decode_failure(body: bytes) -> str:
    """Return what ``deserialize_remote_exception`` of oslo.messaging takes.

    That function trusts its input, so it is checked here.

    :raises BodyDecodeError: it is not JSON, or does not describe an exception
    """
    value = _decode(body)
    if not isinstance(value, dict):
        raise BodyDecodeError('the failure is not an object')
    for name in ('class', 'module', 'message'):
        if not isinstance(value.get(name), str):
            raise BodyDecodeError(f'the {name} of the failure is not a string')
    trace = value.get('tb', [])
    if not isinstance(trace, list) or not all(
        isinstance(line, str) for line in trace
    ):
        raise BodyDecodeError('the tb of the failure is not made of strings')
    return str(body, 'utf-8')


def _encode(value: Any) -> str | None:
    """Return JSON, or None if that is not possible.

    The caller raises, outside of the handler: the exceptions caught here hold
    values of the application, and must not be chained.
    """
    try:
        return _ENCODER.encode(value)
    except MemoryError:
        raise
    except Exception:
        # Turning an object into something primitive runs the object's code,
        # which may raise anything.
        return None


def _checked(what: str, text: str, max_size: int) -> bytes:
    body = text.encode()
    if len(body) > max_size:
        raise BodyTooLarge(what, len(body), max_size)
    return body


def _decode(body: bytes) -> Any:
    try:
        # Not json.loads(body), which guesses UTF-16 and UTF-32, nor
        # jsonutils, which tries the encoding of stdin.
        return _DECODER.decode(str(body, 'utf-8'))
    except UnicodeDecodeError as exc:
        problem = f'not UTF-8 at byte {exc.start}'
    except json.JSONDecodeError as exc:
        problem = f'not JSON at character {exc.pos}'
    except RecursionError:
        problem = 'nested too deeply'
    except ValueError:
        problem = 'a number with too many digits'
    # Outside of the handlers: those exceptions hold the whole body.
    raise BodyDecodeError(f'{problem}, in a body of {len(body)} bytes')


def _to_dict(what: str, value: Any) -> dict[Any, Any]:
    """Return a context or message as a dictionary, as oslo's drivers do."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Mapping) and hasattr(value, 'to_dict'):
        value = value.to_dict()
    if not isinstance(value, Mapping):
        raise UnserializableBody(
            f'The {what} is a {_type_name(value)}, not a dict.'
        )
    return dict(value)


def _explain(what: str, value: Any) -> str | None:
    """Return which part of a value cannot be encoded, if there is one."""
    if _encode(value) is not None:
        return None
    try:
        path, problem = _find_culprit(value)
    except Exception:
        # As in _encode(): the walk runs the application's code.
        path, problem = '', 'has no representation in JSON'
    return f'The {what}{path} {problem}. {_FIX}'


def _find_culprit(value: Any) -> tuple[str, str]:
    """Return where the encoder fails, and why.

    A value is the culprit if it cannot be encoded but all it contains can.
    Costs one more encoding for each step on the way to it.
    """
    steps: list[str] = []
    parents: list[Any] = []
    while len(steps) < _MAX_STEPS:
        parents.append(value)
        for step, child in _children(value):
            if _encode(child) is None:
                steps.append(step)
                value = child
                break
        else:
            return _show(steps), _problem(value)
        if any(value is parent for parent in parents):
            return _show(steps), 'is part of itself'
    return _show(steps), 'is nested too deeply'


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a container holds, each with its step of the path."""
    if isinstance(value, Mapping):
        for index, (key, child) in enumerate(value.items()):
            plain = isinstance(key, str) and _PLAIN_KEY.fullmatch(key)
            yield f'.{key}' if plain else f'[key {index}]', child
    elif isinstance(value, Set):
        for child in value:
            yield '{}', child
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for index, child in enumerate(value):
            yield f'[{index}]', child


def _problem(value: Any) -> str:
    """Return why a value cannot be encoded whose contents can."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, _KEY_TYPES):
                return f'has a key that is a {_type_name(key)}'
    if isinstance(value, int):
        return 'is an int with too many digits'
    if isinstance(value, bytes):
        return 'is a bytes that is not UTF-8'
    try:
        _ENCODER.encode(value)
    except RecursionError:
        return 'is nested too deeply'
    except (TypeError, ValueError):
        pass
    except Exception as exc:
        return f'is a {_type_name(value)} that raised a {_type_name(exc)}'
    return f'is a {_type_name(value)}, which JSON cannot represent'


def _show(steps: Sequence[str]) -> str:
    """Return the path for the text of an error, cut in the middle."""
    if not steps:
        return ''
    if len(steps) > 2 * _SHOWN_STEPS:
        steps = [*steps[:_SHOWN_STEPS], '...', *steps[-_SHOWN_STEPS:]]
    return ' at ' + ''.join(steps).removeprefix('.')


def _type_name(value: Any) -> str:
    kind = type(value)
    if kind.__module__ == 'builtins':
        return kind.__qualname__
    return f'{kind.__module__}.{kind.__qualname__}'
