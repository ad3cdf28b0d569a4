# SPDX-License-Identifier: Apache-2.0
"""Several processes with one file, that are killed, and that fork."""

import os
import random
import signal
import sqlite3
import threading
import time

import pytest

from tests.unit.store import samples
from zmq_driver import clock
from zmq_driver.store import base
from zmq_driver.store import database

#: Stores for as long as it lives, and says what is stored.
WRITER = """
first = int(sys.argv[2])
for number in range(first, first + int(sys.argv[3])):
    samples.add(store, number, ['a', 'b'], size=3200)
    os.write(1, b'%d\\n' % number)
"""

#: Takes and removes for as long as it is told to, and says what.
DRAINER = """
import time
print('ready', flush=True)
while not os.path.exists(sys.argv[2]) or store.pending(1):
    if not store.claim():
        time.sleep(0.01)
        continue
    for queue in store.pending(9):
        found = store.take(queue.number, 16)
        keys = [one.key for one in found]
        store.hold(keys, samples.HOLDER)
        for one in found:
            os.write(1, b'%s %d\\n' % (one.pool.encode(), samples.number(one)))
        store.done(keys)
"""


def wait(process):
    out, _ = process.communicate(timeout=samples.HANG)
    assert process.returncode == 0
    return out.splitlines()


def in_child(run):
    """Run a function in a forked child; return whether it returned true."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if run() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + samples.HANG
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.spec('NS-17', 'NS-18')
def test_processes_that_store_and_drain_lose_and_repeat_nothing(
    store, directory, tmp_path
):
    stop = tmp_path / 'stop'
    writers = [
        samples.start(WRITER, directory, 1000 * n, 150) for n in range(3)
    ]
    drainers = [samples.start(DRAINER, directory, stop) for _ in range(2)]
    stored = [line for one in writers for line in wait(one)]
    stop.touch()
    found = [line for one in drainers for line in wait(one)]
    assert len(stored) == 450
    assert sorted(line for line in found if line != 'ready') == sorted(
        f'{pool} {number}' for number in stored for pool in 'ab'
    )
    assert store.counts() == (0, 0, 0)


@pytest.mark.spec('NS-03', 'NS-04')
def test_what_was_stored_survives_the_death_of_its_process(directory, store):
    """Each is killed at some moment, most often within a transaction."""
    stored = []
    for kill in range(6):
        process = samples.start(WRITER, directory, 100_000 * kill, 99_999)
        lines = [process.stdout.readline()]
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        out = process.stdout.read()
        process.communicate(timeout=samples.HANG)
        # What it was just writing is no line.
        lines += out[: out.rfind('\n') + 1].splitlines()
        stored += [int(line) for line in lines]
    for pool in 'ab':
        found = samples.numbers(store, pool)
        assert len(found) == len(set(found))
        assert set(stored) <= set(found)
        # Of each, at most the one whose end was not told of.
        assert len(found) <= len(stored) + 6
    # All of its copies, or none.
    assert samples.numbers(store, 'a') == samples.numbers(store, 'b')
    check = sqlite3.connect(store._database.file.path)
    assert check.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
    check.close()


@pytest.mark.spec('NS-18')
def test_the_one_who_drains_ends_with_its_process(store, make, directory):
    code = 'print(store.claim(), flush=True)\nsys.stdin.read()'
    process = samples.start(code, directory)
    assert process.stdout.readline() == 'True\n'
    assert not store.claim()
    process.kill()
    process.communicate(timeout=samples.HANG)
    assert store.claim()
    assert store.claim()
    other = make()
    assert not other.claim()
    other.unclaim()
    assert store.claim()
    store.unclaim()
    assert other.claim()
    other.close()
    assert store.claim()


@pytest.mark.spec('NS-18')
def test_a_child_does_not_keep_the_turn_of_its_parent(store, directory):
    code = (
        'print(store.claim(), flush=True)\n'
        'child = os.fork()\n'
        'if not child:\n'
        '    other = samples.make(sys.argv[1])\n'
        '    print(store.claim(), other.claim(), flush=True)\n'
        '    os.close(1)\n'
        '    sys.stdin.read()\n'
        'else:\n'
        '    os.waitpid(child, 0)\n'
    )
    process = samples.start(code, directory)
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines == ['True\n', 'False False\n']
        assert not store.claim()
        process.kill()
        process.wait(samples.HANG)
        # The child is still there, with all that it inherited.
        assert store.claim()
    finally:
        process.communicate(timeout=samples.HANG)


@pytest.mark.spec('NS-18')
def test_without_its_file_a_turn_is_over(store, make):
    assert store.claim()
    os.unlink(store._turn._path)
    other = make()
    assert other.claim()
    assert not store.claim()


@pytest.mark.spec('NS-18')
def test_a_turn_that_cannot_be_taken_is_no_answer(store, directory):
    os.mkdir(directory)
    os.mkdir(os.path.join(directory, 'notifications.drain'))
    with pytest.raises(base.StoreUnavailable, match='drains'):
        store.claim()


@pytest.mark.spec('NS-19')
def test_parent_and_child_go_on(store, make):
    samples.add(store, 1)

    def child():
        store.forget()
        other = make()
        for number in range(2, 50):
            samples.add(other, number)
        other.close()
        return True

    assert in_child(child)
    samples.add(store, 99)
    assert sorted(samples.numbers(store)) == [*range(1, 50), 99]


@pytest.mark.spec('NS-19')
@pytest.mark.parametrize('one_each', [False, True])
def test_forks_while_threads_store(store, make, one_each):
    """In one store, or in one that is made for each notification."""
    stop = threading.Event()
    stored = []

    def work(first):
        number = first
        while not stop.is_set():
            used = make() if one_each else store
            samples.add(used, number)
            stored.append(number)
            number += 1
            if one_each:
                used.close()

    threads = [
        threading.Thread(target=work, args=(1_000_000 * n,)) for n in (1, 2)
    ]
    for thread in threads:
        thread.start()
    try:
        for fork in range(20):

            def child(fork=fork):
                samples.add(make(), fork)
                return True

            assert in_child(child)
            stored.append(fork)
    finally:
        stop.set()
        for thread in threads:
            thread.join(samples.HANG)
    assert sorted(samples.numbers(store)) == sorted(stored)


@pytest.mark.spec('NS-19')
def test_a_child_of_a_fork_within_a_transaction_refuses(
    store, make, monkeypatch
):
    monkeypatch.setattr(database, 'FORK_TIMEOUT', 0.1)
    samples.add(store, 1)
    answers = []

    def fork(_connection):
        def child():
            with pytest.raises(base.StoreUnavailable, match='forked'):
                samples.add(make(), 2)
            return True

        answers.append(in_child(child))

    store._database.write(fork, clock.Deadline(samples.HANG))
    assert answers == [True]
    samples.add(store, 3)
    assert samples.numbers(store) == [1, 3]


@pytest.mark.spec('NS-19')
def test_a_fork_that_python_does_not_notice(store, make, monkeypatch):
    samples.add(store, 1)
    other = make()

    def child():
        # As if nothing had closed the file before.
        store._database._pid = os.getppid()
        for one in (other, store):
            with pytest.raises(base.StoreUnavailable, match='forked'):
                samples.add(one, 2)
        store.close()
        with pytest.raises(base.StoreUnavailable, match='forked'):
            samples.add(make(), 2)
        return True

    monkeypatch.setattr(database.Database, 'before_fork', lambda self: None)
    monkeypatch.setattr(
        database.Database, 'after_fork_in_child', lambda self: None
    )
    monkeypatch.setattr(
        database.Database, 'after_fork_in_parent', lambda self: None
    )
    assert in_child(child)
    samples.add(store, 3)
    assert samples.numbers(store) == [1, 3]
