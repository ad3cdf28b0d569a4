# SPDX-License-Identifier: Apache-2.0
"""What surrounds the pool of a scenario: threads, pauses, errors, the log."""

import builtins
from concurrent import futures
import contextlib
import dataclasses
import logging
import os
import threading
import time

from tests.fixtures import waiting
from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import stats as figures

#: Seconds for which a lock must be found held to be held for good.
HELD = 0.2

Kind = pool.EventKind


class Thread:
    """A thread with a name, that does one thing after the other."""

    def __init__(self, name):
        self.name = name
        self._executor = futures.ThreadPoolExecutor(1)
        self.thread = self.do(self._introduce).result(fakes.PATIENCE)
        #: What it does, if it is not waited for.
        self.future = None
        #: The step that it is at then.
        self.step = None
        #: Set when it waits or pauses.
        self.stopped = threading.Event()
        #: Set when it may go on.
        self.go = threading.Event()

    def _introduce(self):
        threading.current_thread().name = self.name
        return threading.current_thread()

    def do(self, function):
        return self._executor.submit(function)

    def start(self, step, function):
        """Begin; return when the thread waits or pauses."""
        self.stopped.clear()
        self.step = step
        self.future = self.do(function)
        waiting.until(
            lambda: self.stopped.is_set() or self.future.done(),
            f'pause of {self.name}',
            fakes.PATIENCE,
        )
        assert self.stopped.is_set(), f'{self.name} did not wait or pause'
        self.stopped.clear()

    def pause(self):
        """Wait until it may go on; called on the thread."""
        self.go.clear()
        self.stopped.set()
        assert self.go.wait(fakes.PATIENCE), 'nobody let it go on'

    def end(self):
        self.go.set()
        self._executor.shutdown()


class Log(logging.Handler):
    """Keeps the warnings and errors of the pool."""

    def __init__(self, check):
        super().__init__(logging.WARNING)
        self._check = check
        self.lines = []

    def emit(self, record):
        self._check('the log')
        self.lines.append(record.getMessage())

    @contextlib.contextmanager
    def attached(self):
        logger = logging.getLogger('zmq_driver.pool')
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


class Stage:
    """A pool, the threads that use it, and what it calls.

    It sees to what holds in every scenario: nothing is called with the lock
    held, there are never too many sockets, and each is closed once.
    """

    def __init__(self, options):
        self.world = fakes.World(**options)
        self.world.single_threaded = False
        self.world.on_call = self._called
        self.world.on_event = self._told
        self.threads = {}
        #: What the pool told, and on which thread.
        self.told = []
        self.log = Log(self._check_unlocked)
        self.pid = os.getpid()
        #: What is to happen at the next call of something.
        self._plans = []

    def thread(self, name):
        if name not in self.threads:
            self.threads[name] = Thread(name)
        return self.threads[name]

    def plan(self, step):
        """Have the next call raise or pause that *step* describes."""
        self._plans.append(step)

    def end(self):
        """Let everybody go, and close the pool and what is left."""
        self._plans.clear()
        self.world.pool.close(fakes.NOW)
        for thread in self.threads.values():
            thread.end()

    def current(self):
        return threading.current_thread().name

    # -- what the pool calls

    def _called(self, name):
        self._check_unlocked(name)
        if name == 'open':
            self._count_sockets()
        self._follow(name.replace('_', ' '))

    def _told(self, event):
        self._check_unlocked('the listener')
        self.told.append(f'{self.current()}: {fakes.describe(event)}')
        thread = self.threads.get(self.current())
        waits = event.kind in (Kind.WAITING, Kind.POOL_CLOSING)
        paused = False
        try:
            paused = self._follow('listen', event.kind.value)
        finally:
            if thread is not None and waits and not paused:
                thread.stopped.set()

    def _follow(self, call, event=None):
        """Do what a plan says, if one was made for this; return whether."""
        here = {'call': call, 'event': event, 'thread': self.current()}
        for plan in self._plans:
            if all(plan.get(key, here[key]) == here[key] for key in here):
                self._plans.remove(plan)
                self._act(plan)
                return True
        return False

    def _act(self, plan):
        if 'raises' in plan:
            raise getattr(builtins, plan['raises'])('as the scenario says')
        self.threads[self.current()].pause()

    def _check_unlocked(self, what):
        """Fail if this thread holds the lock of the pool."""
        pool_ = self.world.pool
        end = time.monotonic() + HELD
        while (
            pool_._lock.locked()
            and pool_._books.holder is threading.current_thread()
        ):
            # Another thread may have taken it and not have said so yet.
            self.world.check(
                time.monotonic() < end, f'{what} is called with the lock held'
            )

    def _count_sockets(self):
        sockets = self.world.sockets
        found = sum(not socket.closed for socket in sockets)
        self.world.check(
            found < self.world.pool.options.max_size,
            f'a socket is opened besides {found} others',
        )

    # -- what must be true at any time

    def check(self):
        self.world.pool.check_invariants()
        assert not self.world.failures, self.world.failures
        stats = self.world.pool.stats()
        closed = sum(stats.closed_total.values())
        assert stats.created_total - closed == (
            stats.idle + stats.reserved + stats.in_use + stats.retiring
        ), f'the figures do not agree: {stats}'
        assert stats.reaped_total <= closed + stats.retiring
        assert stats.replaced_total <= stats.reused_total
        assert all(socket.closed <= 1 for socket in self.world.sockets)
        undescribed = [
            field.name
            for field in dataclasses.fields(stats)
            if not figures.FIGURES.get(field.name)
        ]
        assert not undescribed, f'nobody knows what these are: {undescribed}'

    def check_end(self):
        """See that everything was closed and told, once."""
        self.world.check_books()
        stats = self.world.pool.stats()
        closed = fakes.closed(self.world)
        assert all(socket.closed == 1 for socket in self.world.sockets)
        assert len(closed) == len(self.world.sockets)
        assert {
            reason: closed.count(reason) for reason in stats.closed_total
        } == stats.closed_total
