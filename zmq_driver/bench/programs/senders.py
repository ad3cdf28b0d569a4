# SPDX-License-Identifier: Apache-2.0
"""How a client thread sends one message of oslo.messaging."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from typing import Any

import oslo_messaging

from zmq_driver.bench.programs import link
from zmq_driver.bench.programs import transports

#: Sends a message with this id and payload; raises what went wrong.
Send = Callable[[list[int], str], None]


class WrongAnswer(Exception):
    """The answer is not what was sent."""


class OsloSender:
    """Sends through oslo.messaging.

    Thread: any.
    """

    def __init__(self, command: link.Command) -> None:
        """Make the transports that the patterns need."""
        conf = transports.configuration(command)
        self._command = command
        self._transports: list[Any] = []
        if transports.wants_rpc(command):
            transport = transports.rpc(conf, command)
            self._transports.append(transport)
            # get_rpc_client came with oslo.messaging 14.1.
            make = getattr(
                oslo_messaging, 'get_rpc_client', oslo_messaging.RPCClient
            )
            self._client = make(
                transport,
                oslo_messaging.Target(topic=command['topic']),
                timeout=command['timeout'],
            )
        if transports.wants_notifications(command):
            transport = transports.notifications(conf, command)
            self._transports.append(transport)
            self._notifier = oslo_messaging.Notifier(
                transport,
                publisher_id='zmq-driver-bench',
                driver='messagingv2',
                topics=[command['topic']],
            )

    @contextlib.contextmanager
    def opened(self, pattern: str, number: int) -> Iterator[Send]:
        """Give what sends."""
        yield getattr(self, f'_{pattern}')()

    def _call(self) -> Send:
        call = self._client.call

        def send(message: list[int], payload: str) -> None:
            if call({}, 'echo', message=message, payload=payload) != payload:
                raise WrongAnswer

        return send

    def _cast(self) -> Send:
        cast = self._client.cast

        def send(message: list[int], payload: str) -> None:
            cast({}, 'take', message=message, payload=payload)

        return send

    def _fanout(self) -> Send:
        cast = self._client.prepare(fanout=True).cast

        def send(message: list[int], payload: str) -> None:
            cast({}, 'take', message=message, payload=payload)

        return send

    def _notify(self) -> Send:
        info = self._notifier.info

        def send(message: list[int], payload: str) -> None:
            info({}, 'bench', {'message': message, 'payload': payload})

        return send

    def close(self) -> None:
        """End the transports."""
        for transport in self._transports:
            transport.cleanup()
        transports.remove_directory(self._command)
