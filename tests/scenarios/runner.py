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
    what happens, one after the other. Most run on the thread that they name,
    and the next step begins when they have ended::

        {"on": "t1", "do": "checkout", "peer": "a", "as": "x"}
        {"on": "t1", "do": "release", "lease": "x"}
        {"on": "t1", "do": "retire", "lease": "x", "reason": "unfinished"}
        {"on": "t1", "do": "clear", "peer": "a"}
        {"on": "t1", "do": "reap", "closed": 1}
        {"on": "t1", "do": "warm", "peer": "a", "opened": 1}
        {"on": "t1", "do": "close"}

    A checkout with ``"waits": true`` has begun to wait when the next step
    begins, and ``{"on": "t1", "do": "join"}`` waits for its end. With
    ``"error": "PoolTimeout"`` an operation has to raise that. The others
    concern the world around::

        {"do": "tick", "seconds": 60}
        {"do": "turn back", "seconds": 60}
        {"do": "chance", "value": 1.0}
        {"do": "sicken", "socket": 0}
        {"do": "break factory"}
        {"do": "mend factory"}
``events``
    what the pool tells, and on which thread: ``"t1: opened a"``. The events
    of a thread come in their order; between threads the pool promises none,
    so that how they are mixed is for the reader only.
``stats``
    figures at the end, if they matter
"""

import contextlib
import json
import pathlib
import threading

from tests.unit.pool import fakes
from zmq_driver import pool

FOLDER = pathlib.Path(__file__).parent


def load(folder):
    """Return the scenarios of a folder by name."""
    return {
        path.stem: json.loads(path.read_text())
        for path in sorted((FOLDER / folder).glob('*.json'))
    }


def _thread(line):
    return line.partition(':')[0]


def _fail(peer):
    raise OSError(f'no socket to {peer}')


class Mismatch(AssertionError):
    """What came out is not what had to."""


class Scenario:
    """A pool, named threads and the steps that are played on them."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.world = fakes.World(**scenario['pool'])
        self.world.single_threaded = False
        self.world.on_event = self._note
        self.told = []
        self.leases = {}
        self._actors = {}
        self._names = {}
        self._waiting = {}
        self._played = []

    def play(self):
        """Play all steps; raise Mismatch with the whole story if need be."""
        with contextlib.ExitStack() as stack:
            try:
                self._play(stack)
            except Exception as error:
                raise Mismatch(self.describe(error)) from error
            finally:
                for lease in self.leases.values():
                    self._end(lease)
                self.world.pool.close(fakes.NOW)

    def _play(self, stack):
        for number, step in enumerate(self.scenario['steps']):
            self._played.append(f'{number}: {json.dumps(step)}')
            name = step.get('on')
            if name is not None and name not in self._actors:
                [actor] = stack.enter_context(fakes.actors(1))
                self._actors[name] = actor
                ident = fakes.run(actor, threading.current_thread)
                self._names[ident] = name
            getattr(self, '_' + step['do'].replace(' ', '_'))(step)
            self.world.pool.check_invariants()
        self._compare()

    def _compare(self):
        expected = self.scenario['events']
        if len(self.told) != len(expected):
            raise Mismatch(f'{len(self.told)} events, not {len(expected)}')
        # Sorting is stable: the order on each thread remains.
        for told, line in zip(
            sorted(self.told, key=_thread),
            sorted(expected, key=_thread),
            strict=True,
        ):
            if told != line:
                raise Mismatch(f'{told!r} was told, not {line!r}')
        stats = self.world.pool.stats()
        for name, value in self.scenario.get('stats', {}).items():
            found = getattr(stats, name)
            if found != value:
                raise Mismatch(f'{name} is {found}, not {value}')
        self.world.check_books()

    def describe(self, error):
        """Return operations, threads and events, and what they show."""
        return '\n'.join(
            [
                f'{error!r}',
                f'about: {self.scenario["about"]}',
                f'rules: {", ".join(self.scenario["rules"])}',
                f'pool: {self.world.pool!r}',
                'operations:',
                *(f'  {line}' for line in self._played),
                'threads:',
                *(f'  {name}' for name in self._actors),
                'events:',
                *(f'  {line}' for line in self.told),
                'expected:',
                *(f'  {line}' for line in self.scenario['events']),
            ]
        )

    def _note(self, event):
        who = self._names.get(threading.current_thread(), 'world')
        self.told.append(f'{who}: {fakes.describe(event)}')

    def _end(self, lease):
        with contextlib.suppress(Exception):
            fakes.run(self._actor_of(lease), lease.release)

    def _actor_of(self, lease):
        return self._actors[self._names[lease._owner]]

    # -- operations

    def _run(self, step, function, *arguments):
        future = self._actors[step['on']].submit(function, *arguments)
        return self._result(step, future)

    def _result(self, step, future):
        error = step.get('error')
        try:
            result = future.result(fakes.PATIENCE)
        except (pool.PoolError, OSError) as caught:
            if type(caught).__name__ != error:
                raise
            return None
        if error is not None:
            raise Mismatch(f'{error} was not raised')
        return result

    def _checkout(self, step):
        peer = step['peer']
        if not step.get('waits'):
            lease = self._run(step, self.world.checkout, peer)
            self._keep(step, lease)
            return
        waits = self.world.count(pool.EventKind.WAITING)
        actor = self._actors[step['on']]
        future = actor.submit(self.world.checkout, peer, fakes.soon())
        self._waiting[step['on']] = (step, future)
        self.world.wait_for(pool.EventKind.WAITING, waits + 1)

    def _join(self, step):
        begun, future = self._waiting.pop(step['on'])
        self._keep(begun, self._result(step, future))

    def _keep(self, step, lease):
        if lease is not None:
            self.leases[step['as']] = lease

    def _release(self, step):
        lease = self.leases.pop(step['lease'])
        self._run(step, lease.release)

    def _retire(self, step):
        lease = self.leases[step['lease']]
        reason = pool.EvictReason(step['reason'])
        self._run(step, lease.retire, reason)

    def _clear(self, step):
        self._run(step, self.world.pool.clear, step['peer'])

    def _reap(self, step):
        closed = self._run(step, self.world.pool.reap)
        if closed != step['closed']:
            raise Mismatch(f'{closed} sockets were reaped')

    def _warm(self, step):
        opened = self._run(step, self.world.pool.warm, step['peer'])
        if opened != step.get('opened'):
            raise Mismatch(f'{opened} sockets were opened ahead')

    def _break_factory(self, step):
        self.world.on_open = _fail

    def _mend_factory(self, step):
        self.world.on_open = None

    def _close(self, step):
        self._run(step, self.world.pool.close, fakes.NOW)

    def _tick(self, step):
        self.world.clock.tick(step['seconds'])

    def _turn_back(self, step):
        self.world.clock._now -= step['seconds']

    def _chance(self, step):
        self.world.jitter = step['value']

    def _sicken(self, step):
        self.world.sockets[step['socket']].is_healthy = False
