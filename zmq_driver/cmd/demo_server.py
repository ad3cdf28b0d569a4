# SPDX-License-Identifier: Apache-2.0
"""A server process of the demo: an ordinary oslo.messaging program."""

import argparse
import os
import sys
from typing import Any

import oslo_messaging

from zmq_driver.cmd import demo


class Endpoint:
    """The methods that clients call.

    Thread: any; oslo.messaging calls them on executor workers.
    """

    def __init__(self, server: str) -> None:
        """Serve under the name *server*."""
        self._server = server

    def greet(self, ctxt: dict[str, Any], name: str) -> dict[str, Any]:
        """Return a greeting that tells who served it."""
        return {
            'text': f'hello {name}',
            'server': self._server,
            'pid': os.getpid(),
        }

    def log(self, ctxt: dict[str, Any], text: str) -> None:
        """Show *text*."""
        print(f'received: {text}', flush=True)

    @oslo_messaging.expected_exceptions(ZeroDivisionError)  # type: ignore[untyped-decorator]
    def divide(self, ctxt: dict[str, Any], a: int, b: int) -> float:
        """Return a / b, or fail like Python does."""
        return a / b

    def echo(self, ctxt: dict[str, Any], payload: str) -> str:
        """Return *payload*."""
        return payload


class NotificationEndpoint:
    """What happens with notifications.

    Thread: any; oslo.messaging calls it on executor workers.
    """

    def info(
        self,
        ctxt: dict[str, Any],
        publisher_id: str,
        event_type: str,
        payload: Any,
        metadata: dict[str, Any],
    ) -> None:
        """Show the notification."""
        print(
            f'notified by {publisher_id}: {event_type} {payload}', flush=True
        )


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--store', required=True)
    parser.add_argument('--server', required=True)
    arguments = parser.parse_args()
    conf = demo.configure(arguments.store)

    rpc = oslo_messaging.get_rpc_transport(conf, arguments.url)
    server = oslo_messaging.get_rpc_server(
        rpc,
        oslo_messaging.Target(topic=arguments.topic, server=arguments.server),
        [Endpoint(arguments.server)],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    notifications = oslo_messaging.get_notification_transport(
        conf, arguments.url
    )
    listener = oslo_messaging.get_notification_listener(
        notifications,
        [oslo_messaging.Target(topic=arguments.topic)],
        [NotificationEndpoint()],
        executor='threading',
    )
    server.start()
    listener.start()
    print('READY', flush=True)
    sys.stdin.read()
    for service in (server, listener):
        service.stop()
        service.wait()
    for transport in (rpc, notifications):
        transport.cleanup()


if __name__ == '__main__':
    main()
