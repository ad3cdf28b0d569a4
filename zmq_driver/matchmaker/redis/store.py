# SPDX-License-Identifier: Apache-2.0
"""What is in Redis: writing, reading and listing records."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import msgpack

from zmq_driver import address
from zmq_driver import clock
from zmq_driver.matchmaker.redis import connections as connections_
from zmq_driver.matchmaker.redis import scripts

#: Registrations in one run of a script, which nothing interrupts: some
#: milliseconds of the server's time.
CHUNK = 500

#: What is published at an address: the member of its sorted set.
Published = tuple[address.Address, bytes]


@dataclasses.dataclass(frozen=True)
class Times:
    """How long records live; all in seconds.

    Thread: any (immutable).
    """

    ttl: float
    #: Within this long all who live have renewed.
    settle: float
    #: So long nobody may have registered at all, or records may be missing
    #: that are not expired by their owners.
    gap: float

    @classmethod
    def of(cls, ttl: float, freq: float) -> 'Times':
        """Return the times for this TTL and this period of renewal."""
        # A record has at least ttl - freq left when Redis goes away, and the
        # gap must be noticed before the first one expires. But a single
        # member that renews in time must not look like a gap.
        gap = min(ttl, max(ttl / 2, freq * 1.1))
        return cls(ttl, settle=freq * 1.25 + 2.0, gap=gap)


class Found(NamedTuple):
    """The answer to a lookup."""

    members: list[bytes]
    #: Whether they are all.
    settled: bool
    #: If not: the members that left.
    gone: list[bytes]


class Listed(NamedTuple):
    """One record of a listing."""

    where: address.Address
    member: bytes
    #: Seconds until it expires.
    expires_in: float


class Store:
    """Records of one virtual host in Redis; each method is one round trip,
    but for very many records.

    Thread: any.
    """

    def __init__(
        self,
        connections: connections_.Connections,
        keys: scripts.Keys,
        times: Times,
    ) -> None:
        """Connect to nothing yet."""
        self._connections = connections
        self._keys = keys
        self._times = times

    def register(
        self, records: Sequence[Published], deadline: clock.Deadline
    ) -> int:
        """Publish records for one TTL more.

        :returns: how many were not there
        :raises base.MatchmakerUnavailable: not all were taken
        """
        times = self._times
        new = 0
        for chunk in _chunks(records):
            keys = [self._keys.index, self._keys.settled]
            arguments: list[Any] = [
                _milliseconds(times.ttl),
                _milliseconds(times.settle),
                _milliseconds(times.gap),
            ]
            for where, member in chunk:
                name = self._keys.name(where)
                keys.append(self._keys.at(name))
                arguments += [member, name, self._keys.channel(name)]
            new += sum(
                self._connections.run(
                    f'register {_names(chunk)}',
                    scripts.REGISTER,
                    keys,
                    arguments,
                    deadline,
                )
            )
        return new

    def unregister(
        self, records: Sequence[Published], deadline: clock.Deadline
    ) -> None:
        """Withdraw records; unknown ones are no error.

        :raises base.MatchmakerUnavailable: some may still be there
        """
        for chunk in _chunks(records):
            keys = [self._keys.index, self._keys.settled]
            arguments: list[Any] = []
            for where, member in chunk:
                name = self._keys.name(where)
                keys += [self._keys.at(name), self._keys.left(name)]
                arguments += [member, name, self._keys.channel(name)]
            self._connections.run(
                f'unregister {_names(chunk)}',
                scripts.UNREGISTER,
                keys,
                arguments,
                deadline,
            )

    def lookup(
        self, where: address.Address, deadline: clock.Deadline
    ) -> Found:
        """Return what is published at an address.

        :raises base.MatchmakerUnavailable: there is no answer
        """
        name = self._keys.name(where)
        keys = [
            self._keys.at(name),
            self._keys.settled,
            self._keys.left(name),
        ]
        members, settled, gone = self._connections.run(
            f'look up {where}', scripts.LOOKUP, keys, [], deadline
        )
        return Found(_unpack(members), bool(settled), _unpack(gone))

    def list(self, deadline: clock.Deadline) -> list[Listed]:
        """Return all records: one round trip for each address, and one.

        :raises base.MatchmakerUnavailable: there is no answer
        """
        found = []
        for encoded, _ in self._list(self._keys.index, deadline):
            try:
                name = encoded.decode()
                where = self._keys.address(name)
            except ValueError:
                continue  # Not ours.
            found += [
                Listed(where, member, left)
                for member, left in self._list(self._keys.at(name), deadline)
            ]
        return found

    def now(self, deadline: clock.Deadline) -> float:
        """Return the seconds since 1970 on the clock of the server.

        :raises base.MatchmakerUnavailable: there is no answer
        """
        found = self._connections.run(
            'ask the time', scripts.CLOCK, [], [], deadline
        )
        return int(found) / 1000

    def _list(
        self, key: str, deadline: clock.Deadline
    ) -> Iterator[tuple[bytes, float]]:
        found = self._connections.run(
            'list registrations', scripts.LIST, [key], [], deadline
        )
        for member, left in zip(found[::2], found[1::2], strict=True):
            yield member, int(left) / 1000


def _chunks(records: Sequence[Published]) -> Iterator[Sequence[Published]]:
    for start in range(0, len(records), CHUNK):
        yield records[start : start + CHUNK]


def _unpack(packed: bytes) -> list[bytes]:
    if not packed:
        return []
    found: list[bytes] = msgpack.unpackb(packed, raw=True)
    return found


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _names(records: Sequence[Published]) -> str:
    first = f'{records[0][0]!s:.200}'
    more = len(records) - 1
    return f'{first} and {more} more' if more else first
