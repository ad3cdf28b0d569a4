# SPDX-License-Identifier: Apache-2.0
"""A WSGI application that makes a call and a notification in each request.

It makes its transports when it is imported, as the APIs of OpenStack do; under
a server that preloads it, that is before the fork. Making one opens nothing:
each worker connects when it first uses it. ``doc/source/user/wsgi.rst`` tells
how to run it, and ``workers_cotyledon.py`` is a server for it.

``GET /?a=2&b=3`` answers ``{"sum": 5, ...}``.
"""

from collections.abc import Callable
from collections.abc import Iterable
import json
import os
from typing import Any
from urllib import parse

from oslo_config import cfg
import oslo_messaging

TRANSPORT_URL = os.environ.get('TRANSPORT_URL', 'zmq://')

cfg.CONF([], project='calculator')

client = oslo_messaging.get_rpc_client(
    oslo_messaging.get_rpc_transport(cfg.CONF, TRANSPORT_URL),
    oslo_messaging.Target(topic='calculator'),
    timeout=10,
)
notifier = oslo_messaging.Notifier(
    oslo_messaging.get_notification_transport(cfg.CONF, TRANSPORT_URL),
    publisher_id='calculator-api',
    driver='messagingv2',
    topics=['calculator-events'],
    # A request does not wait for somebody to listen.
    retry=0,
)


def application(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Add two numbers, at a server, and tell whoever wants to know."""
    query = parse.parse_qs(environ.get('QUERY_STRING', ''))
    try:
        a, b = int(query['a'][0]), int(query['b'][0])
    except (KeyError, ValueError):
        return respond(start_response, '400 Bad Request', error='a and b')
    try:
        answer = client.call({}, 'add', a=a, b=b)
    except oslo_messaging.MessagingException as error:
        # Adding is harmless: whether it has run does not matter here.
        status = '503 Service Unavailable'
        return respond(start_response, status, error=str(error))
    notifier.info({}, 'calculator.added', {'a': a, 'b': b})
    return respond(
        start_response, '200 OK', sum=answer['sum'], pid=os.getpid()
    )


def respond(
    start_response: Callable[..., Any], status: str, **content: object
) -> list[bytes]:
    """Answer a request with JSON."""
    body = json.dumps(content).encode()
    headers = [
        ('Content-Type', 'application/json'),
        ('Content-Length', str(len(body))),
    ]
    start_response(status, headers)
    return [body]
