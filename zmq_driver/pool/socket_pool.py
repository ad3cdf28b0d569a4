# SPDX-License-Identifier: Apache-2.0
"""The pool: lends sockets to threads, one thread and one peer per socket."""

from collections.abc import Callable
import logging
import os
import random
import threading
from typing import Generic

from zmq_driver import clock as clocks
from zmq_driver.pool import allocator
from zmq_driver.pool import closer
from zmq_driver.pool import entry as entries
from zmq_driver.pool import errors
from zmq_driver.pool import events
from zmq_driver.pool import invariants
from zmq_driver.pool import leaks
from zmq_driver.pool import lease as leases
from zmq_driver.pool import ledger
from zmq_driver.pool import opener as openers
from zmq_driver.pool import options as pool_options
from zmq_driver.pool import reaper as reapers
from zmq_driver.pool import state as states
from zmq_driver.pool import stats as pool_stats
from zmq_driver.pool import waiters
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

Entry = entries.PoolEntry

LOG = logging.getLogger(__name__)

# Looking a member up in its class costs more than a global name.
_CHECKED_OUT = events.EventKind.CHECKED_OUT
_CHECKED_IN = events.EventKind.CHECKED_IN


class SocketPool(Generic[PeerT, SocketT]):
    """Sockets to many peers, kept open between exchanges.

    A socket is used by the thread that checked it out, and by no other. The
    lock is held only to decide; sockets are opened, examined and closed, and
    the listener is called, without it.

    Signal handlers and destructors may not use a pool: they would wait for
    the lock of a thread that waits for them.

    Thread: any.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[PeerT], SocketT],
        options: pool_options.PoolOptions,
        *,
        clock: clocks.Clock = clocks.monotonic,
        jitter: Callable[[], float] = random.random,
        on_event: events.Listener | None = None,
    ) -> None:
        """Make an open pool without sockets, threads or descriptors.

        :param name: how messages call the pool, and its thread
        :param factory: opens a socket to a peer; runs on the borrower's
            thread and must not block on the network
        :param options: the limits
        :param clock: source of monotonic seconds
        :param jitter: source of numbers from 0.0 to 1.0, one per socket
        :param on_event: called with every event, on the thread that caused
            it, without any lock held
        """
        self.name = name
        self.options = options
        self._clock = clock
        self._announcer = events.Announcer(name, on_event)
        self._pid = os.getpid()
        # Protects the books and the wait queue.
        self._lock = threading.Lock()
        self._books: ledger.Ledger[PeerT, SocketT] = ledger.Ledger(self._lock)
        self._desk = allocator.Allocator(options, self._books)
        self._closer = closer.Closer(
            self._lock, self._desk, self._announcer, clock
        )
        self._opener = openers.Opener(
            name,
            factory,
            options,
            self._lock,
            self._desk,
            self._closer,
            self._announcer,
            clock,
            jitter,
        )
        self._reaper = reapers.Reaper(
            options, self._lock, self._desk, self._closer, clock
        )
        self._thread = reapers.ReaperThread(f'zmq-reaper-{name}', self.reap)
        self._leaks = leaks.LeakDetector(
            name,
            options.leak_after,
            self._lock,
            self._books,
            self._announcer,
            clock,
        )
        self._keeps_stacks = bool(options.leak_after)

    # -- leases

    def checkout(
        self, peer: PeerT, deadline: clocks.Deadline
    ) -> leases.SocketLease[PeerT, SocketT]:
        """Lend the current thread a socket to *peer*.

        An idle socket is preferred to a new one, the one used last to the
        others; one that is too old or unhealthy is replaced. Where the
        limits allow neither, the least recently used idle socket of another
        peer makes room. Failing that, the thread waits until the deadline;
        with one that has passed, it does not wait.

        What the factory raises passes through.

        :raises PoolTimeout: no socket came free in time
        :raises TooManyWaiters: too many threads are waiting already
        :raises PoolClosed: the pool is closing, closed or inherited
        """
        owner = threading.current_thread()
        if os.getpid() != self._pid:
            raise self._inherited()
        entry = waiter = None
        now = self._clock()
        try:
            with self._lock:
                self._books.holder = owner
                entry = self._desk.claim_locked(peer, owner, now)
                if entry is None:
                    waiter = self._desk.enqueue_locked(
                        peer, owner, not deadline.passed()
                    )
            if waiter is not None:
                entry = self._wait(peer, waiter, owner, deadline)
            while entry is not None and entry.socket is not None:
                socket = entry.socket
                socket.hand_over(owner)
                if entry.reason is None and self._is_healthy(socket):
                    if self._keeps_stacks:
                        entry.stack = leaks.caller_stack()
                    if self._announcer:
                        self._announcer.tell(_CHECKED_OUT, peer)
                    return leases.SocketLease(
                        self._checkin, entry, socket, owner, False
                    )
                entry = self._closer.replace(entry, owner)
            lease = self._open(peer, entry, owner)
            if entry is not None and self._keeps_stacks:
                entry.stack = leaks.caller_stack()
            return lease
        except BaseException:
            self._closer.abort(entry, waiter, owner)
            raise

    def _wait(
        self,
        peer: PeerT,
        waiter: waiters.Waiter[PeerT, SocketT] | type[errors.PoolError],
        owner: threading.Thread,
        deadline: clocks.Deadline,
    ) -> Entry[PeerT, SocketT]:
        """Wait for an entry, IN_USE or NEW, unless that was refused."""
        if not isinstance(waiter, waiters.Waiter):
            raise self._refusal(waiter, peer, 0.0)
        since = self._clock()
        self._announcer.tell(events.EventKind.WAITING, peer)
        waiter.wait(deadline.left())
        now = self._clock()
        with self._lock:
            self._books.holder = owner
            outcome = self._desk.end_wait_locked(waiter, now - since, now)
        if isinstance(outcome, Entry):
            return outcome
        raise self._refusal(outcome, peer, now - since)

    def _open(
        self,
        peer: PeerT,
        entry: Entry[PeerT, SocketT] | None,
        owner: threading.Thread,
    ) -> leases.SocketLease[PeerT, SocketT]:
        """Open the socket of a NEW entry, and lend it."""
        socket = None
        if entry is not None:
            if self.options.needs_upkeep:
                self._thread.start(self.options.reap_interval)
            socket = self._opener.open(entry, owner)
        if entry is None or socket is None:
            # The caller closes what a failed checkout leaves behind.
            raise self._refusal(errors.PoolClosed, peer, 0.0)
        self._announcer.tell(_CHECKED_OUT, peer)
        return leases.SocketLease(self._checkin, entry, socket, owner, True)

    def _is_healthy(self, socket: SocketT) -> bool:
        try:
            return socket.healthy()
        except Exception:
            LOG.exception(
                'pool %s: %r could not be examined', self.name, socket
            )
            return False

    def _checkin(
        self,
        entry: Entry[PeerT, SocketT],
        owner: threading.Thread,
        reason: states.EvictReason | None,
    ) -> None:
        """End the lease of *entry*; the lease calls it."""
        if os.getpid() != self._pid:
            # The socket is the parent's, and so may be the lock's holder.
            return
        try:
            if reason is None and entry.socket is not None:
                entry.socket.hand_over(None)
            now = self._clock()
            with self._lock:
                self._books.holder = owner
                retired = self._desk.checkin_locked(entry, reason, now)
            if self._announcer:
                self._announcer.tell(_CHECKED_IN, entry.home.peer)
            if retired:
                self._closer.finish([entry], owner)
        except BaseException:
            self._closer.abort(entry, None, owner)
            raise

    # -- before and after leases

    def warm(self, peer: PeerT) -> int:
        """Open sockets to *peer* until ``min_idle`` are idle.

        It does not wait, nor take a slot from anybody. The thread of the
        pool does the same, once per ``reap_interval``, for each peer that
        has a socket. What the factory raises passes through.

        :returns: how many were opened; fewer than are missing if there is no
            room, 0 if another thread warms the pool up
        """
        if os.getpid() != self._pid or not self.options.min_idle:
            return 0
        self._thread.start(self.options.reap_interval)
        return self._opener.warm(peer)

    def clear(self, peer: PeerT) -> None:
        """Let no socket to *peer* be lent again that is open now.

        Idle ones are closed at once, leased ones at the end of their lease.
        It does not block.
        """
        if os.getpid() != self._pid:
            return
        owner = threading.current_thread()
        now = self._clock()
        with self._lock:
            self._books.holder = owner
            doomed = self._desk.clear_locked(peer, owner, now)
        try:
            self._announcer.tell(events.EventKind.CLEARED, peer)
        finally:
            self._closer.finish(doomed, owner)

    def reap(self) -> int:
        """Close idle sockets that are too old, unhealthy or idle too long.

        Peers are given the ``min_idle`` sockets that they lack, and leases
        that last for longer than ``leak_after`` are logged. A thread of the
        pool calls it every ``reap_interval`` if any of these options asks
        for it. It does not block.

        :returns: how many were closed; 0 if another run is under way
        """
        if os.getpid() != self._pid:
            return 0
        closed = self._reaper.reap()
        if self.options.min_idle:
            self._opener.warm_all()
        self._leaks.tell()
        return closed

    def close(self, deadline: clocks.Deadline) -> list[leases.AbandonedLease]:
        """Lend nothing more, and wait until everything has come back.

        Waiters and new checkouts fail at once with PoolClosed. It may be
        called again, and by several threads.

        :returns: what has not come back by the deadline; whoever releases
            it later closes its socket then
        """
        if os.getpid() != self._pid:
            return []
        owner = threading.current_thread()
        books = self._books
        doomed: list[Entry[PeerT, SocketT]] = []
        now = self._clock()
        with self._lock:
            books.holder = owner
            found = books.state
            if found is states.PoolState.OPEN:
                doomed = self._desk.start_closing_locked(owner, now)
        if found is states.PoolState.OPEN:
            try:
                self._announcer.tell(events.EventKind.POOL_CLOSING)
            finally:
                self._closer.finish(doomed, owner)
        if found is not states.PoolState.CLOSED:
            left = min(deadline.left(), threading.TIMEOUT_MAX)
            self._closer.drained.wait(left)
        self._thread.stop(min(deadline.left(), threading.TIMEOUT_MAX))
        return self._end_closing(owner)

    def _end_closing(
        self, owner: threading.Thread
    ) -> list[leases.AbandonedLease]:
        """Wait for nothing more; return what is left."""
        books = self._books
        now = self._clock()
        with self._lock:
            books.holder = owner
            is_last = books.state is states.PoolState.CLOSING
            if is_last:
                books.move_pool_locked(states.PoolState.CLOSED)
            held = [(e.home.peer, e.owner, e.held_at) for e in books.entries]
        if is_last:
            self._announcer.tell(events.EventKind.POOL_CLOSED)
        return [
            leases.AbandonedLease(peer, holder.name, now - held_at)
            for peer, holder, held_at in held
            if holder is not None
        ]

    # -- what others see

    @property
    def state(self) -> states.PoolState:
        """OPEN, CLOSING or CLOSED."""
        return self._books.state

    def stats(self) -> pool_stats.PoolStats:
        """Return the figures of this moment.

        :raises PoolClosed: the pool was inherited by a forked process
        """
        if os.getpid() != self._pid:
            raise self._inherited()
        with self._lock:
            self._books.holder = threading.current_thread()
            return self._books.snapshot_locked(len(self._desk.queue))

    def check_invariants(self) -> None:
        """Raise AssertionError if the books do not add up; for tests."""
        with self._lock:
            self._books.holder = threading.current_thread()
            invariants.check_locked(self._desk, self.options)

    def __repr__(self) -> str:
        # Without the lock: figures of slightly different moments are better
        # than a log line that blocks.
        counts = self._books.counts
        return (
            f'<SocketPool {self.name!r} {self._books.state.name} '
            f'[peers: {len(self._books.peers)} | '
            f'sockets: {counts[states.EntryState.IN_USE]} in use, '
            f'{counts[states.EntryState.IDLE]} idle | '
            f'waiting: {len(self._desk.queue)}]>'
        )

    def _inherited(self) -> errors.PoolClosed:
        return errors.PoolClosed(
            f'pool {self.name!r} was inherited from process {self._pid}'
        )

    def _refusal(
        self, kind: type[errors.PoolError], peer: PeerT, waited: float
    ) -> errors.PoolError:
        """Return the error that ends a checkout, with the figures."""
        books = self._books
        with self._lock:
            books.holder = threading.current_thread()
            home = books.peers.get(peer)
            size = 0 if home is None else home.size
            slots, waiting = books.slots, len(self._desk.queue)
            name = books.state.name
        return kind(
            f'no socket to {peer!r} after {waited:.3f} s: '
            f'pool {self.name!r} is {name}, '
            f'{size} of {self.options.max_per_peer} sockets to this peer, '
            f'{slots} of {self.options.max_size} in all, '
            f'{waiting} of {self.options.max_waiters} waiting'
        )
