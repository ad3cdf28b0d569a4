# SPDX-License-Identifier: Apache-2.0
"""What is addressed, and where it is found: plain values.

Tuples, because they are the keys of every cache on the way of a message and
hash at the speed of C.
"""

import enum
from typing import NamedTuple


class Scope(enum.IntEnum):
    """The two name spaces that never meet, whatever the topics are called."""

    RPC = 0
    NOTIFICATION = 1


class Address(NamedTuple):
    """What a matchmaker is asked for."""

    #: RPC servers or notification listeners.
    scope: Scope
    #: The exchange of the target, already defaulted.
    exchange: str
    #: The topic; for notifications ``topic.priority``.
    topic: str

    def __str__(self) -> str:
        return f'{self.scope.name.lower()} {self.exchange}/{self.topic}'


class Route(NamedTuple):
    """One listener that an address leads to."""

    #: What the listener's ROUTER is bound to, as libzmq spells it.
    endpoint: str
    #: 16 random bytes made when the listener was created.
    incarnation: bytes
    #: The RPC server's name, or the listener pool of a notification listener
    #: ('' is the pool of those that named none).
    server: str


class Registration(NamedTuple):
    """A listener's entry at the matchmaker: an address and its route."""

    address: Address
    route: Route
    #: The same listener for other hosts, ``tcp://host:port``; '' if none.
    tcp_endpoint: str = ''
