# SPDX-License-Identifier: Apache-2.0
"""The processes that notify and listen, and what is done to them."""

import contextlib
import heapq
import itertools
import json
import subprocess
import sys
import time
import urllib.parse

from tests.fault import deliveries
from tests.fault import journal
from tests.fault import slots
from tests.fixtures import process
from tests.fixtures import redis_server

NOTIFIERS = 3

#: How many members each listener pool has; '' is that of those without one.
POOLS = {'alpha': 2, 'beta': 2, '': 1}

#: Seconds that notify() may take.
DEADLINE = 10.0

OPTIONS = {
    'notify_timeout': DEADLINE,
    'matchmaker_heartbeat_freq': 3,
    'matchmaker_heartbeat_ttl': 12,
}

#: Seconds from one fault to the next, and until a process comes back.
PAUSES = (0.5, 3.5)
ABSENCES = (0.0, 4.0)
#: Likewise of Redis. It rests so that everybody is registered between.
REDIS_PAUSES = (20.0, 40.0)
REDIS_ABSENCES = (0.5, 5.0)
#: Nothing more is done while more than so many processes are not there.
MOST_AWAY = 4
#: Seconds that all processes together may take to start.
START_TIMEOUT = 120.0
#: Seconds that a process may take to end in an orderly way. An endpoint is
#: waited for, and a store that is away.
END_TIMEOUT = 30.0
#: Seconds for which more than is expected is waited for in the end.
SURPLUS = 3.0
#: By how much longer a run may take until enough has been accepted.
PATIENCE = 3.0
#: Seconds between two lines about how it goes.
TELL_INTERVAL = 15.0


class Ordeal:
    """The processes, what happens to them, and what they wrote down.

    Thread: owner only.
    """

    def __init__(self, args, rng, directory):
        self._args = args
        self._rng = rng
        self._directory = directory
        self._redis = None
        self._redis_away = False
        self._outages = []
        self._pools = tuple(POOLS)
        self.found = deliveries.Deliveries(self._pools)
        self._slots = [slots.Slot(f'n{n}') for n in range(NOTIFIERS)]
        self._slots += [
            slots.Slot(f'{pool or "none"}{n}', pool)
            for pool, count in POOLS.items()
            for n in range(count)
        ]
        self._readers = [
            (
                self.found.note if slot.pool is None else self.found.sight,
                journal.Reader(self._journal(slot)),
            )
            for slot in self._slots
        ]
        self._lives = itertools.count(1)
        self._todo = []
        self._events = journal.Journal(directory / 'journal-events')
        self._order = itertools.count()
        self._killed = {}
        self._stuck = []
        #: How often each fault was done.
        self.faults = {}

    def _journal(self, slot):
        return self._directory / f'journal-{slot.name}'

    def _tell(self, what, slot=None):
        """Write down what happened, for whoever looks into a defect."""
        self._events.write(
            t=time.monotonic(), what=what, who=slot.life if slot else ''
        )

    # -- the processes

    def start(self):
        if 'redis' in (self._args.store, self._args.url_kind):
            settings = ['appendonly yes']
            settings.append(f'appendfsync {self._args.appendfsync}')
            self._redis = redis_server.RedisServer(*settings)
            self._redis.start()
        for slot in self._slots:
            self._launch(slot)
        for slot in self._slots:
            slot.program.wait_for('ready', START_TIMEOUT)
        # Notifiers know of a new pool after a second (NS-23).
        time.sleep(1.5)

    def url(self):
        options = {
            'rpc_zmq_ipc_dir': self._directory,
            'notification_store_directory': self._directory,
            'notification_store': self._args.store,
            **OPTIONS,
        }
        base = 'zmq:///'
        if self._args.url_kind == 'redis':
            base = f'zmq+redis://{self._redis.address}/'
            options['rpc_zmq_bind_address'] = '127.0.0.1'
        query = urllib.parse.urlencode(options, safe='/')
        more = f'&{self._args.query}' if self._args.query else ''
        return f'{base}?{query}{more}'

    def _launch(self, slot):
        number = next(self._lives)
        slot.life = f'{slot.name}.{number}'
        slot.down = False
        arguments = [
            *('--url', self.url()),
            *('--topic', 'ordeal'),
            *('--name', slot.life),
            *('--journal', self._journal(slot)),
        ]
        if self._args.keep:
            arguments += ['--log', self._directory / f'log-{slot.life}']
        name = 'ordeal_notifier'
        if slot.pool is not None:
            name = 'ordeal_listener'
            arguments += ['--seed', self._args.seed * 10000 + number]
            if slot.pool:
                arguments += ['--pool', slot.pool]
        self._tell('starts', slot)
        slot.program = process.Program(name, *arguments).start(wait=False)

    def _gone(self, slot, absence):
        self._tell('is gone', slot)
        slot.program.close()
        slot.program, slot.until, slot.down = None, None, True
        if absence is not None:
            self._later(absence, self._return, slot)

    def _return(self, slot):
        if slot.program is None:
            self._launch(slot)

    def _look_after(self):
        """See who has ended."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.program is None:
                continue
            status = slot.program.poll()
            if status is None:
                if slot.until is not None and now > slot.until:
                    self._stuck.append(f'{slot.life} did not end')
                    self._killed[slot.life] = now
                    slot.program.kill()
                continue
            dies = slot.life in self._killed
            if not dies and (status != 0 or slot.until is None):
                told = slot.program.errors()
                # What libzmq says before it aborts comes first.
                self._stuck.append(
                    f'{slot.life} ended with {status}: {told[:1500]} ... '
                    f'{told[1500:][-1500:]}'
                )
            self._gone(slot, self._rng.uniform(*ABSENCES))

    def _later(self, seconds, what, *arguments):
        heapq.heappush(
            self._todo,
            (time.monotonic() + seconds, next(self._order), what, arguments),
        )

    # -- faults

    def _fault(self):
        """Do a fault at random, and plan the next one."""
        self._later(self._rng.uniform(*PAUSES), self._fault)
        name, do, pool = self._rng.choice(
            [
                ('notifier killed', self._kill, None),
                ('notifier dies', self._die, None),
                ('notifier ends', self._end, None),
                ('listener killed', self._kill, 'one'),
                ('listener killed', self._kill, 'one'),
                ('listener ends', self._end, 'one'),
                ('pool killed', self._kill, 'all'),
                ('pool ends', self._end, 'all'),
            ]
        )
        if sum(not slot.ready for slot in self._slots) > MOST_AWAY:
            # The machine is too busy to bring them back in time.
            return
        running = [s for s in self._slots if s.ready]
        if pool == 'all':
            chosen = self._rng.choice(self._pools)
            victims = [s for s in running if s.pool == chosen]
        else:
            some = [s for s in running if (s.pool is None) == (pool is None)]
            victims = self._rng.sample(some, min(1, len(some)))
        for slot in victims:
            do(slot)
        if victims:
            self.faults[name] = self.faults.get(name, 0) + 1

    def _kill(self, slot):
        # What it writes until it is dead counts as before.
        slot.program.kill()
        self._killed[slot.life] = time.monotonic()
        self._gone(slot, self._rng.uniform(*ABSENCES))

    def _die(self, slot):
        """Let a notifier kill itself right after notify() has returned."""
        self._tell('is told to die', slot)
        self._killed[slot.life] = time.monotonic()
        slot.until = time.monotonic() + END_TIMEOUT
        with contextlib.suppress(OSError):
            slot.program.write('rate 50')
            slot.program.write('die')

    def _end(self, slot):
        if not slot.ready:
            # It does not know the signal yet, or has nothing to put in order.
            self._kill(slot)
            return
        self._tell('is told to end', slot)
        slot.until = time.monotonic() + END_TIMEOUT
        slot.program.ask_to_end()

    def _fault_redis(self):
        kill = self._rng.random() < 0.7
        name = 'redis killed' if kill else 'redis ends'
        self.faults[name] = self.faults.get(name, 0) + 1
        self._tell(name)
        self._redis_gone = time.monotonic()
        if kill:
            self._redis.kill()
        else:
            self._redis.stop()
        self._redis_away = True
        self._later(self._rng.uniform(*REDIS_ABSENCES), self._return_redis)

    def _return_redis(self):
        if not self._redis_away:
            return
        self._redis.start()
        self._redis_away = False
        self._tell('redis is back')
        self._outages.append((self._redis_gone, time.monotonic()))
        self._later(self._rng.uniform(*REDIS_PAUSES), self._fault_redis)

    # -- the run

    def run(self, seconds, messages):
        """Notify *messages* within *seconds*, with faults at random."""
        begin = told = time.monotonic()
        end, last = begin + seconds, begin + seconds * PATIENCE
        self._later(0.0, self._fault)
        if self._redis is not None:
            first = min(seconds / 4, REDIS_PAUSES[0])
            self._later(first, self._fault_redis)
        self._later(0.0, self._set_rates, end, messages)
        while (now := time.monotonic()) < last:
            if now > end and len(self.found.accepted) >= messages:
                break
            self._step()
            if now - told > TELL_INTERVAL:
                told = now
                print(
                    f'{now - begin:5.0f} s: {len(self.found.accepted)} '
                    f'accepted, {self.found.missing()} copies under way, '
                    f'{sum(self.faults.values())} faults',
                    flush=True,
                )
        self.seconds = time.monotonic() - begin

    def _step(self):
        now = time.monotonic()
        while self._todo and self._todo[0][0] <= now:
            _, _, what, arguments = heapq.heappop(self._todo)
            what(*arguments)
        self._look_after()
        self._read()
        time.sleep(0.02)

    def _read(self):
        for take, reader in self._readers:
            for record in reader.read():
                take(record)

    def _set_rates(self, end, messages):
        left = messages - len(self.found.accepted)
        notifiers = [s for s in self._slots if s.pool is None and s.ready]
        seconds = max(end - time.monotonic(), 2.0)
        rate = max(left, 1) / seconds / max(len(notifiers), 1)
        for slot in notifiers:
            with contextlib.suppress(OSError):
                slot.program.write(f'rate {rate:.3f}')
        self._later(0.5, self._set_rates, end, messages)

    def drain(self, timeout):
        """Let the listeners alone bring what is stored to an end."""
        self._return_redis()
        self._todo.clear()
        for slot in self._slots:
            if slot.pool is None and slot.running:
                self._end(slot)
            elif slot.pool is not None and slot.down:
                self._launch(slot)
        begin = time.monotonic()
        end = begin + timeout
        while time.monotonic() < end:
            self._step()
            self._todo = [t for t in self._todo if t[3][0].pool is not None]
            heapq.heapify(self._todo)
            ended = all(
                slot.running if slot.pool is not None else slot.down
                for slot in self._slots
            )
            if ended and not self.found.missing():
                break
        self.drained = time.monotonic() - begin
        surplus = time.monotonic() + SURPLUS
        while time.monotonic() < surplus:
            self._step()

    def judge(self):
        stored = self._stored()
        for slot in self._slots:
            if slot.program is not None and slot.until is None:
                self._end(slot)
        while any(slot.program is not None for slot in self._slots):
            self._step()
            self._todo.clear()
        away = self._outages if self._args.store == 'redis' else ()
        verdict = self.found.judge(self._killed, away, DEADLINE)
        for what in ('left', 'dead'):
            count = sum(
                q['Waiting' if what == 'left' else 'Dead'] for q in stored
            )
            if count:
                verdict.add(what, f'{count} are in the store: {stored}')
        for text in self._stuck:
            verdict.add('stuck', text)
        return verdict

    def _stored(self):
        """Return what the store still holds after a little while."""
        command = ['notifications', 'list', '-f', 'json']
        for _ in range(5):
            done = subprocess.run(
                [
                    *(sys.executable, '-W', 'ignore', '-m'),
                    *('zmq_driver.cmd.main', *command, '--url', self.url()),
                ],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            stored = json.loads(done.stdout)
            if not any(queue['Waiting'] for queue in stored):
                break
            time.sleep(1.0)
        return stored

    def close(self):
        for slot in self._slots:
            if slot.program is not None:
                slot.program.close()
        if self._redis is not None:
            self._redis.close()
        self._events.close()
