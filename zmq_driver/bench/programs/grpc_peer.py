# SPDX-License-Identifier: Apache-2.0
"""A unary call of gRPC that does the JSON work of an RPC."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
from typing import Any

from oslo_serialization import jsonutils

from zmq_driver.bench.programs import executions
from zmq_driver.bench.programs import link
from zmq_driver.bench.programs import senders

#: Threads of the server: as many as oslo.messaging's executor has by default.
WORKERS = 64
_SERVICE = 'zmq_driver.Bench'
_METHOD = 'echo'
_END = 2.0


def endpoint(command: link.Command, number: int) -> str:
    """Return where a server listens: in no directory, so nothing is left."""
    return f'unix-abstract:{command["topic"]}-{number}'


class Service:
    """A gRPC server on a Unix socket.

    Thread: owner only (the main thread).
    """

    def __init__(
        self, command: link.Command, ran: executions.Executions
    ) -> None:
        """Bind, and start to answer."""
        import grpc

        def echo(request: bytes, context: Any) -> bytes:
            message = jsonutils.loads(request)
            arguments = message['args']
            ran.add(arguments['message'])
            return jsonutils.dump_as_bytes({'result': arguments['payload']})

        self._server = grpc.server(futures.ThreadPoolExecutor(WORKERS))
        handler = grpc.unary_unary_rpc_method_handler(echo)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    _SERVICE, {_METHOD: handler}
                ),
            )
        )
        self._server.add_insecure_port(endpoint(command, command['number']))
        self._server.start()

    def stop(self) -> None:
        """End it."""
        self._server.stop(_END).wait(2 * _END)


class Sender:
    """One channel to each server, which all threads share.

    Thread: any.
    """

    def __init__(self, command: link.Command) -> None:
        """Make the channels."""
        import grpc

        self._timeout = command['timeout']
        self._channels = [
            grpc.insecure_channel(endpoint(command, number))
            for number in range(command['servers'])
        ]
        self._calls = [
            channel.unary_unary(f'/{_SERVICE}/{_METHOD}')
            for channel in self._channels
        ]

    @contextlib.contextmanager
    def opened(self, pattern: str, number: int) -> Iterator[senders.Send]:
        """Give what sends."""
        call = self._calls[number % len(self._calls)]
        timeout = self._timeout

        def send(message: list[int], payload: str) -> None:
            request = jsonutils.dump_as_bytes(
                {
                    'method': 'echo',
                    'args': {'message': message, 'payload': payload},
                }
            )
            answer = jsonutils.loads(call(request, timeout=timeout))
            if answer['result'] != payload:
                raise senders.WrongAnswer

        yield send

    def close(self) -> None:
        """End it."""
        for channel in self._channels:
            channel.close()
