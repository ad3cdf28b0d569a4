# SPDX-License-Identifier: Apache-2.0
"""Plays a scenario: operations on named threads, and what must come out.

A scenario is a JSON object:

``rules``
    the rules of the specification that it shows
``about``
    a sentence
``pool``
    the options of the pool
``steps``
    what happens, one after the other. Some run on the thread that they name,
    and the next step begins when they have ended::

        {"on": "t1", "do": "checkout", "peer": "a", "as": "x", "fresh": true}
        {"on": "t1", "do": "use", "lease": "x"}
        {"on": "t1", "do": "retire", "lease": "x", "reason": "unfinished"}
        {"on": "t1", "do": "release", "lease": "x"}
        {"on": "t1", "do": "fail", "lease": "x"}
        {"on": "t1", "do": "clear", "peer": "a"}
        {"on": "t1", "do": "reap", "closed": 1}
        {"on": "t1", "do": "warm", "peer": "a", "opened": 1}
        {"on": "t1", "do": "close", "left": [["a", "t2", 5.0]]}
        {"on": "t1", "do": "make", "pool": {"max_size": 0}}
        {"on": "t1", "do": "fork", "steps": [...]}

    ``fail`` leaves the block of a lease by an exception. Checkouts and
    ``close`` have a deadline that has passed unless ``"seconds"`` gives them
    some, of real time. The steps of a ``fork`` are taken by the child, on the
    thread that made it, while the lock of the pool is held; what is told or
    called there is told as ``child``.

    With ``"error": "PoolTimeout"`` a step has to raise that, with ``"text"``
    a text that has all of these parts. With ``"waits": true`` the next step
    begins when it waits for something, and these go on with it::

        {"on": "t1", "do": "join"}
        {"on": "t1", "do": "meet"}
        {"on": "t1", "do": "go on"}

    ``join`` waits for its end and says what has to come out; ``meet`` waits
    until it stops again, at a pause; ``go on`` ends a pause. Pauses and
    errors are put where the pool calls something, for its next call::

        {"do": "next", "call": "open", "raises": "OSError"}
        {"do": "next", "call": "listen", "event": "opened", "thread": "t1"}

    The calls are ``open``, ``healthy``, ``close``, ``hand over``, ``put
    down``, ``listen`` and ``clock``; without ``raises`` the thread pauses.
    The other steps concern the world around::

        {"do": "tick", "seconds": 60}
        {"do": "turn back", "seconds": 60}
        {"do": "chance", "value": 1.0}
        {"do": "sicken", "socket": 0}
        {"do": "await", "told": "t1: closed a: idle"}
        {"do": "await", "logged": "could not be closed"}
        {"do": "expect", "stats": {"idle": 1}, "threads": []}
``events``
    what the pool tells, and on which thread: ``"t1: opened a"``. The events
    of a thread come in their order; between threads the pool promises none,
    so that how they are mixed is for the reader only.
``log``
    parts of the warnings and errors that it logs, in their order
``stats``
    figures at the end, if they matter
"""

import contextlib
import json
import os
import pathlib
import signal
import threading

from tests.fixtures import waiting
from tests.scenarios import stage
from tests.unit.pool import fakes
from zmq_driver import clock
from zmq_driver import pool

FOLDER = pathlib.Path(__file__).parent

#: What each operation returns is compared with this of its step, if it is
#: there.
RESULTS = {
    'checkout': 'fresh',
    'reap': 'closed',
    'warm': 'opened',
    'close': 'left',
}


def load(folder):
    """Return the scenarios of a folder by name."""
    return {
        path.stem: json.loads(path.read_text())
        for path in sorted((FOLDER / folder).glob('*.json'))
    }


def _thread(line):
    return line.partition(':')[0]


class Mismatch(AssertionError):
    """What came out is not what had to."""


class Lost(Exception):
    """What the block of a lease is left by."""


class Scenario:
    """A pool, named threads and the steps that are played on them."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.stage = stage.Stage(scenario['pool'])
        self.world = self.stage.world
        self.leases = {}
        self._played = []

    def play(self):
        """Play all steps; raise Mismatch with the whole story if need be."""
        with self.stage.log.attached():
            try:
                self._play()
            except Exception as error:
                raise Mismatch(self.describe(error)) from error
            finally:
                self._end()
            try:
                self.stage.check_end()
            except AssertionError as error:
                raise Mismatch(self.describe(error)) from error

    def _play(self):
        for number, step in enumerate(self.scenario['steps']):
            self._played.append(f'{number}: {json.dumps(step)}')
            self._take(step)
            self.stage.check()
        self._compare_lines(
            'events', sorted(self.stage.told, key=_thread), str.__eq__
        )
        self._compare_lines('log', self.stage.log.lines, str.__contains__)
        self._compare_stats(self.scenario.get('stats', {}))

    def _end(self):
        # Of one whose thread hangs, nothing can be released.
        for lease in self.leases.values():
            thread = self.stage.threads[lease._owner.name]
            if thread.future is None:
                with contextlib.suppress(Exception):
                    thread.do(lease.release).result(fakes.PATIENCE)
        self.stage.end()

    def _compare_lines(self, what, found, matches):
        expected = self.scenario.get(what, [])
        if what == 'events':
            # Sorting is stable: the order on each thread remains.
            expected = sorted(expected, key=_thread)
        if len(found) != len(expected):
            what = {'log': 'lines of the log'}.get(what, what)
            raise Mismatch(f'{len(found)} {what}, not {len(expected)}')
        for line, part in zip(found, expected, strict=True):
            if not matches(line, part):
                raise Mismatch(f'{line!r} was told, not {part!r}')

    def _compare_stats(self, expected):
        stats = self.world.pool.stats()
        for name, value in expected.items():
            found = getattr(stats, name)
            if found != value:
                raise Mismatch(f'{name} is {found}, not {value}')

    def describe(self, error):
        """Return operations, threads and events, and what they show."""
        scenario = self.scenario
        return '\n'.join(
            [
                f'{error!r}',
                f'about: {scenario["about"]}',
                f'rules: {", ".join(scenario["rules"])}',
                f'pool: {self.world.pool!r}',
                'operations:',
                *(f'  {line}' for line in self._played),
                'threads:',
                *(f'  {name}' for name in self.stage.threads),
                'events:',
                *(f'  {line}' for line in self.stage.told),
                'expected:',
                *(f'  {line}' for line in scenario['events']),
                'log:',
                *(f'  {line}' for line in self.stage.log.lines),
            ]
        )

    # -- steps

    def _take(self, step):
        does = getattr(self, '_' + step['do'].replace(' ', '_'), None)
        if does is not None:
            does(step)
            return
        thread = self.stage.thread(step['on'])
        if step.get('waits'):
            thread.start(step, self._operation(step))
        else:
            self._judge(step, thread.do(self._operation(step)).result)

    def _operation(self, step):
        """Return what is to be done on the thread."""
        pool_ = self.world.pool
        lease = self.leases.get(step.get('lease'))
        patience = fakes.PATIENCE if step.get('waits') else 0.0
        seconds = step.get('seconds', patience)
        return {
            'checkout': lambda: pool_.checkout(
                step['peer'], clock.Deadline(seconds)
            ),
            'use': lambda: lease.socket and None,
            'retire': lambda: lease.retire(pool.EvictReason(step['reason'])),
            'release': lambda: lease.release(),
            'fail': lambda: lease.__exit__(Lost, Lost(), None),
            'clear': lambda: pool_.clear(step['peer']),
            'reap': pool_.reap,
            'warm': lambda: pool_.warm(step['peer']),
            'close': lambda: sorted(
                map(list, pool_.close(clock.Deadline(seconds)))
            ),
            'make': lambda: fakes.World(**step['pool']) and None,
        }[step['do']]

    def _judge(self, step, outcome):
        """Compare what comes out of an operation with its step."""
        try:
            result = outcome(fakes.PATIENCE)
        except BaseException as caught:
            if type(caught).__name__ != step.get('error'):
                raise
            for part in step.get('text', ()):
                if part.format(pid=self.stage.pid) not in str(caught):
                    raise Mismatch(f'{part!r} is not in {caught!r}') from None
            return
        if 'error' in step:
            raise Mismatch(f'{step["error"]} was not raised')
        if isinstance(result, pool.SocketLease):
            self.leases[step['as']] = result
            result = result.fresh
        expected = step.get(RESULTS.get(step['do']), result)
        if result != expected:
            raise Mismatch(f'{step["do"]} returned {result}, not {expected}')

    def _join(self, step):
        thread = self.stage.thread(step['on'])
        future, thread.future = thread.future, None
        self._judge(
            thread.step | step | {'do': thread.step['do']}, future.result
        )

    def _meet(self, step):
        thread = self.stage.thread(step['on'])
        assert thread.stopped.wait(fakes.PATIENCE), 'it did not stop'
        thread.stopped.clear()

    def _go_on(self, step):
        self.stage.thread(step['on']).go.set()

    def _next(self, step):
        self.stage.plan(step)

    def _tick(self, step):
        self.world.clock.tick(step['seconds'])

    def _turn_back(self, step):
        self.world.clock._now -= step['seconds']

    def _chance(self, step):
        self.world.jitter = step['value']

    def _sicken(self, step):
        self.world.sockets[step['socket']].is_healthy = False

    def _await(self, step):
        told, logged = step.get('told'), step.get('logged')
        waiting.until(
            lambda: (
                told in self.stage.told
                if told
                else any(logged in line for line in self.stage.log.lines)
            ),
            told or logged,
            fakes.PATIENCE,
        )

    def _expect(self, step):
        self._compare_stats(step.get('stats', {}))
        if 'threads' in step:
            waiting.until(
                lambda: self._daemons() == step['threads'],
                f'threads {step["threads"]}, but {self._daemons()}',
                fakes.PATIENCE,
            )

    def _daemons(self):
        """Return the names of the threads of the pool, which are daemons."""
        return sorted(
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith('zmq-') and thread.daemon
        )

    # -- forks

    def _fork(self, step):
        read, write = os.pipe()
        # Whoever needs it in the child waits for ever.
        with self.world.pool._lock:
            forked = self.stage.thread(step['on']).do(
                lambda: os.fork() or self._be_child(step, write)
            )
            pid = forked.result(fakes.PATIENCE)
        os.close(write)
        with os.fdopen(read) as pipe:
            found = json.loads(pipe.read() or '{"problem": "the child hung"}')
        os.waitpid(pid, 0)
        self.stage.told += [f'child: {line}' for line in found.get('told', ())]
        if found['problem']:
            raise Mismatch(f'in the child: {found["problem"]}')

    def _be_child(self, step, pipe):
        """Take the steps of a fork, on the only thread that there is."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(fakes.PATIENCE))
        told = []
        self.world.on_call = told.append
        self.world.on_event = lambda event: told.append(fakes.describe(event))
        problem = ''
        try:
            for each in step['steps']:
                operation = self._operation(each)
                self._judge(each, lambda _, do=operation: do())
        except BaseException as error:
            problem = repr(error)
        os.write(pipe, json.dumps({'told': told, 'problem': problem}).encode())
        os._exit(0)
