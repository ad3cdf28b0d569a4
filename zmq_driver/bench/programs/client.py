# SPDX-License-Identifier: Apache-2.0
"""A client process of the benchmark."""

from typing import Any

from zmq_driver.bench import payload
from zmq_driver.bench.programs import grpc_peer
from zmq_driver.bench.programs import link
from zmq_driver.bench.programs import load
from zmq_driver.bench.programs import raw_peer
from zmq_driver.bench.programs import senders


class Client:
    """What the commands do.

    Thread: owner only (the main thread).
    """

    def __init__(self) -> None:
        """Begin without a peer."""
        self._sender: Any = None
        self._payloads: list[str] = []
        self._number = 0
        self._order: load.Order | None = None

    def start(self, command: link.Command) -> dict[str, Any]:
        """Make ready to send to a peer."""
        self._number = command['number']
        self._payloads = payload.make(command['payload'], command['seed'])
        match command['kind']:
            case 'raw':
                self._sender = raw_peer.Sender(command)
            case 'grpc':
                self._sender = grpc_peer.Sender(command)
            case _:
                self._sender = senders.OsloSender(command)
        return {}

    def prepare(self, command: link.Command) -> dict[str, Any]:
        """Start the threads of a run."""
        self._order = load.Order(
            self._sender, self._payloads, {**command, 'process': self._number}
        )
        return {}

    def go(self, command: link.Command) -> dict[str, Any]:
        """Let them send; return what they found."""
        if self._order is None:
            raise RuntimeError('nothing is prepared')
        order, self._order = self._order, None
        found = order.carry_out(command['patience'])
        return {**found, **link.sample(command)}

    def stop(self) -> None:
        """End the sender."""
        if self._sender is not None:
            self._sender.close()


def main() -> None:
    """Send until the standard input ends."""
    pipe = link.begin()
    client = Client()
    pipe.serve(
        {
            'start': client.start,
            'prepare': client.prepare,
            'go': client.go,
        }
    )
    client.stop()


if __name__ == '__main__':
    main()
