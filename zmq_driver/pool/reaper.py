# SPDX-License-Identifier: Apache-2.0
"""Closes idle sockets that are of no more use, in the background."""

import collections
from collections.abc import Callable
import logging
import threading
from typing import Generic
import weakref

from zmq_driver import clock as clocks
from zmq_driver.pool import allocator
from zmq_driver.pool import closer as closers
from zmq_driver.pool import entry as entries
from zmq_driver.pool import options as pool_options
from zmq_driver.pool import state as states
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

Entry = entries.PoolEntry

LOG = logging.getLogger(__name__)

# Looking a member up in its class costs more than a global name.
_RESERVED = states.EntryState.RESERVED
_RETIRING = states.EntryState.RETIRING

#: How many idle sockets to each peer a run has found fit so far.
Kept = collections.Counter[entries.PeerPool[PeerT, SocketT]]


class Reaper(Generic[PeerT, SocketT]):
    """Looks through the idle entries of a pool, one at a time.

    An entry is its own while it looks at it: nobody else is given it, and
    whoever wants one takes another or opens one. The lock is held only to
    take one entry and to give it back.

    Thread: any; one run at a time.
    """

    def __init__(
        self,
        options: pool_options.PoolOptions,
        lock: threading.Lock,
        desk: allocator.Allocator[PeerT, SocketT],
        closer: closers.Closer[PeerT, SocketT],
        clock: clocks.Clock,
    ) -> None:
        """Look after the pool whose parts these are."""
        self._options = options
        self._lock = lock
        self._desk = desk
        self._books = desk.books
        self._check_held = desk.books.check_held
        self._closer = closer
        self._clock = clock
        # Held by the run that is under way.
        self._running = threading.Lock()

    def reap(self) -> int:
        """Look at each entry that is idle now, once.

        The most recently used come first, so that they are the ones that
        ``min_idle`` keeps.

        :returns: how many were closed; 0 if another run is under way
        """
        if not self._running.acquire(blocking=False):
            return 0
        try:
            owner = threading.current_thread()
            with self._lock:
                self._books.holder = owner
                found = self._books.idle_locked()
            kept: Kept[PeerT, SocketT] = collections.Counter()
            return sum(
                self._look_at(entry, owner, kept) for entry in reversed(found)
            )
        finally:
            self._running.release()

    def _look_at(
        self,
        entry: Entry[PeerT, SocketT],
        owner: threading.Thread,
        kept: Kept[PeerT, SocketT],
    ) -> bool:
        """Close *entry* if it is of no more use and still idle."""
        try:
            now = self._clock()
            with self._lock:
                self._books.holder = owner
                step = self._take_locked(entry, owner, kept, now)
            if step is _RESERVED:
                socket = entry.socket
                fit = socket is not None and self._is_fit(socket, owner)
                now = self._clock()
                with self._lock:
                    self._books.holder = owner
                    step = self._decide_locked(entry, fit, kept, now)
            if step is not _RETIRING:
                return False
            self._closer.finish([entry], owner)
        except BaseException:
            self._closer.abort(entry, None, owner)
            raise
        return True

    def _take_locked(
        self,
        entry: Entry[PeerT, SocketT],
        owner: threading.Thread,
        kept: Kept[PeerT, SocketT],
        now: float,
    ) -> states.EntryState | None:
        """Make *entry* RETIRING if its time is up, else RESERVED.

        :returns: its new state; None if it has been taken meanwhile
        """
        self._check_held()
        if entry.state is not states.EntryState.IDLE:
            return None
        entry.notice_time(now)
        reason = self._desk.unfit_locked(entry, now)
        if reason is None and self._is_idle_too_long(entry, kept, now):
            reason = states.EvictReason.IDLE
        if reason is None:
            self._books.reserve_locked(entry, owner, now)
            return _RESERVED
        return self._retire_locked(entry, owner, reason, now)

    def _is_idle_too_long(
        self,
        entry: Entry[PeerT, SocketT],
        kept: Kept[PeerT, SocketT],
        now: float,
    ) -> bool:
        ttl = self._options.idle_ttl
        if not ttl or now - entry.idle_at < ttl:
            return False
        return kept[entry.home] >= self._options.min_idle

    def _decide_locked(
        self,
        entry: Entry[PeerT, SocketT],
        fit: bool,
        kept: Kept[PeerT, SocketT],
        now: float,
    ) -> states.EntryState:
        """Make a RESERVED *entry* IDLE again, or RETIRING.

        :returns: its new state, which may change once the lock is free
        """
        self._check_held()
        reason = self._desk.unfit_locked(entry, now)
        if reason is None and not fit:
            reason = states.EvictReason.UNHEALTHY
        if reason is not None:
            return self._retire_locked(entry, entry.owner, reason, now)
        kept[entry.home] += 1
        self._books.give_back_locked(entry)
        self._desk.serve_locked(now)
        return states.EntryState.IDLE

    def _retire_locked(
        self,
        entry: Entry[PeerT, SocketT],
        owner: threading.Thread | None,
        reason: states.EvictReason,
        now: float,
    ) -> states.EntryState:
        self._check_held()
        self._books.retire_locked(entry, owner, reason, now)
        self._books.totals.reaped += 1
        return _RETIRING

    def _is_fit(self, socket: SocketT, owner: threading.Thread) -> bool:
        """Ask the socket whether it is healthy, and put it down again."""
        try:
            socket.hand_over(owner)
            healthy = socket.healthy()
            socket.hand_over(None)
        except Exception:
            LOG.exception('%r could not be examined', socket)
            return False
        return healthy


class ReaperThread:
    """Calls a reaper again and again, from the first socket to the end.

    It is a daemon, and holds its pool by a weak reference only: neither the
    process nor a pool that was forgotten lives on because of it.

    Thread: any.
    """

    def __init__(self, name: str, reap: Callable[[], object]) -> None:
        """Describe the thread; nothing runs yet.

        :param name: of the thread
        :param reap: a bound method, called once per interval; what it raises
            is logged
        """
        self._name = name
        self._reap = weakref.WeakMethod(reap)
        # So that only one is started.
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, interval: float) -> None:
        """Start the thread, unless that was done, or it was to end already.

        :param interval: seconds between two calls
        """
        wait = min(interval, threading.TIMEOUT_MAX)
        with self._lock:
            if self._thread is not None or self._end.is_set():
                return
            self._thread = thread = threading.Thread(
                target=_run,
                args=(self._reap, self._end, wait),
                name=self._name,
                daemon=True,
            )
        try:
            thread.start()
        except RuntimeError:
            # No thread is left; sockets are closed when others are needed.
            LOG.exception('%s could not be started', self._name)

    def stop(self, timeout: float) -> None:
        """End the thread, if it runs.

        :param timeout: seconds to wait for its end
        """
        self._end.set()
        thread = self._thread
        if (
            thread is not None
            and thread is not threading.current_thread()
            and thread.is_alive()
        ):
            thread.join(timeout)


def _run(
    reference: 'weakref.WeakMethod[Callable[[], object]]',
    end: threading.Event,
    interval: float,
) -> None:
    while not end.wait(interval):
        reap = reference()
        if reap is None:
            return
        try:
            reap()
        except Exception:
            LOG.exception('a pool could not be looked after')
        del reap
