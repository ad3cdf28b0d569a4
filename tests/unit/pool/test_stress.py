# SPDX-License-Identifier: Apache-2.0
"""Many threads do everything at once, and nothing is lost or shared.

``ZMQ_DRIVER_STRESS=50`` makes it fifty times as long,
``ZMQ_DRIVER_STRESS_SEED`` repeats the choices of an earlier run (though not
the order in which the interpreter lets the threads run).
"""

import contextlib
import os
import random
import sys
import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import clock
from zmq_driver import pool

OPERATIONS = int(20_000 * float(os.environ.get('ZMQ_DRIVER_STRESS', '1')))
SEED = int(os.environ.get('ZMQ_DRIVER_STRESS_SEED', random.randrange(1 << 32)))
THREADS = 16
PEERS = 'abcdefgh'
OPTIONS = pool.PoolOptions(
    max_size=7,
    max_per_peer=3,
    max_waiters=THREADS - 2,
    max_age=0.003,
    idle_ttl=0.0001,
    reap_interval=0.001,
)


class Lost(Exception):
    """What a factory or a borrower raises."""


class StressSocket:
    """A socket that notices two threads at once."""

    def __init__(self, run, peer):
        self.run = run
        self.peer = peer
        self.owner = threading.current_thread()
        self.closed = False
        self._busy = threading.Lock()

    def use(self):
        with self._alone():
            self.run.check(
                self.owner is threading.current_thread(),
                'a socket is used by another thread than its owner',
            )

    def hand_over(self, owner):
        with self._alone():
            self.run.check(
                self.owner in (None, threading.current_thread()),
                'a socket is taken away from its owner',
            )
            self.owner = owner

    @contextlib.contextmanager
    def _alone(self):
        alone = self._busy.acquire(blocking=False)
        self.run.check(alone, 'two threads use a socket')
        self.run.check(not self.closed, 'a closed socket is used')
        yield
        self._busy.release()

    def healthy(self):
        self.use()
        return not self.run.chance(0.05)

    def close(self):
        self.use()
        self.closed = True
        self.run.count_socket(self.peer, -1)
        if self.run.chance(0.02):
            raise OSError('close failed')


class Run:
    """The threads, what they do, and what is counted apart from the pool."""

    def __init__(self):
        self._local = threading.local()
        self._lock = threading.Lock()
        self.sockets = dict.fromkeys(PEERS, 0)
        self.opened = 0
        self.closings = dict.fromkeys(pool.EvictReason, 0)
        self.failures = []
        self.pool = pool.SocketPool(
            'stress', self.open, OPTIONS, on_event=self.listen
        )

    def check(self, condition, text):
        # The pool logs what a socket raises, so raising is not enough.
        if not condition:
            self.failures.append(text)
            raise AssertionError(text)

    def chance(self, probability):
        if not hasattr(self._local, 'random'):
            # The reaper's thread.
            self.seed(THREADS + 1)
        return self._local.random.random() < probability

    def count_socket(self, peer, change):
        with self._lock:
            self.sockets[peer] += change
            self.opened += change > 0
            self.check(
                0 <= self.sockets[peer] <= OPTIONS.max_per_peer
                and sum(self.sockets.values()) <= OPTIONS.max_size,
                'there are too many sockets',
            )

    def open(self, peer):
        if self.chance(0.05):
            raise Lost
        self.count_socket(peer, +1)
        return StressSocket(self, peer)

    def listen(self, event):
        if event.kind is pool.EventKind.CLOSED:
            with self._lock:
                self.closings[event.reason] += 1

    def thread(self, number):
        self.seed(number)
        try:
            for step in range(OPERATIONS // THREADS):
                self.operate(self._local.random)
                if step % 50 == 0:
                    self.pool.check_invariants()
        except BaseException as error:
            self.failures.append(error)
            raise

    def seed(self, number):
        self._local.random = random.Random(SEED * THREADS + number)

    def operate(self, rng):
        """Clear a peer, or use a socket, or two, maybe badly."""
        if self.chance(0.02):
            self.pool.reap()
            return
        if self.chance(0.02):
            self.pool.clear(rng.choice(PEERS))
            return
        try:
            # Nobody who holds a lease waits for another, so every wait ends.
            with self.checkout(rng, fakes.soon()) as lease:
                if self.chance(0.1):
                    self.use_another(rng)
                self.use(lease)
        except Lost:
            pass
        except pool.TooManyWaiters:
            assert OPTIONS.max_waiters < THREADS

    def use_another(self, rng):
        try:
            with self.checkout(rng, fakes.NOW) as lease:
                self.use(lease)
        except pool.PoolTimeout:
            pass

    def checkout(self, rng, deadline):
        # Skewed, so that some peers are always wanted and some seldom.
        peer = PEERS[int(rng.random() ** 2 * len(PEERS))]
        if deadline is not fakes.NOW and self.chance(0.1):
            try:
                return self.pool.checkout(peer, clock.Deadline(0.0002))
            except pool.PoolTimeout:
                pass
        return self.pool.checkout(peer, deadline)

    def use(self, lease):
        lease.socket.use()
        if self.chance(0.05):
            raise Lost
        if self.chance(0.05):
            lease.retire(pool.EvictReason.UNFINISHED)


@pytest.fixture
def run():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield Run()
    sys.setswitchinterval(interval)


@pytest.mark.spec('PL-01', 'PL-03', 'PL-14', 'PL-17')
def test_many_threads(run):
    print(f'ZMQ_DRIVER_STRESS_SEED={SEED}')
    threads = [
        threading.Thread(target=run.thread, args=[n], daemon=True)
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(fakes.PATIENCE * max(1, OPERATIONS // 20_000))
    assert not run.failures
    assert not any(thread.is_alive() for thread in threads)

    run.pool._thread.stop(fakes.PATIENCE)
    run.seed(THREADS)
    run.pool.check_invariants()
    stats = run.pool.stats()
    assert stats.in_use == stats.reserved == stats.waiting == 0
    assert stats.opening == stats.retiring == 0
    assert stats.idle == sum(run.sockets.values())
    assert stats.created_total == run.opened
    assert stats.handed_off_total > 0
    assert stats.timeouts_total > 0

    assert run.pool.close(fakes.soon()) == []
    run.pool.check_invariants()
    assert sum(run.sockets.values()) == 0
    totals = dict(run.pool.stats().closed_total)
    assert totals == run.closings
    assert sum(totals.values()) == run.opened
    del totals[pool.EvictReason.POOL_CLOSED]
    assert all(totals.values())
