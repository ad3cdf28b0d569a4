# SPDX-License-Identifier: Apache-2.0
"""The real socket pool, with a clock and sockets that are not real.

Each run drives one ``zmq_driver.pool.SocketPool`` with the traffic of one
process, for as long as it takes to see what becomes of its sockets.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import heapq
import itertools
import random
import threading

from scaling import inputs
from zmq_driver import clock as clocks
from zmq_driver import pool as pool_

#: The reaper's thread goes by real time: it sleeps, and we call the reaper.
NEVER = 1e9


class Socket:
    """What a pool asks of a socket.

    Thread: any one.
    """

    def hand_over(self, owner: threading.Thread | None) -> None:
        pass

    def healthy(self) -> bool:
        return True

    def close(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of the leases of a run; the warm-up is left out."""

    leases: int
    hit_ratio: float
    #: Open sockets: on average, and at most.
    open_mean: float
    open_most: int
    #: Sockets closed to make room for another peer, per lease.
    displaced: float
    #: Leases that had to wait, because all sockets were in use.
    waited: int


class Simulation:
    """Events in the order of their time, and a pool that they use.

    Thread: any one.
    """

    def __init__(
        self,
        max_size: int,
        idle_ttl: float,
        seed: int = 1,
        max_per_peer: int = inputs.POOL_MAX_PER_PEER,
    ) -> None:
        """Begin at second 0, with an empty pool."""
        self.now = 0.0
        self.random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._waited = 0
        self._samples: list[int] = []
        self._most = 0
        self.pool: pool_.SocketPool[int, Socket] = pool_.SocketPool(
            'simulated',
            lambda peer: Socket(),
            pool_.PoolOptions(
                max_size=max_size,
                max_per_peer=min(max_per_peer, max_size),
                idle_ttl=idle_ttl,
                max_age=inputs.POOL_MAX_AGE,
                reap_interval=NEVER,
            ),
            clock=lambda: self.now,
            jitter=self.random.random,
        )

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def exchange(
        self,
        peer: int,
        seconds: float,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Use a socket to *peer* for *seconds*; wait for it if need be."""
        try:
            lease = self.pool.checkout(
                peer, clocks.Deadline(0.0, clock=lambda: self.now)
            )
        except pool_.PoolTimeout:
            self._waited += 1
            self.at(
                self.now + seconds, lambda: self.exchange(peer, seconds, then)
            )
            return

        def end() -> None:
            lease.release()
            if then is not None:
                then()

        self.at(self.now + seconds, end)

    def run(self, warm_up: float, until: float) -> Result:
        """Go on until there is nothing more to do, or until *until*."""
        self.at(0.0, self._reap)
        first = self.pool.stats()
        while self._events and self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            if self.now < warm_up <= when:
                first = self.pool.stats()
                self._waited = self._most = 0
                self._samples = []
            self.now = when
            what()
        last = self.pool.stats()
        self.pool.close(clocks.Deadline(0.0))
        return self._result(first, last)

    def _reap(self) -> None:
        stats = self.pool.stats()
        self._samples.append(stats.idle + stats.in_use)
        self._most = max(self._most, self._samples[-1])
        self.pool.reap()
        self.at(self.now + inputs.POOL_REAP_INTERVAL, self._reap)

    def _result(self, first: pool_.PoolStats, last: pool_.PoolStats) -> Result:
        hits = last.reused_total - first.reused_total
        opened = last.created_total - first.created_total
        leases = hits + opened
        surplus = pool_.EvictReason.SURPLUS
        closed = last.closed_total[surplus] - first.closed_total[surplus]
        return Result(
            leases=leases,
            hit_ratio=hits / leases if leases else 0.0,
            open_mean=sum(self._samples) / max(1, len(self._samples)),
            open_most=self._most,
            displaced=closed / leases if leases else 0.0,
            waited=self._waited,
        )


def fanouts(
    listeners: int,
    max_size: int,
    interval: float,
    idle_ttl: float = inputs.POOL_IDLE_TTL,
    count: int = 8,
    copy: float = 0.001,
) -> Result:
    """Send *count* fanouts to the same listeners, after one that connects.

    :param interval: seconds between two, on average
    :param copy: seconds until a copy is acknowledged
    """
    simulation = Simulation(max_size, idle_ttl)
    times = [0.0]
    for _ in range(count):
        times.append(
            times[-1] + interval * simulation.random.uniform(0.5, 1.5)
        )
    for when in times:
        simulation.at(when, lambda: _fan_out(simulation, listeners, copy))
    # What the last one takes.
    end = times[-1] + listeners * copy + 1.0
    return simulation.run(warm_up=times[1], until=end)


def _fan_out(simulation: Simulation, listeners: int, copy: float) -> None:
    peers = iter(range(listeners))

    def one() -> None:
        peer = next(peers, None)
        if peer is not None:
            simulation.exchange(peer, copy, one)

    for _ in range(inputs.FANOUT_WINDOW):
        one()


def periodic_caller(
    workers: int,
    schedule: tuple[tuple[float, int], ...],
    idle_ttl: float = inputs.POOL_IDLE_TTL,
    hours: float = 8.0,
    call: float = 0.02,
    max_size: int = inputs.POOL_MAX_SIZE,
) -> Result:
    """Make calls now and then, to *workers* in turn.

    :param schedule: of each task its period in seconds, and its calls, which
        follow one another
    """
    simulation = Simulation(max_size, idle_ttl)
    turns = itertools.count(simulation.random.randrange(workers))

    def task(period: float, calls: int) -> None:
        _in_a_row(simulation, turns, workers, calls, call)
        # oslo.service spreads its tasks a little.
        pause = period * simulation.random.uniform(0.95, 1.05)
        simulation.at(simulation.now + pause, lambda: task(period, calls))

    for period, calls in schedule:
        begin = period * simulation.random.random()
        simulation.at(begin, lambda p=period, c=calls: task(p, c))
    end = hours * 3600.0
    return simulation.run(warm_up=end / 4, until=end)


def _in_a_row(
    simulation: Simulation,
    turns: Iterator[int],
    workers: int,
    calls: int,
    call: float,
) -> None:
    def one(left: int) -> None:
        if left:
            simulation.exchange(
                next(turns) % workers, call, lambda: one(left - 1)
            )

    one(calls)


def random_caster(
    nodes: int,
    rate: float,
    max_size: int = inputs.POOL_MAX_SIZE,
    idle_ttl: float = inputs.POOL_IDLE_TTL,
    leases: int = 8000,
) -> Result:
    """Cast to nodes at random, *rate* times a second."""
    simulation = Simulation(max_size, idle_ttl)

    def cast() -> None:
        simulation.exchange(simulation.random.randrange(nodes), 0.001)
        pause = simulation.random.expovariate(rate)
        simulation.at(simulation.now + pause, cast)

    cast()
    end = leases / rate
    return simulation.run(warm_up=end / 4, until=end)
