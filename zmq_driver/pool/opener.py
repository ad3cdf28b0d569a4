# SPDX-License-Identifier: Apache-2.0
"""Opens sockets, without the lock: for a lease, or ahead of one."""

from collections.abc import Callable
import logging
import math
import threading
from typing import Generic

from zmq_driver import clock as clocks
from zmq_driver.pool import allocator
from zmq_driver.pool import closer as closers
from zmq_driver.pool import entry as entries
from zmq_driver.pool import events
from zmq_driver.pool import options as pool_options
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

Entry = entries.PoolEntry

LOG = logging.getLogger(__name__)

#: The part of the maximum age that chance takes off, at most: sockets that
#: were opened together are not all opened again together.
AGE_JITTER = 0.1


class Opener(Generic[PeerT, SocketT]):
    """The way into the pool, for entries that are NEW.

    Thread: any.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[PeerT], SocketT],
        options: pool_options.PoolOptions,
        lock: threading.Lock,
        desk: allocator.Allocator[PeerT, SocketT],
        closer: closers.Closer[PeerT, SocketT],
        announcer: events.Announcer,
        clock: clocks.Clock,
        jitter: Callable[[], float],
    ) -> None:
        """Open sockets for the pool whose parts these are."""
        self._name = name
        self._factory = factory
        self._options = options
        self._lock = lock
        self._desk = desk
        self._books = desk.books
        self._closer = closer
        self._announcer = announcer
        self._clock = clock
        self._jitter = jitter
        # Held by the thread that opens sockets ahead.
        self._warming = threading.Lock()

    def open(
        self, entry: Entry[PeerT, SocketT], owner: threading.Thread
    ) -> SocketT | None:
        """Open the socket of a NEW entry, to lend it to *owner*.

        What the entry displaces is closed first. What the factory raises
        passes through.

        :param owner: the current thread, for which it was made
        :returns: the socket, whose entry is IN_USE; None if the pool is
            closing, and then the entry is RETIRING
        """
        if entry.displaces is not None:
            self._closer.finish([entry.displaces], owner)
        socket, max_age = self._make_socket(entry, owner)
        now = self._clock()
        with self._lock:
            self._books.holder = owner
            lent = self._desk.opened_locked(entry, now, max_age)
        self._announcer.tell(events.EventKind.OPENED, entry.home.peer)
        return socket if lent else None

    def warm(self, peer: PeerT) -> int:
        """Open sockets to *peer* until ``min_idle`` are idle.

        What the factory raises passes through.

        :returns: how many were opened; fewer if there is no room, 0 if
            another thread is at it, for whatever peer
        """
        if not self._warming.acquire(blocking=False):
            return 0
        try:
            opened = 0
            while self._warm_once(peer, threading.current_thread()):
                opened += 1
            return opened
        finally:
            self._warming.release()

    def warm_all(self) -> int:
        """Do what :meth:`warm` does for each peer that has a socket.

        An error of the factory is logged, and ends it.

        :returns: how many were opened
        """
        with self._lock:
            self._books.holder = threading.current_thread()
            peers = self._desk.cool_peers_locked()
        opened = 0
        for peer in peers:
            try:
                opened += self.warm(peer)
            except Exception as error:
                LOG.warning(
                    'pool %s: no socket to %r could be opened ahead, the '
                    'next run tries again: %s',
                    self._name,
                    peer,
                    error,
                )
                break
        return opened

    def _warm_once(self, peer: PeerT, owner: threading.Thread) -> bool:
        """Open one socket to *peer* ahead, if one is missing."""
        entry = None
        try:
            now = self._clock()
            with self._lock:
                self._books.holder = owner
                entry = self._desk.claim_ahead_locked(peer, owner, now)
            if entry is None:
                return False
            socket, max_age = self._make_socket(entry, owner)
            # Before it is anybody's.
            socket.hand_over(None)
            now = self._clock()
            with self._lock:
                self._books.holder = owner
                kept = self._desk.opened_ahead_locked(entry, now, max_age)
            self._announcer.tell(events.EventKind.OPENED, peer)
            if not kept:
                self._closer.finish([entry], owner)
        except BaseException:
            self._closer.abort(entry, None, owner)
            raise
        return kept

    def _make_socket(
        self, entry: Entry[PeerT, SocketT], owner: threading.Thread
    ) -> tuple[SocketT, float]:
        """Return a socket and the age that it may reach, in seconds."""
        entry.socket = socket = self._factory(entry.home.peer)
        socket.hand_over(owner)
        max_age = self._options.max_age
        if not max_age:
            return socket, math.inf
        return socket, max_age * (1.0 - AGE_JITTER * self._jitter())
