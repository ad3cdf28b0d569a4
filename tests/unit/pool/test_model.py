# SPDX-License-Identifier: Apache-2.0
"""Decisions compared with a model that is too simple to be wrong.

The allocator decides without doing anything, so its threads need not run and
its sockets need not be sockets: one thread plays them all, and Hypothesis
looks for the steps after which an invariant or the order of those who wait
is broken.
"""

import threading

import hypothesis
from hypothesis import strategies as st
import pytest

from zmq_driver import pool
from zmq_driver.pool import allocator
from zmq_driver.pool import invariants
from zmq_driver.pool import ledger
from zmq_driver.pool import state

PEERS = 'abcd'
OPTIONS = pool.PoolOptions(max_size=4, max_per_peer=2, max_waiters=5)

State = state.EntryState
UNFINISHED = pool.EvictReason.UNFINISHED


class Play:
    """The threads of a pool, one step at a time."""

    def __init__(self):
        self.lock = threading.Lock()
        self.lock.acquire()
        self.books = ledger.Ledger(self.lock)
        self.books.holder = threading.current_thread()
        self.desk = allocator.Allocator(OPTIONS, self.books)
        self.now = 0.0
        #: Who waits, in the order of arrival.
        self.waiting = []
        #: Entries that somebody is to open, holds, or is to close.
        self.opening, self.lent, self.closing = [], [], []
        #: What the reaper looks at.
        self.examined = []

    def is_open(self):
        return self.books.state is state.PoolState.OPEN

    def tick(self):
        self.now += 1.0
        return self.now

    def idle(self):
        """Return the idle entries, the least recently used first."""
        found = [e for e in self.books.entries if e.state is State.IDLE]
        return sorted(found, key=lambda entry: entry.idle_at)

    # -- what must come out

    def expect(self, peer, idle):
        """Return whom an entry that is about to come free is to serve.

        :param peer: its peer
        :param idle: whether the entry will be idle, or else its slot free
        """
        sizes = dict.fromkeys(PEERS, 0)
        for entry in self.books.entries:
            sizes[entry.home.peer] += 1
        sizes[peer] -= not idle
        for waiter in self.waiting:
            if (idle and waiter.peer == peer) or (
                sizes[waiter.peer] < OPTIONS.max_per_peer
            ):
                return waiter
        return None

    def check_served(self, expected):
        served = [w for w in self.waiting if w.entry is not None]
        assert served == ([expected] if expected else [])
        for waiter in served:
            self.waiting.remove(waiter)
            entry = self.desk.end_wait_locked(waiter, 1.0, self.tick())
            assert entry is waiter.entry
            assert entry.owner is waiter.owner
            assert entry.home.peer == waiter.peer
            self.start(entry)

    def start(self, entry):
        """Go on with an entry that was claimed or given."""
        if entry.state is State.NEW:
            self.opening.append(entry)
        else:
            assert entry.state is State.IN_USE
            self.lent.append(entry)

    # -- what a borrower may do

    def checkout(self, peer, may_wait):
        owner = threading.Thread()
        idle = self.idle()
        own = [e for e in idle if e.home.peer == peer]
        sizes = [e.home.peer for e in self.books.entries]
        may_open = sizes.count(peer) < OPTIONS.max_per_peer and (
            self.books.slots < OPTIONS.max_size or idle
        )
        entry = self.desk.claim_locked(peer, owner, self.tick())
        if not self.is_open():
            assert entry is None
        elif own:
            assert entry is own[-1]
        else:
            assert bool(entry) == bool(may_open)
        if entry is None:
            self.enqueue(peer, owner, may_wait)
            return
        if entry.displaces:
            assert entry.displaces is idle[0]
        self.start(entry)

    def enqueue(self, peer, owner, may_wait):
        waiter = self.desk.enqueue_locked(peer, owner, may_wait)
        if not self.is_open():
            assert waiter is pool.PoolClosed
        elif not may_wait:
            assert waiter is pool.PoolTimeout
        elif len(self.waiting) == OPTIONS.max_waiters:
            assert waiter is pool.TooManyWaiters
        else:
            self.waiting.append(waiter)

    def open(self, choice, fails):
        entry = self.opening.pop(choice % len(self.opening))
        if fails:
            doomed = self.desk.abort_locked(
                entry, None, entry.owner, self.tick()
            )
            for each in doomed:
                self.bury(each)
            return
        if entry.displaces:
            self.bury(entry.displaces)
        entry.socket = object()
        lent = self.desk.opened_locked(entry, self.tick())
        assert lent == self.is_open()
        (self.lent if lent else self.closing).append(entry)

    def release(self, choice, retire):
        entry = self.lent.pop(choice % len(self.lent))
        is_stale = entry.generation != entry.home.generation
        kept = self.is_open() and not is_stale and not retire
        expected = self.expect(entry.home.peer, True) if kept else None
        retired = self.desk.checkin_locked(
            entry, UNFINISHED if retire else None, self.tick()
        )
        assert retired != kept
        if retired:
            self.closing.append(entry)
        self.check_served(expected)

    def finish(self, choice, _):
        self.bury(self.closing.pop(choice % len(self.closing)))

    def bury(self, entry):
        entry.socket = None
        # A shared slot does not come free; the peer's place does, which is of
        # use only where there is other room.
        shares = entry.heir or entry.displaces
        full = self.books.slots == OPTIONS.max_size and not self.idle()
        expected = None
        if not (shares and full):
            expected = self.expect(entry.home.peer, False)
        self.desk.bury_locked([entry], self.tick())
        self.check_served(expected)

    def replace(self, choice, _):
        entry = self.lent.pop(choice % len(self.lent))
        reason = pool.EvictReason.UNHEALTHY
        self.books.retire_locked(entry, entry.owner, reason, self.tick())
        entry.socket = None
        found = self.desk.replace_locked(entry, entry.owner, self.tick())
        assert bool(found) == self.is_open()
        if found:
            self.start(found)
        self.check_served(None)

    def examine(self, choice, _):
        idle = self.idle()
        if idle and not self.examined:
            entry = idle[choice % len(idle)]
            self.books.reserve_locked(entry, threading.Thread(), self.tick())
            self.examined.append(entry)

    def give_back(self, choice, fails):
        entry = self.examined.pop()
        reason = self.desk.unfit_locked(entry, self.tick())
        is_stale = entry.generation != entry.home.generation
        assert bool(reason) == (is_stale or not self.is_open())
        if reason or fails:
            reason = reason or pool.EvictReason.UNHEALTHY
            self.books.retire_locked(entry, entry.owner, reason, self.tick())
            self.closing.append(entry)
            return
        expected = self.expect(entry.home.peer, True)
        self.books.give_back_locked(entry)
        stack = [e.idle_at for e in entry.home.idle]
        assert stack == sorted(stack)
        self.desk.serve_locked(self.tick())
        self.check_served(expected)

    def stop_waiting(self, choice, interrupted):
        waiter = self.waiting.pop(choice % len(self.waiting))
        if interrupted:
            assert not self.desk.abort_locked(
                None, waiter, waiter.owner, self.tick()
            )
        else:
            outcome = self.desk.end_wait_locked(waiter, 1.0, self.tick())
            assert outcome is pool.PoolTimeout

    # -- what may be done to the pool

    def clear(self, peer):
        owner = threading.Thread()
        for entry in self.desk.clear_locked(peer, owner, self.tick()):
            assert entry.home.peer == peer
            self.closing.append(entry)

    def close(self):
        owner = threading.Thread()
        self.closing += self.desk.start_closing_locked(owner, self.tick())
        for waiter in self.waiting:
            outcome = self.desk.end_wait_locked(waiter, 1.0, self.tick())
            assert outcome is pool.PoolClosed
        self.waiting.clear()

    def step(self, verb, choice, flag):
        """Take a step, if somebody can."""
        if verb == 'checkout':
            self.checkout(PEERS[choice % len(PEERS)], flag)
        elif verb == 'clear':
            self.clear(PEERS[choice % len(PEERS)])
        elif verb == 'close':
            # Seldom, or nothing else is seen.
            if self.is_open() and choice == 99:
                self.close()
        elif {
            'open': self.opening,
            'release': self.lent,
            'replace': self.lent,
            'finish': self.closing,
            'examine': self.books.entries,
            'give_back': self.examined,
            'stop_waiting': self.waiting,
        }[verb]:
            getattr(self, verb)(choice, flag)

    def check(self):
        invariants.check_locked(self.desk, OPTIONS)
        assert len(self.desk.queue) == len(self.waiting)


VERBS = (
    ['checkout'] * 8
    + ['open'] * 6
    + ['release'] * 6
    + ['finish'] * 3
    + ['examine', 'give_back'] * 2
    + ['replace', 'stop_waiting', 'clear', 'close']
)
# Flags are mostly True for checkouts and mostly False elsewhere, so that
# there is much waiting and little failing.
STEPS = st.tuples(
    st.sampled_from(VERBS), st.integers(0, 99), st.integers(0, 9)
)


@pytest.mark.spec(
    'PL-02', 'PL-03', 'PL-04', 'PL-17', 'PL-18', 'PL-19', 'PL-30'
)
@hypothesis.given(steps=st.lists(STEPS, min_size=120, max_size=240))
def test_decisions_are_those_of_the_model(steps):
    play = Play()
    for verb, choice, tenths in steps:
        play.step(verb, choice, (tenths < 8) == (verb == 'checkout'))
        play.check()
