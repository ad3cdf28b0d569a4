# SPDX-License-Identifier: Apache-2.0
"""What is to be measured, and in which order."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import enum
import random
from typing import Any
from typing import NamedTuple

from zmq_driver.bench import masking


class BenchError(Exception):
    """The benchmark cannot go on; the text says why."""


class Pattern(enum.StrEnum):
    """How a message is sent."""

    CALL = 'call'
    CAST = 'cast'
    FANOUT = 'fanout'
    NOTIFY = 'notify'


class Kind(enum.StrEnum):
    """What a peer is."""

    OSLO = 'oslo'
    RAW = 'raw'
    GRPC = 'grpc'


#: Drivers of oslo.messaging that carry notifications only.
NOTIFICATIONS_ONLY = {'kafka'}

#: Names of the peers that have no URL.
RAW_NAME = 'raw pyzmq'
GRPC_NAME = 'gRPC'


@dataclasses.dataclass(frozen=True)
class Peer:
    """One thing that is measured.

    Thread: any (immutable).
    """

    #: What tables call it.
    name: str
    kind: Kind = Kind.OSLO
    #: The transport URL, which may hold a password.
    url: str = dataclasses.field(default='', repr=False)

    @property
    def shown(self) -> str:
        """The name, and the URL without login and query."""
        if not self.url:
            return self.name
        return f'{self.name} ({masking.shown(self.url)})'

    def carries(self, pattern: Pattern) -> bool:
        """Return whether the peer has this pattern."""
        if self.kind is not Kind.OSLO:
            return pattern is Pattern.CALL
        driver = self.url.partition('://')[0].partition('+')[0]
        return pattern is Pattern.NOTIFY or driver not in NOTIFICATIONS_ONLY


class Cell(NamedTuple):
    """A pattern with a number of threads in each client process."""

    pattern: Pattern
    threads: int


class Step(NamedTuple):
    """One measurement."""

    round: int
    cell: Cell
    peer: Peer


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be measured; times are in seconds.

    Thread: any (immutable).
    """

    peers: Sequence[Peer]
    patterns: Sequence[Pattern]
    #: Threads of each client process.
    threads: Sequence[int]
    #: The name of the peer that ratios are made to.
    baseline: str
    #: Client and server processes of each peer.
    processes: int = 1
    servers: int = 1
    #: Characters of a payload; None: as oslo.messaging's simulator.
    payload: int | None = None
    duration: float = 2.0
    warmup: float = 0.5
    rounds: int = 5
    #: What a thread sleeps after each message.
    think: float = 0.0
    #: For one message.
    timeout: float = 10.0
    #: Until servers have run what was sent.
    drain: float = 10.0
    #: Until all processes of a peer are ready.
    start_timeout: float = 30.0
    config_files: Sequence[str] = ()
    #: Makes payloads and the order of the peers.
    seed: int = 1

    def cells(self) -> Iterator[Cell]:
        """Yield what is measured of each peer."""
        for pattern in self.patterns:
            for threads in self.threads:
                yield Cell(pattern, threads)

    def steps(self) -> Iterator[Step]:
        """Yield every measurement, in the order of the run."""
        chance = random.Random(self.seed)
        for number in range(self.rounds):
            for cell in self.cells():
                peers = [p for p in self.peers if p.carries(cell.pattern)]
                chance.shuffle(peers)
                for peer in peers:
                    yield Step(number, cell, peer)

    def patterns_of(self, peer: Peer) -> list[Pattern]:
        """Return the patterns that are measured of a peer."""
        return [pattern for pattern in self.patterns if peer.carries(pattern)]

    def as_json(self) -> dict[str, Any]:
        """Return the plan without what is secret."""
        found = dataclasses.asdict(self)
        found['peers'] = [
            {
                'name': peer.name,
                'kind': peer.kind,
                'url': masking.shown(peer.url),
            }
            for peer in self.peers
        ]
        return found
