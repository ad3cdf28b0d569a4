# SPDX-License-Identifier: Apache-2.0
"""The floor: a ping-pong with nothing but pyzmq, over ipc."""

from collections.abc import Iterator
import contextlib
import threading

import zmq

from zmq_driver import clock
from zmq_driver import context
from zmq_driver.bench.programs import link
from zmq_driver.bench.programs import senders

#: Bytes in front of the payload, about what a driver's header takes.
HEADER = b'h' * 60
#: Seconds between two looks whether to end.
_SLICE = 0.2
_END = 2.0
#: More than a client has threads.
_MAX_SOCKETS = 2048


def endpoint(command: link.Command, number: int) -> str:
    """Return where a server listens: in no directory, so nothing is left."""
    return f'ipc://@{command["topic"]}-{number}'


class Service:
    """A ROUTER that sends back what it receives.

    Thread: owner only (the main thread).
    """

    def __init__(self, command: link.Command) -> None:
        """Bind, and start to answer."""
        self._context = context.DriverContext('bench', 1, 8)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.rcvtimeo = int(_SLICE * 1000)
        self._socket.bind(endpoint(command, command['number']))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        socket = self._socket
        while not self._ending.is_set():
            try:
                while True:
                    socket.send_multipart(socket.recv_multipart())
            except zmq.Again:
                continue
        socket.close()

    def stop(self) -> None:
        """End it."""
        self._ending.set()
        self._thread.join(_END)
        self._context.close(clock.Deadline(_END))


class Sender:
    """Makes a DEALER for each thread.

    Thread: any.
    """

    def __init__(self, command: link.Command) -> None:
        """Make the context."""
        self._command = command
        self._timeout_ms = int(command['timeout'] * 1000)
        self._context = context.DriverContext('bench', 1, _MAX_SOCKETS)
        self._encoded: dict[str, bytes] = {}

    @contextlib.contextmanager
    def opened(self, pattern: str, number: int) -> Iterator[senders.Send]:
        """Give what sends; the calling thread alone may use it."""
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = self._timeout_ms
        server = number % self._command['servers']
        socket.connect(endpoint(self._command, server))
        encoded = self._encoded

        def send(message: list[int], payload: str) -> None:
            body = encoded.get(payload)
            if body is None:
                body = encoded.setdefault(payload, payload.encode())
            socket.send_multipart((HEADER, body))
            if socket.recv_multipart()[1] != body:
                raise senders.WrongAnswer

        try:
            yield send
        finally:
            socket.close()

    def close(self) -> None:
        """End it."""
        self._context.close(clock.Deadline(_END))
