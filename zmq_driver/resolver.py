# SPDX-License-Identifier: Apache-2.0
"""Finds the addresses of host names without holding anybody up.

``getaddrinfo`` has no time-out: while a name server is silent it waits for
half a minute. libzmq calls it on its I/O thread, where it would stop the
heartbeats of every connection. So it runs on threads of its own, and whoever
needs an answer waits as long as it likes.
"""

import collections
import logging
import socket as posix
import threading

import cachetools

from zmq_driver import clock as clock_
from zmq_driver import errors
from zmq_driver import threads

LOG = logging.getLogger(__name__)

#: Seconds for which addresses are used again. They are forgotten at once when
#: none of them can be connected to.
TTL = 30.0
#: Names whose addresses are remembered.
MAX_NAMES = 4096
#: Names that are looked up at once; others wait in a queue.
MAX_THREADS = 16
#: Addresses of one name that are tried.
MAX_ADDRESSES = 4


class Lookup:
    """One name on its way to its addresses.

    Thread: any (written before ``done`` is set).
    """

    __slots__ = ('_addresses', '_done', '_problem', 'host')

    def __init__(self, host: str) -> None:
        """Begin without an answer."""
        self.host = host
        self._done = threading.Event()
        self._addresses: tuple[str, ...] = ()
        self._problem: object = None

    def end(
        self, addresses: tuple[str, ...] = (), problem: object = None
    ) -> None:
        """Give everybody who waits the answer."""
        self._addresses = addresses
        self._problem = problem
        self._done.set()

    def wait(self, timeout: float) -> tuple[str, ...] | None:
        """Return the addresses as ``tcp://`` endpoints need them.

        :param timeout: seconds
        :returns: None if there is no answer yet
        :raises errors.PeerNotReady: the name has no address
        """
        if not self._done.wait(timeout):
            return None
        if not self._addresses:
            raise errors.PeerNotReady(
                f'host {self.host!r} has no address: {self._problem}'
            )
        return self._addresses


class Resolver:
    """Looks up names on a few threads that end when nothing is left to do.

    Thread: any.
    """

    def __init__(
        self, driver_id: str, clock: clock_.Clock = clock_.monotonic
    ) -> None:
        """Make a resolver without a thread.

        :param driver_id: names the threads
        """
        self._driver_id = driver_id
        self._lock = threading.Lock()
        self._known: cachetools.TTLCache[str, tuple[str, ...]] = (
            cachetools.TTLCache(MAX_NAMES, TTL, clock)
        )
        self._flights: dict[str, Lookup] = {}
        self._queue: collections.deque[Lookup] = collections.deque()
        self._workers = 0
        self._closed = False

    def lookup(self, host: str) -> Lookup:
        """Begin to look up a name, or join others who do; does not wait."""
        start = False
        with self._lock:
            known = self._known.get(host)
            flight = self._flights.get(host)
            if known is None and flight is None and not self._closed:
                flight = self._flights[host] = Lookup(host)
                self._queue.append(flight)
                start = self._workers < MAX_THREADS
                self._workers += start
        if start:
            self._start_worker()
        if known is None and flight is not None:
            return flight
        answer = Lookup(host)
        answer.end(known or (), 'the transport was cleaned up')
        return answer

    def forget(self, host: str) -> None:
        """Ask again next time: the addresses were of no use."""
        with self._lock:
            self._known.pop(host, None)

    def close(self) -> None:
        """Look up nothing more; who waits gets an error.

        The system is left alone with what it is asked already: it cannot be
        interrupted.
        """
        with self._lock:
            self._closed = True
            self._queue.clear()
            flights = list(self._flights.values())
            self._flights.clear()
        for flight in flights:
            flight.end(problem='the transport was cleaned up')

    def _start_worker(self) -> None:
        try:
            threads.ServiceThread(
                'resolver', self._driver_id, self._work
            ).start()
        except RuntimeError as error:
            # The limit of threads is reached.
            with self._lock:
                self._workers -= 1
                left = [] if self._workers else list(self._queue)
                for flight in left:
                    self._queue.remove(flight)
                    self._flights.pop(flight.host, None)
            for flight in left:
                flight.end(problem=error)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._workers -= 1
                    return
                flight = self._queue.popleft()
            addresses: tuple[str, ...] = ()
            problem: object = None
            try:
                addresses = _addresses(flight.host)
            except (OSError, ValueError) as error:
                problem = error
            with self._lock:
                self._flights.pop(flight.host, None)
                if addresses and not self._closed:
                    self._known[flight.host] = addresses
            flight.end(addresses, problem)


def _addresses(host: str) -> tuple[str, ...]:
    """Ask the system, which may take long."""
    found: dict[str, None] = {}
    for family, _kind, _proto, _name, place in posix.getaddrinfo(
        host, None, type=posix.SOCK_STREAM
    ):
        if family == posix.AF_INET6:
            found[f'[{place[0]}]'] = None
        elif family == posix.AF_INET:
            found[str(place[0])] = None
    return tuple(found)[:MAX_ADDRESSES]
