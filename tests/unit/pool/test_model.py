# SPDX-License-Identifier: Apache-2.0
"""Decisions compared with a model that is too simple to be wrong.

The allocator decides without doing anything, so its threads can be names and
its sockets can be missing: Hypothesis looks for the sequence of decisions
that breaks an invariant or the order of the waiting ones.
"""

import threading

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
import pytest

from zmq_driver import pool
from zmq_driver.pool import allocator
from zmq_driver.pool import invariants
from zmq_driver.pool import ledger
from zmq_driver.pool import state

PEERS = 'abcd'
OPTIONS = pool.PoolOptions(max_size=3, max_per_peer=2, max_waiters=4)

State = state.EntryState


class Socket:
    """Opened; that is all the books know about sockets."""


class PoolMachine(stateful.RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.lock.acquire()
        self.books = ledger.Ledger(self.lock)
        self.books.holder = threading.current_thread()
        self.desk = allocator.Allocator(OPTIONS, self.books)
        self.now = 0.0
        self.waiting = []
        self.threads = 0

    def tick(self):
        self.now += 1.0
        return self.now

    def entries(self, *wanted):
        """Return the entries in the wanted states, in a stable order."""
        return sorted(
            (e for e in self.books.entries if e.state in wanted),
            key=lambda e: e.owner.name if e.owner else '',
        )

    def pick(self, data, found):
        hypothesis.assume(found)
        return found[data.draw(st.integers(0, len(found) - 1))]

    def expected(self, peer, idle):
        """Return whom the entry that is about to come free should serve.

        :param peer: its peer
        :param idle: whether it will be idle; otherwise its slot is free
        """
        sizes = dict.fromkeys(PEERS, 0)
        for entry in self.books.entries:
            sizes[entry.home.peer] += 1
        if not idle:
            sizes[peer] -= 1
        for waiter in self.waiting:
            if idle and waiter.peer == peer:
                return waiter
            if sizes[waiter.peer] < OPTIONS.max_per_peer:
                return waiter
        return None

    def check_served(self, expected):
        served = [w for w in self.waiting if w.entry is not None]
        assert served == ([expected] if expected else [])
        if not served:
            return
        self.waiting.remove(expected)
        entry = self.desk.end_wait_locked(expected, 1.0, self.now)
        assert entry is expected.entry
        assert entry.owner is expected.owner
        assert entry.home.peer == expected.peer

    # -- what borrowers do

    @stateful.rule(peer=st.sampled_from(PEERS), may_wait=st.booleans())
    def checkout(self, peer, may_wait):
        self.threads += 1
        owner = threading.Thread(name=f'{self.threads:05}')
        idle = [e for e in self.entries(State.IDLE) if e.home.peer == peer]
        last = max(idle, key=lambda e: e.idle_at, default=None)
        entry = self.desk.claim_locked(peer, owner, self.tick())
        if last:
            assert entry is last
        elif entry:
            assert entry.state is State.NEW
        else:
            self.enqueue(peer, owner, may_wait)

    def enqueue(self, peer, owner, may_wait):
        waiter = self.desk.enqueue_locked(peer, owner, may_wait)
        if self.books.state is not state.PoolState.OPEN:
            assert waiter is pool.PoolClosed
        elif not may_wait:
            assert waiter is pool.PoolTimeout
        elif len(self.waiting) == OPTIONS.max_waiters:
            assert waiter is pool.TooManyWaiters
        else:
            self.waiting.append(waiter)

    @stateful.rule(data=st.data())
    def open(self, data):
        entry = self.pick(data, self.entries(State.NEW))
        if entry.displaces:
            self.bury(entry.displaces)
        entry.socket = Socket()
        lent = self.desk.opened_locked(entry, self.tick())
        assert lent == (self.books.state is state.PoolState.OPEN)

    @stateful.rule(data=st.data())
    def fail_to_open(self, data):
        entry = self.pick(data, self.entries(State.NEW))
        for doomed in self.desk.abort_locked(
            entry, None, entry.owner, self.tick()
        ):
            self.bury(doomed)

    @stateful.rule(data=st.data(), retire=st.booleans())
    def release(self, data, retire):
        entry = self.pick(data, self.entries(State.IN_USE))
        stale = entry.generation != entry.home.generation
        kept = not (
            retire or stale or self.books.state is not state.PoolState.OPEN
        )
        expected = self.expected(entry.home.peer, True) if kept else None
        reason = pool.EvictReason.UNFINISHED if retire else None
        retired = self.desk.checkin_locked(entry, reason, self.tick())
        assert retired != kept
        self.check_served(expected)

    @stateful.rule(data=st.data())
    def finish(self, data):
        # One that makes room is closed by who needs the room.
        self.bury(
            self.pick(
                data,
                [e for e in self.entries(State.RETIRING) if not e.heir],
            )
        )

    def bury(self, entry):
        entry.socket = None
        shared = entry.heir or entry.displaces
        peer = entry.home.peer
        full = self.books.slots == OPTIONS.max_size and not self.books.lru
        # A shared slot does not come free, but a place among the peer's does:
        # of use only if there is other room.
        expected = None
        if not shared or not full:
            expected = self.expected(peer, False)
        self.desk.bury_locked([entry], self.tick())
        self.check_served(expected)

    @stateful.rule(data=st.data())
    def find_unhealthy(self, data):
        entry = self.pick(data, self.entries(State.IN_USE))
        owner = entry.owner
        self.books.retire_locked(
            entry, owner, pool.EvictReason.UNHEALTHY, self.tick()
        )
        entry.socket = None
        found = self.desk.replace_locked(entry, owner, self.tick())
        is_open = self.books.state is state.PoolState.OPEN
        assert (found is not None) == is_open
        self.check_served(None)

    @stateful.rule(data=st.data())
    def time_out(self, data):
        waiter = self.pick(data, self.waiting)
        outcome = self.desk.end_wait_locked(waiter, 1.0, self.tick())
        assert outcome is pool.PoolTimeout
        self.waiting.remove(waiter)

    @stateful.rule(data=st.data())
    def interrupt_waiter(self, data):
        waiter = self.pick(data, self.waiting)
        self.waiting.remove(waiter)
        assert not self.desk.abort_locked(
            None, waiter, waiter.owner, self.tick()
        )

    # -- what their pool does

    @stateful.rule(peer=st.sampled_from(PEERS))
    def clear(self, peer):
        owner = threading.Thread(name='clear')
        doomed = self.desk.clear_locked(peer, owner, self.tick())
        assert all(e.home.peer == peer for e in doomed)
        for entry in doomed:
            self.bury(entry)

    @stateful.precondition(
        lambda self: self.books.state is state.PoolState.OPEN
    )
    @stateful.rule(often=st.integers(0, 9))
    def close(self, often):
        hypothesis.assume(often == 0)
        owner = threading.Thread(name='close')
        for entry in self.desk.start_closing_locked(owner, self.tick()):
            self.bury(entry)
        for waiter in self.waiting:
            outcome = self.desk.end_wait_locked(waiter, 1.0, self.now)
            assert outcome is pool.PoolClosed
        self.waiting.clear()

    @stateful.invariant()
    def the_books_add_up(self):
        invariants.check_locked(self.desk, OPTIONS)
        assert len(self.desk.queue) == len(self.waiting)


@pytest.mark.spec('PL-03', 'PL-17', 'PL-18', 'PL-19', 'PL-30')
class TestPool(PoolMachine.TestCase):
    settings = hypothesis.settings(stateful_step_count=60)
