# SPDX-License-Identifier: Apache-2.0
"""A process of the benchmark, seen from the one that starts it."""

import os
import subprocess
import time

import pytest

from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver.bench import child
from zmq_driver.bench import masking
from zmq_driver.bench import plan as plan_

MASKER = masking.Masker(['rabbit://user:s3cret@host/'])

#: Answers what it is told, and complains.
ECHO = """
import json, sys, time
print('password s3cret is wrong', file=sys.stderr, flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if command['do'] == 'end':
        break
    if command['do'] == 'sleep':
        time.sleep(60)
    print(json.dumps(command), flush=True)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Give a factory of children, which end with the test."""
    started = []

    def make(text=ECHO):
        name = f'program_{len(started)}'
        (tmp_path / f'{name}.py').write_text(text)
        path = f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
        monkeypatch.setenv('PYTHONPATH', path)
        started.append(child.Child('it', name, MASKER))
        return started[-1]

    yield make
    for one in started:
        one.end()
        one.reap(clock.Deadline(10))


def soon():
    return clock.Deadline(30)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_answers_in_order(start):
    one = start()
    one.tell('a', n=1)
    one.tell('b')
    assert one.answer(soon()) == {'do': 'a', 'n': 1}
    assert one.answer(soon()) == {'do': 'b'}


@pytest.mark.spec('BN-15', 'BN-17', 'BN-18')
def test_no_answer_in_time(start):
    one = start()
    one.tell('a')
    one.answer(soon())
    one.tell('sleep')
    with pytest.raises(plan_.BenchError) as found:
        one.answer(clock.Deadline(0.2), 'is not ready')
    assert str(found.value) == (
        'it is not ready within 0.2 s; it said: password *** is wrong'
    )


@pytest.mark.spec('BN-18')
def test_it_ends_before_it_answers(start):
    one = start()
    one.tell('end')
    with pytest.raises(plan_.BenchError, match='it has ended; it said: pass'):
        one.answer(soon())
    waiting.until(lambda: _refuses(one), 'the broken pipe')


def _refuses(one):
    try:
        one.tell('a')
    except plan_.BenchError:
        return True
    return False


def test_it_fails(start):
    one = start()
    one.tell('a', error='ValueError: s3cret')
    with pytest.raises(plan_.BenchError, match=r'it failed: ValueError: \*'):
        one.answer(soon())


@pytest.mark.spec('BN-19')
def test_it_ends_when_asked(start):
    one = start()
    one.end()
    one.reap(clock.Deadline(30))
    assert gone(one.pid)


@pytest.mark.spec('BN-19')
def test_it_is_killed_if_it_does_not_end(start):
    one = start('import time\nprint("1", flush=True)\ntime.sleep(600)')
    one.end()
    begin = time.monotonic()
    one.reap(clock.Deadline(0.1))
    assert time.monotonic() - begin < 30
    assert gone(one.pid)


@pytest.mark.spec('BN-19')
def test_it_is_killed_if_the_wait_is_interrupted(start, monkeypatch):
    one = start('import time\ntime.sleep(600)')
    waits = iter([KeyboardInterrupt()])

    real = subprocess.Popen.wait

    def wait(process, timeout=None):
        for error in waits:
            raise error
        return real(process, timeout)

    monkeypatch.setattr(subprocess.Popen, 'wait', wait)
    with pytest.raises(KeyboardInterrupt):
        one.reap(clock.Deadline(30))
    assert gone(one.pid)
