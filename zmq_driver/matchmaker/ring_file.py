# SPDX-License-Identifier: Apache-2.0
"""The JSON file of the ring matchmaker: what it may hold, and its errors.

Pure: text in, entries out. ``doc/specs/matchmaker-ring.rst`` describes it.
"""

from collections.abc import Mapping
import ipaddress
import json
import re
from typing import Any
from typing import NamedTuple

from zmq_driver import hosts

#: A host and a port: ``name:9501``, ``[2001:db8::7]:9501``.
_WITH_PORT = re.compile(r'(\[[^]]*\]|[^:]*):(.*)')
_KEYS = {'host', 'port', 'server'}


class RingFileError(ValueError):
    """The text is not a ring; says where and why."""


class Entry(NamedTuple):
    """One listener of a topic."""

    #: As an endpoint needs it: an IPv6 address is in brackets.
    host: str
    port: int
    #: The server's name (the listener pool of a notification listener); None
    #: if the file gives none.
    server: str | None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f'tcp://{self.host}:{self.port}'


#: The listeners of each topic.
Ring = Mapping[str, tuple[Entry, ...]]


def parse(text: str, default_port: int) -> Ring:
    """Return the ring that *text* describes.

    :param default_port: of entries that give none
    :raises RingFileError: it describes none
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise RingFileError(
            f'line {error.lineno}, column {error.colno}: {error.msg}'
        ) from None
    except RecursionError:
        raise RingFileError('it is nested too deeply') from None
    if not isinstance(found, dict):
        raise RingFileError(
            f'it is {_kind(found)}; write an object of topics, each with a '
            f'list of hosts'
        )
    ring = {}
    for topic, entries in found.items():
        if not isinstance(entries, list):
            raise RingFileError(
                f'topic {topic!r} has {_kind(entries)}; write a list of hosts'
            )
        ring[topic] = tuple(
            _entry(host, default_port, f'topic {topic!r}, host {number}')
            for number, host in enumerate(entries, 1)
        )
    return ring


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RingFileError(f'{twice!r} is there twice; merge the two')
    return found


def _entry(value: Any, default_port: int, where: str) -> Entry:
    if isinstance(value, str):
        host, port = _split(value, default_port, where)
        return Entry(_checked_host(host, where), port, None)
    if not isinstance(value, dict):
        raise RingFileError(
            f'{where} is {_kind(value)}; write "host", "host:port" or an '
            f'object with host, port and server'
        )
    unknown = sorted(set(value) - _KEYS)
    if unknown:
        raise RingFileError(
            f'{where} has {unknown[0]!r}; only host, port and server are known'
        )
    name, server = value.get('host'), value.get('server')
    if not isinstance(name, str):
        raise RingFileError(f'{where} names no host')
    if server is not None and not isinstance(server, str):
        raise RingFileError(f'{where}: server is {_kind(server)}, not text')
    port = _checked_port(value.get('port', default_port), where)
    return Entry(_checked_host(name, where), port, server)


def _split(text: str, default_port: int, where: str) -> tuple[str, int]:
    match = _WITH_PORT.fullmatch(text)
    if match is None or _is_ipv6(text):
        return text, default_port
    if not match[2].isdecimal():
        raise RingFileError(f'{where}: {match[2]!r} is not a port')
    return match[1], _checked_port(int(match[2]), where)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(hosts.unbracketed(text))
    except ValueError:
        return False
    return True


def _checked_host(host: str, where: str) -> str:
    if _is_ipv6(host):
        return f'[{hosts.unbracketed(host)}]'
    if not hosts.is_name(host):
        raise RingFileError(
            f'{where}: {host!r} is neither the name nor the address of a host'
        )
    return host


def _checked_port(port: Any, where: str) -> int:
    if type(port) is not int or not 1 <= port <= hosts.LAST_PORT:
        raise RingFileError(
            f'{where}: {port!r} is not a port; write a number from 1 to '
            f'{hosts.LAST_PORT}'
        )
    return port


def _kind(value: Any) -> str:
    """Return what a JSON value is, as its author would call it."""
    for kind, name in (
        (bool, 'true or false'),
        (int | float, 'a number'),
        (str, 'text'),
        (list, 'a list'),
        (dict, 'an object'),
    ):
        if isinstance(value, kind):
            return name
    return 'null'
