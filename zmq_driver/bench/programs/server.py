# SPDX-License-Identifier: Apache-2.0
"""A server process of the benchmark."""

from typing import Any
from typing import Protocol

import oslo_messaging

from zmq_driver.bench.programs import executions
from zmq_driver.bench.programs import grpc_peer
from zmq_driver.bench.programs import link
from zmq_driver.bench.programs import raw_peer
from zmq_driver.bench.programs import transports


class Service(Protocol):
    """What serves one peer.

    Thread: owner only (the main thread).
    """

    def stop(self) -> None:
        """End it."""


class Endpoint:
    """The methods that clients call.

    Thread: any; oslo.messaging calls them on executor workers.
    """

    def __init__(self, ran: executions.Executions) -> None:
        """Record there what runs."""
        self._ran = ran

    def echo(self, ctxt: dict[str, Any], message: Any, payload: str) -> str:
        """Return *payload*."""
        self._ran.add(message)
        return payload

    def take(self, ctxt: dict[str, Any], message: Any, payload: str) -> None:
        """Only record that the message came."""
        self._ran.add(message)


class NotificationEndpoint:
    """What happens with notifications.

    Thread: any; oslo.messaging calls it on executor workers.
    """

    def __init__(self, ran: executions.Executions) -> None:
        """Record there what runs."""
        self._ran = ran

    def info(
        self,
        ctxt: dict[str, Any],
        publisher_id: str,
        event_type: str,
        payload: Any,
        metadata: dict[str, Any],
    ) -> None:
        """Record the notification."""
        self._ran.add(payload['message'])


class OsloService:
    """An RPC server and a notification listener, as far as needed.

    Thread: owner only (the main thread).
    """

    def __init__(
        self, command: link.Command, ran: executions.Executions
    ) -> None:
        """Start to receive; a broker that is away makes this wait."""
        conf = transports.configuration(command)
        self._command = command
        self._started: list[Any] = []
        self._transports: list[Any] = []
        topic = command['topic']
        if transports.wants_rpc(command):
            transport = transports.rpc(conf, command)
            self._transports.append(transport)
            target = oslo_messaging.Target(
                topic=topic, server=f'server-{command["number"]}'
            )
            self._start(
                oslo_messaging.get_rpc_server(
                    transport,
                    target,
                    [Endpoint(ran)],
                    executor='threading',
                    access_policy=oslo_messaging.DefaultRPCAccessPolicy,
                )
            )
        if transports.wants_notifications(command):
            transport = transports.notifications(conf, command)
            self._transports.append(transport)
            self._start(
                oslo_messaging.get_notification_listener(
                    transport,
                    [oslo_messaging.Target(topic=topic)],
                    [NotificationEndpoint(ran)],
                    executor='threading',
                )
            )

    def _start(self, server: Any) -> None:
        self._started.append(server)
        server.start()

    def stop(self) -> None:
        """End it."""
        for server in self._started:
            server.stop()
            server.wait(timeout=link.GRACE)
        for transport in self._transports:
            transport.cleanup()
        transports.remove_directory(self._command)


class Server:
    """What the commands do.

    Thread: owner only (the main thread).
    """

    def __init__(self) -> None:
        """Begin without a service."""
        self._ran = executions.Executions()
        self._service: Service | None = None

    def start(self, command: link.Command) -> dict[str, Any]:
        """Serve a peer."""
        match command['kind']:
            case 'raw':
                self._service = raw_peer.Service(command)
            case 'grpc':
                self._service = grpc_peer.Service(command, self._ran)
            case _:
                self._service = OsloService(command, self._ran)
        return {}

    def begin(self, command: link.Command) -> dict[str, Any]:
        """Count a new run; return what is used until now."""
        self._ran.begin(command['run'])
        return link.sample(command)

    def count(self, command: link.Command) -> dict[str, Any]:
        """Return how many messages of a run were executed."""
        return self._ran.count(command['run'])

    def end(self, command: link.Command) -> dict[str, Any]:
        """Return what ran, and what was used until now."""
        used = link.sample(command)
        return {**self._ran.collect(command['run']), **used}

    def stop(self) -> None:
        """End the service."""
        if self._service is not None:
            self._service.stop()


def main() -> None:
    """Serve until the standard input ends."""
    pipe = link.begin()
    server = Server()
    pipe.serve(
        {
            'start': server.start,
            'begin': server.begin,
            'count': server.count,
            'end': server.end,
        }
    )
    server.stop()


if __name__ == '__main__':
    main()
