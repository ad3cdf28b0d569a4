# SPDX-License-Identifier: Apache-2.0
"""The last message of a router that ends, to each connection."""

import collections
from collections.abc import Iterator

from zmq_driver import envelope

#: Connections that are remembered; those that were silent for longest are
#: not.
MAX_CONNECTIONS = 10_000

#: The message id that stands for everything that has no answer yet.
ALL_UNANSWERED = bytes(envelope.ID_SIZE)

#: For a request that was sent again it does not say what became of the first
#: copy, which is just what UNKNOWN_TARGET means.
_NACK = envelope.encode_nack(
    ALL_UNANSWERED, envelope.NackReason.UNKNOWN_TARGET
)


class Farewell:
    """Remembers the connections, as soon as they are made.

    A request may be on its way when the router closes its socket. Nobody
    reads it, but its sender would see only that the connection is gone. So
    the last that a connection carries is a NACK for all that was not
    answered: who reads it knows that nothing ran.

    Thread: router.
    """

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        """Begin with none.

        :param most: connections that are remembered
        """
        self._most = most
        self._heard: collections.OrderedDict[bytes, None] = (
            collections.OrderedDict()
        )

    def heard(self, routing_id: bytes) -> None:
        """Remember a connection."""
        heard = self._heard
        heard[routing_id] = None
        heard.move_to_end(routing_id)
        if len(heard) > self._most:
            heard.popitem(last=False)

    def messages(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Give the last message to each, as frames.

        They are true only if every request that was taken is answered, and
        if nothing is read any more.
        """
        while self._heard:
            routing_id, _ = self._heard.popitem()
            yield routing_id, _NACK, b''


def is_one(header: envelope.Header) -> bool:
    """Return whether a message answers all that is unanswered."""
    return (
        header.kind is envelope.Kind.NACK
        and header.message_id == ALL_UNANSWERED
    )
