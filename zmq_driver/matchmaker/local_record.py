# SPDX-License-Identifier: Apache-2.0
"""What a file of the local matchmaker says about one listener."""

import json
import os
import socket
from typing import Any

from zmq_driver import address
from zmq_driver.matchmaker import base

#: Bytes that a record may have.
MAX_SIZE = 65_536


def encode(
    registration: address.Registration, virtual_host: str, started: str
) -> bytes:
    """Return the content of the file.

    :param started: when the member began, in ISO 8601
    :raises base.MatchmakerUnavailable: it is too long
    """
    where, route = registration.address, registration.route
    record = {
        'virtual_host': virtual_host,
        'scope': where.scope.name,
        'exchange': where.exchange,
        'topic': where.topic,
        'server': route.server,
        'endpoint': route.endpoint,
        'incarnation': route.incarnation.hex(),
        'pid': os.getpid(),
        'host': socket.gethostname(),
        'started': started,
    }
    content = json.dumps(record, indent=1).encode() + b'\n'
    if len(content) >= MAX_SIZE:
        raise base.MatchmakerUnavailable(
            f'the names of a listener at {str(where)[:80]}... are too long'
        )
    return content


def decode_route(
    content: bytes, name: str, virtual_host: str, where: address.Address
) -> address.Route:
    """Return the route in a record.

    :param name: the name of its file
    :raises ValueError: it is garbage, or not for *where*; some garbage
        raises KeyError, TypeError or RecursionError
    """
    record: dict[str, Any] = json.loads(content)
    found = [record[k] for k in ('virtual_host', 'exchange', 'topic')]
    asked = [virtual_host, where.exchange, where.topic]
    if found != asked or record['scope'] != where.scope.name:
        raise ValueError('it is about another address')
    endpoint, server = record['endpoint'], record['server']
    if not isinstance(endpoint, str) or not isinstance(server, str):
        raise ValueError('endpoint and server must be text')
    incarnation = name.rpartition('-')[2]
    if record['incarnation'] != incarnation:
        raise ValueError('its incarnation is not that of its name')
    return address.Route(endpoint, bytes.fromhex(incarnation), server)


def decode(content: bytes, name: str, virtual_host: str) -> base.Record | None:
    """Return all that a record says; None if of another virtual host.

    :param name: the name of its file
    :raises ValueError: as :func:`decode_route` does
    """
    record: dict[str, Any] = json.loads(content)
    if record['virtual_host'] != virtual_host:
        return None
    where = address.Address(
        address.Scope[record['scope']], record['exchange'], record['topic']
    )
    return base.Record(
        address.Registration(
            where, decode_route(content, name, virtual_host, where)
        ),
        str(record['host']),
        int(record['pid']),
        str(record['started']),
        None,
    )
