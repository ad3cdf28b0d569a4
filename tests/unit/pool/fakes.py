# SPDX-License-Identifier: Apache-2.0
"""Sockets, a factory, a listener and threads that tests look into."""

from concurrent import futures
import contextlib
import threading

from tests.fixtures import clock as fake_clock
from zmq_driver import clock
from zmq_driver import pool

#: Seconds after which a test that waits has failed.
PATIENCE = 30.0

NOW = clock.Deadline(0.0)


def soon():
    """Return a deadline that no test lives to see."""
    return clock.Deadline(2 * PATIENCE)


def describe(event):
    """Return an event as short as can be read."""
    return (
        event.kind.value
        + (f' {event.peer}' if event.peer is not None else '')
        + (f': {event.reason.value}' if event.reason else '')
    )


class FakeSocket:
    """A socket that knows who may use it, and what was done to it."""

    def __init__(self, world, peer):
        self.world = world
        self.peer = peer
        self.owner = threading.current_thread()
        self.is_healthy = True
        self.closed = 0
        self.closed_by = None
        #: What the next call of each method is to raise.
        self.raises = {}

    def __repr__(self):
        return f'<FakeSocket to {self.peer}>'

    def _called(self, method):
        self.world.check_unlocked()
        self.world.called(method)
        error = self.raises.pop(method, None)
        if error is not None:
            raise error

    def _check_owner(self):
        self.world.check(
            self.owner is threading.current_thread(),
            f'{self} belongs to {self.owner}',
        )
        self.world.check(not self.closed, f'{self} is closed')

    def hand_over(self, owner):
        self._called('hand_over' if owner else 'put_down')
        self.world.check(not self.closed, f'{self} is closed')
        self.world.check(
            self.owner in (None, threading.current_thread()),
            f'{self} is taken away from {self.owner}',
        )
        self.owner = owner

    def healthy(self):
        self._called('healthy')
        self._check_owner()
        return self.is_healthy

    def close(self):
        self._check_owner()
        self.closed += 1
        self.closed_by = threading.current_thread()
        self._called('close')


class World:
    """A pool with everything about it under the control of a test."""

    def __init__(self, name='rpc', **limits):
        self.clock = fake_clock.FakeClock()
        self.sockets = []
        self.events = []
        #: What the source of chance returns.
        self.jitter = 0.0
        self.failures = []
        self._told = threading.Condition()
        #: Called by the factory and the listener, if a test wants that.
        self.on_open = None
        self.on_event = None
        #: Called with the name of whatever the pool calls, but the listener.
        self.on_call = None
        # Tests call reap() themselves.
        limits.setdefault('reap_interval', 1e6)
        self.pool = pool.SocketPool(
            name,
            self._open,
            pool.PoolOptions(**limits),
            clock=self._read_clock,
            jitter=lambda: self.jitter,
            on_event=self._listen,
        )
        #: Whether no other thread than the test's is about.
        self.single_threaded = True

    def check(self, condition, text):
        # The pool logs what a socket or listener raises, so that raising is
        # not enough to make a test fail.
        if not condition:
            self.failures.append(text)
            raise AssertionError(text)

    def check_unlocked(self):
        self.check(
            not (self.single_threaded and self.pool._lock.locked()),
            'something is called with the lock held',
        )

    def called(self, name):
        if self.on_call is not None:
            self.on_call(name)

    def _read_clock(self):
        self.called('clock')
        return self.clock()

    def _open(self, peer):
        self.check_unlocked()
        self.called('open')
        if self.on_open is not None:
            self.on_open(peer)
        self.sockets.append(FakeSocket(self, peer))
        return self.sockets[-1]

    def _listen(self, event):
        self.check_unlocked()
        with self._told:
            self.events.append(event)
            self._told.notify_all()
        if self.on_event is not None:
            self.on_event(event)

    def checkout(self, peer='a', deadline=NOW):
        return self.pool.checkout(peer, deadline)

    def make_idle(self, *peers):
        """Leave one idle socket to each of *peers*, in this order of use."""
        for lease in [self.checkout(peer) for peer in peers]:
            lease.release()
            self.clock.tick(1)

    def wait_for(self, kind, count=1):
        """Return when *count* events of a kind have been told."""
        with self._told:
            assert self._told.wait_for(
                lambda: self.count(kind) >= count, PATIENCE
            ), self.events

    def count(self, kind):
        return sum(event.kind is kind for event in self.events)

    def story(self):
        """Return all events as short as can be read."""
        return [describe(event) for event in self.events]

    def check_books(self):
        self.pool.check_invariants()
        assert not self.failures
        assert self.pool.stats().idle == sum(
            socket.owner is None for socket in self.sockets
        )


@contextlib.contextmanager
def actors(count):
    """Yield executors with a thread of their own each."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                futures.ThreadPoolExecutor(1, thread_name_prefix=f'actor-{n}')
            )
            for n in range(count)
        ]


def run(actor, function, *arguments):
    """Return what *function* does on the thread of *actor*."""
    return actor.submit(function, *arguments).result(PATIENCE)


def closed(world):
    """Return for each closed socket the reason told, in order."""
    return [
        event.reason
        for event in world.events
        if event.kind is pool.EventKind.CLOSED
    ]
