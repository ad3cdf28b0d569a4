# SPDX-License-Identifier: Apache-2.0
"""The connections over which stored notifications go to listeners."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

from zmq_driver import address
from zmq_driver import clock as clock_
from zmq_driver import counters as counters_
from zmq_driver import sockets
from zmq_driver.client import routing as routing_
from zmq_driver.client import stream as stream_
from zmq_driver.store import base as store_

#: Listeners of a pool that are connected to at once.
STREAMS = 8

#: What is to be sent to each listener.
Batches = dict[store_.Holder, list[stream_.Item]]

_Key = tuple[store_.Holder, str]


class Streams:
    """One stream to each member of a pool that is sent something.

    Thread: drain.
    """

    def __init__(
        self,
        routing: routing_.Routing,
        open_socket: Callable[[str], sockets.PeerSocket],
        counters: counters_.Counters,
        clock: clock_.Clock,
    ) -> None:
        """Begin with none.

        :param open_socket: opens a socket to an endpoint, which can queue
            ``socket_options.PIPE_STREAMED`` messages
        """
        self._routing = routing
        self._open_socket = open_socket
        self._counters = counters
        self._clock = clock
        self._streams: dict[_Key, stream_.Stream] = {}

    def __iter__(self) -> Iterator[tuple[str, stream_.Stream]]:
        """Give each stream, with the pool that it is for."""
        for (_, pool), stream in tuple(self._streams.items()):
            yield pool, stream

    def carry(self) -> bool:
        """Return whether something is under way."""
        return any(stream.under_way for stream in self._streams.values())

    def connect(self) -> bool:
        """Return whether a connection is being made."""
        return any(
            stream.state is not stream_.State.READY
            for stream in self._streams.values()
        )

    def are_starved(self) -> bool:
        """Return whether this process cannot make a connection."""
        return any(stream.is_starved for stream in self._streams.values())

    def tidy(self) -> None:
        """Close those that nobody needs any more."""
        for key, stream in tuple(self._streams.items()):
            if stream.is_over():
                stream.close()
                del self._streams[key]

    def close(self) -> None:
        """Close all."""
        while self._streams:
            self._streams.popitem()[1].close()

    def members(
        self,
        where: address.Address,
        pool: str,
        routes: Sequence[address.Route],
    ) -> list[stream_.Stream]:
        """Return connections to members of a pool, in turn."""
        suspects = self._routing.suspects
        usable = [r for r in routes if not suspects.has_stopped(r)]
        known: list[stream_.Stream] = []
        others: list[store_.Holder] = []
        for route in self._routing.in_turn(where, pool, usable):
            holder = store_.Holder(route.endpoint, route.incarnation)
            stream = self._streams.get((holder, pool))
            if stream is None:
                others.append(holder)
            elif stream.state is not stream_.State.GONE:
                known.append(stream)
        for holder in others[: max(0, STREAMS - len(known))]:
            known.append(self.get(holder, pool))
        return known

    def get(self, holder: store_.Holder, pool: str) -> stream_.Stream:
        """Return the connection to a member of a pool, made if need be."""
        stream = self._streams.get((holder, pool))
        if stream is None:
            stream = self._streams[holder, pool] = stream_.Stream(
                holder, self._open_socket, self._counters, self._clock
            )
        return stream


def freest(
    members: Sequence[stream_.Stream],
    batches: Batches,
) -> stream_.Stream | None:
    """Return the member that has most room besides what it is to get."""
    best, most = None, 0
    for stream in members:
        room = stream.room() - len(batches.get(stream.holder, ()))
        if room > most:
            best, most = stream, room
    return best
