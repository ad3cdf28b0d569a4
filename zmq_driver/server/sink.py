# SPDX-License-Identifier: Apache-2.0
"""What a router hands to a listener, and what a listener is to it."""

from typing import Any
from typing import NamedTuple
from typing import Protocol

from zmq_driver import envelope
from zmq_driver.server import recent as recent_


class Delivery(NamedTuple):
    """One request as it came in."""

    #: Where the reply goes, and what keeps it from running twice.
    record: recent_.Record
    header: envelope.Header
    #: The request body as it was on the wire.
    body: bytes
    ctxt: dict[str, Any]
    message: dict[str, Any]


class Sink(Protocol):
    """What the router delivers to.

    Thread: router.
    """

    #: The 16 bytes that senders name the listener by.
    incarnation: bytes

    def serves(self, header: envelope.Header) -> bool:
        """Return whether *header* is addressed to this listener."""

    def deliver(self, delivery: Delivery) -> envelope.NackReason | None:
        """Take a request, or say why not; does not wait."""
