# SPDX-License-Identifier: Apache-2.0
"""No reply is wrong, lost or duplicated, whatever the load.

``ZMQ_DRIVER_STRESS=25`` makes the run 25 times as long: 50,000 calls.
"""

import collections
import math
import os
import random
import threading
import time

import oslo_messaging
import pytest

CALLS = 2000 * int(os.environ.get('ZMQ_DRIVER_STRESS', '1'))
THREADS = (2, 8, 32, 64)
LARGEST = 1_000_000

#: One call in this many is meant to time out.
LATE = 50
SHORT_TIMEOUT = 0.15


class Caller:
    """Makes calls in threads and judges every answer."""

    def __init__(self, client, seed):
        self._client = client
        self._hasty = client.prepare(timeout=SHORT_TIMEOUT)
        self._seed = seed
        self._lock = threading.Lock()
        self._next = 0
        self.verdict = collections.Counter()
        self.unexpected = []

    def run(self, threads, calls):
        end = self._next + calls
        workers = [
            threading.Thread(target=self._work, args=(end,))
            for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(1200)
            assert not worker.is_alive(), 'a call hangs'

    def _work(self, end):
        while True:
            with self._lock:
                if self._next >= end:
                    return
                number = self._next
                self._next += 1
            outcome = self._call(number)
            with self._lock:
                self.verdict[outcome] += 1

    def _call(self, number):
        dice = random.Random(self._seed * 1_000_003 + number)
        size = int(math.exp(dice.uniform(0, math.log(LARGEST))))
        value = chr(97 + number % 26) * size
        late = dice.randrange(LATE) == 0
        delay = (
            dice.uniform(2, 4) * SHORT_TIMEOUT
            if late
            else dice.choice((0, 0, 0, 0.001, 0.01))
        )
        client = self._hasty if late else self._client
        start = time.monotonic()
        try:
            answer = client.call(
                {}, 'counted_echo', id=number, value=value, delay=delay
            )
        except oslo_messaging.MessagingTimeout as error:
            if late and time.monotonic() - start >= SHORT_TIMEOUT:
                return 'timed out as it should'
            self.unexpected.append((number, late, repr(error)))
            return 'failed'
        if answer != {'id': number, 'value': value}:
            self.unexpected.append((number, answer['id'], len(value)))
            return 'wrong'
        return 'right'


@pytest.mark.slow
@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-11')
def test_every_reply_reaches_its_call(server, client):
    program = server()
    seed = random.SystemRandom().randrange(1 << 30)
    print(f'seed {seed}')
    caller = Caller(client(timeout=60), seed)
    for threads in THREADS:
        caller.run(threads, CALLS // len(THREADS))
    runs = client(timeout=60).call({}, 'counted_runs')
    print(f'{CALLS} calls: {dict(caller.verdict)}; ran {runs["ids"]}')
    assert not caller.unexpected
    assert sum(caller.verdict.values()) == CALLS
    assert caller.verdict['timed out as it should'] > 0
    assert runs['twice'] == []
    # One that timed out before it was sent has not run, and need not.
    assert runs['ids'] >= caller.verdict['right']
    program.stop()
