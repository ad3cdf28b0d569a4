# SPDX-License-Identifier: Apache-2.0
"""The pool's books: where every entry is, and the steps it can take."""

import collections
import math
import threading
from typing import Generic

from zmq_driver.pool import entry as entries
from zmq_driver.pool import state as states
from zmq_driver.pool import stats
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

Entry = entries.PoolEntry

# Looking a member up in its class costs more than a global name.
_NEW = states.EntryState.NEW
_IDLE = states.EntryState.IDLE
_RESERVED = states.EntryState.RESERVED
_RETIRING = states.EntryState.RETIRING
_CLOSED = states.EntryState.CLOSED
_TRANSITIONS = states.TRANSITIONS

#: Why a socket is closed whose connection was lost.
_LOST = (states.EvictReason.UNHEALTHY, states.EvictReason.STALE)
#: Peers that are remembered to have been lost; those lost first are forgotten
#: first, for many never come back.
MOST_LOST = 10_000


class Ledger(Generic[PeerT, SocketT]):
    """What the lock of a pool protects, but for the wait queue.

    A *slot* is the right to have one socket; there are ``max_size``. Each
    entry has one, except that a NEW entry and the RETIRING one it displaces
    share one: the displaced socket is closed before the new one is opened.

    Thread: caller holds the pool lock.
    """

    __slots__ = (
        '_lock',
        '_lost',
        'counts',
        'entries',
        'examined',
        'holder',
        'lru',
        'peers',
        'slots',
        'state',
        'totals',
    )

    def __init__(self, lock: threading.Lock) -> None:
        """Open empty books.

        :param lock: the pool's
        """
        self._lock = lock
        #: The thread that took the lock last; whoever takes it, says so.
        self.holder: threading.Thread | None = None
        #: The pool's.
        self.state = states.PoolState.OPEN
        #: All entries that are not CLOSED.
        self.entries: set[Entry[PeerT, SocketT]] = set()
        #: The same by peer.
        self.peers: dict[PeerT, entries.PeerPool[PeerT, SocketT]] = {}
        #: The one that the reaper looks at, RESERVED.
        self.examined: Entry[PeerT, SocketT] | None = None
        #: The idle ones and that one, the least recently used first.
        self.lru: collections.OrderedDict[Entry[PeerT, SocketT], None] = (
            collections.OrderedDict()
        )
        #: Peers to which a connection was lost and none was opened since.
        self._lost: collections.OrderedDict[PeerT, None] = (
            collections.OrderedDict()
        )
        #: How many entries are in each state.
        self.counts = [0] * len(states.EntryState)
        #: Slots taken.
        self.slots = 0
        self.totals = stats.Totals()

    def check_held(self) -> None:
        """Raise unless the current thread holds the pool lock."""
        if (
            self.holder is not threading.current_thread()
            or not self._lock.locked()
        ):
            raise AssertionError('the pool lock is not held by this thread')

    def move_locked(
        self, entry: Entry[PeerT, SocketT], new: states.EntryState
    ) -> None:
        """Bring *entry* into state *new*; nothing else sets its state."""
        self.check_held()
        old = entry.state
        if new not in _TRANSITIONS[old]:
            raise AssertionError(f'an entry goes from {old!r} to {new!r}')
        entry.state = new
        self.counts[old] -= 1
        self.counts[new] += 1

    def move_pool_locked(self, new: states.PoolState) -> None:
        """Bring the pool into state *new*; nothing else sets its state."""
        self.check_held()
        if new not in states.POOL_TRANSITIONS[self.state]:
            raise AssertionError(f'a pool goes from {self.state!r} to {new!r}')
        self.state = new

    def add_locked(
        self, peer: PeerT, owner: threading.Thread, now: float
    ) -> Entry[PeerT, SocketT]:
        """Make a NEW entry, whose socket *owner* is to open.

        Its slot is the caller's business.
        """
        self.check_held()
        home = self.peers.get(peer)
        if home is None:
            home = self.peers[peer] = entries.PeerPool(peer)
        entry = entries.PoolEntry(home, owner, now)
        home.size += 1
        self.entries.add(entry)
        self.counts[_NEW] += 1
        return entry

    def note_opened_locked(
        self,
        entry: Entry[PeerT, SocketT],
        now: float,
        max_age: float = math.inf,
    ) -> None:
        """Take note that the socket of a NEW *entry* is open.

        :param max_age: seconds after which it is too old to be lent
        """
        self.check_held()
        self.totals.created += 1
        entry.born_at = now
        entry.expires_at = now + max_age
        if entry.home.peer in self._lost:
            del self._lost[entry.home.peer]
            self.totals.reconnects += 1

    def put_behind_locked(
        self, entry: Entry[PeerT, SocketT], now: float
    ) -> None:
        """Make *entry* IDLE, as if it had been used least recently.

        Its connection may not stand yet: others are better.
        """
        self.move_locked(entry, _IDLE)
        entry.owner = None
        idle = entry.home.idle
        entry.idle_at = now
        if idle:
            # The smallest step that keeps the order one of time.
            entry.idle_at = math.nextafter(idle[0].idle_at, -math.inf)
        idle.appendleft(entry)
        self.lru[entry] = None
        self.lru.move_to_end(entry, last=False)

    def put_locked(self, entry: Entry[PeerT, SocketT], now: float) -> None:
        """Make *entry* IDLE."""
        self.move_locked(entry, _IDLE)
        entry.owner = None
        entry.idle_at = now
        entry.home.idle.append(entry)
        self.lru[entry] = None

    def take_locked(
        self,
        entry: Entry[PeerT, SocketT],
        new: states.EntryState,
        owner: threading.Thread,
        now: float,
    ) -> None:
        """Bring *entry*, the idle one of its peer used last, into *new*."""
        self.move_locked(entry, new)
        entry.home.idle.pop()
        del self.lru[entry]
        entry.owner = owner
        entry.held_at = now
        self.totals.reused += 1

    def idle_locked(self) -> list[Entry[PeerT, SocketT]]:
        """Return the idle entries, the least recently used first."""
        self.check_held()
        return [entry for entry in self.lru if entry.state is _IDLE]

    def reserve_locked(
        self,
        entry: Entry[PeerT, SocketT],
        owner: threading.Thread,
        now: float,
    ) -> None:
        """Set an IDLE *entry* aside for the reaper; it keeps its place."""
        self.move_locked(entry, _RESERVED)
        entry.home.idle.remove(entry)
        entry.owner = owner
        entry.held_at = now
        self.examined = entry

    def give_back_locked(self, entry: Entry[PeerT, SocketT]) -> None:
        """Make the *entry* that the reaper looked at IDLE again."""
        self.move_locked(entry, _IDLE)
        entry.owner = self.examined = None
        idle = entry.home.idle
        place = len(idle)
        while place and idle[place - 1].idle_at > entry.idle_at:
            place -= 1
        idle.insert(place, entry)

    def retire_locked(
        self,
        entry: Entry[PeerT, SocketT],
        owner: threading.Thread | None,
        reason: states.EvictReason,
        now: float,
    ) -> None:
        """Make *entry* RETIRING; *owner* is to close its socket."""
        self.check_held()
        if entry.state is _IDLE:
            del self.lru[entry]
            entry.home.idle.remove(entry)
        elif entry is self.examined:
            del self.lru[entry]
            self.examined = None
        self.move_locked(entry, _RETIRING)
        entry.owner = owner
        entry.held_at = now
        entry.reason = reason

    def displace_locked(
        self, entry: Entry[PeerT, SocketT], now: float
    ) -> None:
        """Give a NEW *entry* the slot of the least recently used idle one."""
        self.check_held()
        victim = next(e for e in self.lru if e.state is _IDLE)
        reason = states.EvictReason.SURPLUS
        self.retire_locked(victim, entry.owner, reason, now)
        entry.displaces, victim.heir = victim, entry

    def bury_locked(self, entry: Entry[PeerT, SocketT]) -> None:
        """Close *entry*, whose socket is closed or was never opened."""
        self.move_locked(entry, _CLOSED)
        self.entries.remove(entry)
        home = entry.home
        home.size -= 1
        if not home.size:
            del self.peers[home.peer]
        if entry.reason is not None:
            self.totals.closed[entry.reason] += 1
            if entry.reason in _LOST:
                self._note_lost_locked(home.peer)
        self._free_slot_locked(entry)

    def _note_lost_locked(self, peer: PeerT) -> None:
        self.check_held()
        self._lost[peer] = None
        if len(self._lost) > MOST_LOST:
            self._lost.popitem(last=False)

    def _free_slot_locked(self, entry: Entry[PeerT, SocketT]) -> None:
        self.check_held()
        heir, victim = entry.heir, entry.displaces
        if heir is not None:
            heir.displaces = entry.heir = None
        elif victim is not None:
            victim.heir = entry.displaces = None
        else:
            self.slots -= 1

    def is_drained(self) -> bool:
        """Return whether the pool is closing and has no entries left.

        The lock need not be held: once true, it stays so.
        """
        return self.state is not states.PoolState.OPEN and not self.entries

    def snapshot_locked(self, waiting: int) -> stats.PoolStats:
        """Return the figures of this moment.

        :param waiting: the length of the wait queue
        """
        self.check_held()
        counts, totals = self.counts, self.totals
        return stats.PoolStats(
            peers=len(self.peers),
            opening=counts[states.EntryState.NEW],
            idle=counts[states.EntryState.IDLE],
            reserved=counts[states.EntryState.RESERVED],
            in_use=counts[states.EntryState.IN_USE],
            retiring=counts[states.EntryState.RETIRING],
            waiting=waiting,
            created_total=totals.created,
            warmed_total=totals.warmed,
            reconnects_total=totals.reconnects,
            recycled_total=totals.recycled,
            reused_total=totals.reused,
            replaced_total=totals.replaced,
            closed_total=dict(totals.closed),
            reaped_total=totals.reaped,
            waits_total=totals.waits,
            wait_seconds_total=totals.wait_seconds,
            wait_seconds_max=totals.wait_seconds_max,
            handed_off_total=totals.handed_off,
            timeouts_total=totals.timeouts,
            refused_total=totals.refused,
        )
