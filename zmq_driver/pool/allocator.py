# SPDX-License-Identifier: Apache-2.0
"""The pool's decisions: who gets which entry, who waits, what is closed.

They are made under the pool's lock, and nothing is done: no socket is
called, nothing waits, nothing is logged. What is to be done is returned to
:mod:`zmq_driver.pool.socket_pool`, which does it without the lock.
"""

import math
import threading
from typing import Generic

from zmq_driver.pool import entry as entries
from zmq_driver.pool import errors
from zmq_driver.pool import ledger
from zmq_driver.pool import options as pool_options
from zmq_driver.pool import state as states
from zmq_driver.pool import waiters
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

Entry = entries.PoolEntry

# Looking a member up in its class costs more than a global name.
_IDLE = states.EntryState.IDLE
_RESERVED = states.EntryState.RESERVED
_IN_USE = states.EntryState.IN_USE
_OPEN = states.PoolState.OPEN


class Allocator(Generic[PeerT, SocketT]):
    """Gives the slots and the idle entries of a pool to those who ask.

    What comes free is given at once to the longest waiting thread that it
    can serve. So whoever finds something free overtakes nobody by taking it.

    Thread: caller holds the pool lock.
    """

    __slots__ = ('_check_held', '_options', 'books', 'queue')

    def __init__(
        self,
        options: pool_options.PoolOptions,
        books: ledger.Ledger[PeerT, SocketT],
    ) -> None:
        """Begin with empty books and without waiters.

        :param options: the limits
        :param books: what there is to give
        """
        self._options = options
        self._check_held = books.check_held
        self.books = books
        self.queue: waiters.WaitQueue[PeerT, SocketT] = waiters.WaitQueue()

    # -- checkout

    def claim_locked(
        self, peer: PeerT, owner: threading.Thread, now: float
    ) -> Entry[PeerT, SocketT] | None:
        """Give a newcomer an entry, if it need not wait for one.

        :returns: an entry IN_USE; or a NEW one whose socket *owner* is to
            open, after closing the one that it displaces; or None. An
            IN_USE entry with a ``reason`` must not be lent.
        """
        self._check_held()
        books = self.books
        if books.state is not _OPEN:
            return None
        home = books.peers.get(peer)
        if home is not None and home.idle:
            entry = home.idle[-1]
            books.take_locked(entry, _IN_USE, owner, now)
            if entry.expires_at <= now:
                entry.reason = states.EvictReason.AGE
            return entry
        if self._has_room_locked(home):
            return self._add_locked(peer, owner, now)
        return None

    def _has_room_locked(
        self, home: entries.PeerPool[PeerT, SocketT] | None
    ) -> bool:
        """Return whether a socket may be opened to the peer of *home*."""
        self._check_held()
        if home is not None and home.size >= self._options.max_per_peer:
            return False
        books = self.books
        if books.slots < self._options.max_size:
            return True
        return books.counts[_IDLE] > 0

    def _add_locked(
        self, peer: PeerT, owner: threading.Thread, now: float
    ) -> Entry[PeerT, SocketT]:
        """Make a NEW entry where there is room, or can be."""
        self._check_held()
        books = self.books
        entry = books.add_locked(peer, owner, now)
        if books.slots < self._options.max_size:
            books.slots += 1
        else:
            books.displace_locked(entry, now)
        return entry

    def opened_locked(
        self,
        entry: Entry[PeerT, SocketT],
        now: float,
        max_age: float = math.inf,
    ) -> bool:
        """Take note that the socket of a NEW entry is open.

        :param max_age: seconds after which it is too old to be lent
        :returns: whether it is IN_USE now; otherwise it is to be closed
        """
        self._check_held()
        self.books.note_opened_locked(entry, now, max_age)
        if self.books.state is _OPEN:
            self.books.move_locked(entry, _IN_USE)
            return True
        reason = states.EvictReason.POOL_CLOSED
        self.books.retire_locked(entry, entry.owner, reason, now)
        return False

    # -- warm-up

    def cool_peers_locked(self) -> list[PeerT]:
        """Return the peers with fewer idle sockets than ``min_idle``."""
        self._check_held()
        least = self._options.min_idle
        return [
            home.peer
            for home in self.books.peers.values()
            if len(home.idle) < least
        ]

    def claim_ahead_locked(
        self, peer: PeerT, owner: threading.Thread, now: float
    ) -> Entry[PeerT, SocketT] | None:
        """Give *owner* a NEW entry, if *peer* lacks an idle socket.

        It is in nobody's way: it takes a free slot or none.
        """
        self._check_held()
        books = self.books
        if books.state is not _OPEN or books.slots >= self._options.max_size:
            return None
        home = books.peers.get(peer)
        idle, size = (len(home.idle), home.size) if home else (0, 0)
        if idle >= self._options.min_idle or size >= (
            self._options.max_per_peer
        ):
            return None
        return self._add_locked(peer, owner, now)

    def opened_ahead_locked(
        self,
        entry: Entry[PeerT, SocketT],
        now: float,
        max_age: float = math.inf,
    ) -> bool:
        """Take note that a socket is open that nobody has asked for.

        :param max_age: seconds after which it is too old to be lent
        :returns: whether it is IDLE or a waiter's now; otherwise it is to be
            closed
        """
        self._check_held()
        self.books.note_opened_locked(entry, now, max_age)
        self.books.totals.warmed += 1
        reason = self.unfit_locked(entry, now)
        if reason is not None:
            self.books.retire_locked(entry, entry.owner, reason, now)
            return False
        self.books.put_behind_locked(entry, now)
        self.serve_locked(now)
        return True

    # -- release

    def checkin_locked(
        self,
        entry: Entry[PeerT, SocketT],
        reason: states.EvictReason | None,
        now: float,
    ) -> bool:
        """End a lease.

        :param reason: why the borrower wants the socket closed, if so
        :returns: whether the entry is RETIRING now: to be closed
        """
        self._check_held()
        reason = reason or self.unfit_locked(entry, now)
        if reason is not None:
            self.books.retire_locked(entry, entry.owner, reason, now)
            return True
        self.books.put_locked(entry, now)
        self.books.totals.recycled += 1
        if self.queue:
            self.serve_locked(now)
        return False

    def unfit_locked(
        self, entry: Entry[PeerT, SocketT], now: float
    ) -> states.EvictReason | None:
        """Return why *entry* may not be lent (again), if so."""
        self._check_held()
        if self.books.state is not _OPEN:
            return states.EvictReason.POOL_CLOSED
        if entry.generation != entry.home.generation:
            return states.EvictReason.STALE
        if entry.expires_at <= now:
            return states.EvictReason.AGE
        return None

    # -- waiting

    def enqueue_locked(
        self, peer: PeerT, owner: threading.Thread, may_wait: bool
    ) -> waiters.Waiter[PeerT, SocketT] | type[errors.PoolError]:
        """Let *owner* wait, or say with which error it may not."""
        self._check_held()
        if self.books.state is not _OPEN:
            return errors.PoolClosed
        if not may_wait:
            self.books.totals.timeouts += 1
            return errors.PoolTimeout
        if len(self.queue) >= self._options.max_waiters:
            self.books.totals.refused += 1
            return errors.TooManyWaiters
        waiter: waiters.Waiter[PeerT, SocketT] = waiters.Waiter(peer, owner)
        self.queue.add(waiter)
        self.books.totals.waits += 1
        return waiter

    def serve_locked(self, now: float) -> None:
        """Give what came free to the waiters it can serve, in their order."""
        self._check_held()
        books = self.books
        while self.queue:
            ready = [w for w in self.queue.heads() if self.is_ready_locked(w)]
            if not ready:
                return
            waiter = min(ready, key=lambda waiter: waiter.ticket)
            self.queue.remove(waiter)
            home = books.peers.get(waiter.peer)
            if home is not None and home.idle:
                entry = home.idle[-1]
                books.take_locked(entry, _RESERVED, waiter.owner, now)
            else:
                entry = self._add_locked(waiter.peer, waiter.owner, now)
            waiter.offer(entry)

    def is_ready_locked(self, waiter: waiters.Waiter[PeerT, SocketT]) -> bool:
        """Return whether *waiter* could be served now."""
        self._check_held()
        home = self.books.peers.get(waiter.peer)
        if home is not None and home.idle:
            return True
        return self._has_room_locked(home)

    def end_wait_locked(
        self,
        waiter: waiters.Waiter[PeerT, SocketT],
        waited: float,
        now: float,
    ) -> Entry[PeerT, SocketT] | type[errors.PoolError]:
        """Take note that *waiter* does not wait any longer.

        :param waited: seconds
        :returns: the entry it was given, IN_USE or NEW, or the error that
            ends its checkout. An IN_USE entry with a ``reason`` must not be
            lent.
        """
        self._check_held()
        totals = self.books.totals
        totals.wait_seconds += waited
        totals.wait_seconds_max = max(totals.wait_seconds_max, waited)
        if self.queue.remove(waiter):
            totals.timeouts += 1
            return errors.PoolTimeout
        entry = waiter.entry
        if entry is None:
            return errors.PoolClosed
        totals.handed_off += 1
        if entry.state is _RESERVED:
            self.books.move_locked(entry, _IN_USE)
            entry.held_at = now
            entry.reason = self.unfit_locked(entry, now)
        return entry

    # -- the end of entries

    def bury_locked(
        self, dead: list[Entry[PeerT, SocketT]], now: float
    ) -> None:
        """Close *dead*, whose sockets are closed, and give their slots on."""
        self._check_held()
        for entry in dead:
            self.books.bury_locked(entry)
        self.serve_locked(now)

    def replace_locked(
        self, dead: Entry[PeerT, SocketT], owner: threading.Thread, now: float
    ) -> Entry[PeerT, SocketT] | None:
        """Close *dead*, whose socket is closed, and give *owner* another.

        The slot is his, so he need not wait (again). If he takes an idle
        entry instead, the slot is of no use to those who wait: as long as an
        entry was idle, slots were not what they lacked.

        :returns: an entry as for :meth:`claim_locked`; None only if the
            pool is closing
        """
        self._check_held()
        self.books.bury_locked(dead)
        return self.claim_locked(dead.home.peer, owner, now)

    def clear_locked(
        self, peer: PeerT, owner: threading.Thread, now: float
    ) -> list[Entry[PeerT, SocketT]]:
        """Make every entry of *peer* stale, and retire the idle ones.

        :returns: the entries that *owner* is to close
        """
        self._check_held()
        home = self.books.peers.get(peer)
        if home is None:
            return []
        home.generation += 1
        doomed = list(home.idle)
        for entry in doomed:
            self.books.retire_locked(
                entry, owner, states.EvictReason.STALE, now
            )
        return doomed

    def start_closing_locked(
        self, owner: threading.Thread, now: float
    ) -> list[Entry[PeerT, SocketT]]:
        """Refuse the waiters and retire the idle entries.

        :returns: the entries that *owner* is to close
        """
        self._check_held()
        self.books.move_pool_locked(states.PoolState.CLOSING)
        for waiter in self.queue.drain():
            waiter.refuse()
        doomed = self.books.idle_locked()
        for entry in doomed:
            self.books.retire_locked(
                entry, owner, states.EvictReason.POOL_CLOSED, now
            )
        return doomed

    def abort_locked(
        self,
        entry: Entry[PeerT, SocketT] | None,
        waiter: object,
        owner: threading.Thread,
        now: float,
    ) -> list[Entry[PeerT, SocketT]]:
        """Give up what *owner* got hold of in an operation that failed.

        It may have failed anywhere, because an interrupt can come anywhere.

        :param entry: what it had, if it had got so far
        :param waiter: in whose name it waited, if it is a Waiter
        :returns: the entries that *owner* is to close
        """
        self._check_held()
        if entry is None and isinstance(waiter, waiters.Waiter):
            self.queue.remove(waiter)
            entry = waiter.entry
        if entry is None or entry.owner is not owner:
            return []
        if entry.state is states.EntryState.CLOSED:
            return []
        doomed = [entry]
        if entry.displaces is not None:
            doomed.append(entry.displaces)
        if entry.socket is not None:
            if entry.state is states.EntryState.NEW:
                self.books.note_opened_locked(entry, now)
            if entry.state is not states.EntryState.RETIRING:
                self.books.retire_locked(
                    entry, owner, states.EvictReason.UNFINISHED, now
                )
        return doomed
