# SPDX-License-Identifier: Apache-2.0
"""Notifications that wait in Redis, among processes that are killed."""

import collections
import pathlib
import shutil
import tempfile
import threading
import time

import pytest

from tests.fixtures import process
from tests.fixtures import redis_server
from tests.fixtures import waiting
from tests.functional import test_stored_notifications as stored

HANG = stored.HANG
notify = stored.notify
payloads = stored.payloads
wait_for = stored.wait_for

listener = stored.listener
notifying = stored.notifying


@pytest.fixture
def redis():
    """Give a Redis of the test's own, which keeps what it has."""
    server = redis_server.RedisServer('appendonly yes', 'appendfsync always')
    yield server.start()
    server.close()


@pytest.fixture
def deployment(redis):
    return f'zmq+redis://{redis.address}/'


@pytest.fixture
def other_host(url, ipc_dir):
    """Give the query of a process that shares no directory with others."""
    made = []

    def make():
        made.append(pathlib.Path(tempfile.mkdtemp(prefix='zd')))
        return url.replace(str(ipc_dir), str(made[-1])) + '&cleanup_timeout=1'

    yield make
    for path in made:
        shutil.rmtree(path)


@pytest.fixture
def notifying_at(topic):
    """Give a factory of processes that notify, each with its own URL."""
    started = []

    def start(url):
        program = process.Program('notifying', '--url', url, '--topic', topic)
        started.append(program)
        return program.start()

    yield start
    for program in started:
        program.close()


@pytest.mark.spec('NS-43', 'NS-64')
def test_another_host_delivers_what_one_has_stored(
    notifying_at, other_host, listener
):
    first = notifying_at(other_host())
    notify(first, *range(20))
    # It drains, and may have taken what it has stored.
    time.sleep(1.5)
    first.kill()
    wait_for(range(20), listener('late'))


@pytest.mark.spec('NS-64', 'NS-45')
def test_what_was_under_way_is_given_once_when_who_drains_is_killed(
    notifying_at, other_host, listener
):
    programs = [notifying_at(other_host()) for _ in range(2)]
    for number, program in enumerate(programs):
        notify(program, *range(30 * number, 30 * number + 30))
    time.sleep(1.5)
    slow = listener('slow', '--delay', 0.5, '--executor-threads', 4)
    slow.wait_for('entered')
    programs[0].kill()
    wait_for(range(60), slow)


@pytest.mark.spec('NS-69')
def test_redis_is_killed_again_and_again(redis, notifying, listener):
    program = notifying()
    slow = listener('slow', '--delay', 0.05, '--executor-threads', 2)
    done = threading.Event()

    def write():
        for number in range(300):
            program.write(str(number))
            time.sleep(0.02)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            time.sleep(1.5)
            redis.kill()
            time.sleep(0.5)
            redis.start()
    finally:
        writer.join(HANG)
    assert done.is_set()
    waiting.until(
        lambda: len(program.all('accepted')) == 300, 'acceptance', 2 * HANG
    )
    waiting.until(
        lambda: set(payloads(slow)) == set(range(300)), 'delivery', 2 * HANG
    )
    assert set(collections.Counter(payloads(slow)).values()) == {1}


@pytest.mark.spec('NS-67')
def test_pools_that_are_there_are_served_while_redis_is_away(
    redis, notifying, listener
):
    here = listener('here')
    # What is late would have to be stored, on a machine that is busy.
    program = notifying('&notification_direct_timeout=20')
    notify(program, *range(5))
    redis.kill()
    notify(program, *range(5, 25))
    wait_for(range(25), here)
    redis.start()
    notify(program, 25)
    wait_for(range(26), here)
