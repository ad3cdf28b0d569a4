# SPDX-License-Identifier: Apache-2.0
"""Files that are full, damaged, of another release, moved or forbidden."""

import fcntl
import logging
import os
import pathlib
import random
import resource
import signal
import sqlite3
import tempfile
import threading

import pytest

from tests.fixtures import waiting
from tests.unit.store import samples
from zmq_driver import clock
from zmq_driver.store import base
from zmq_driver.store import batch
from zmq_driver.store import database
from zmq_driver.store import durable
from zmq_driver.store import persistent
from zmq_driver.store import reserve


@pytest.fixture
def path(directory):
    return pathlib.Path(directory, 'notifications.sqlite')


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(database, 'RETRY_AFTER', 0.0)


def fill(store, stored):
    """Store until there is an error."""
    for number in range(2, 1000):
        samples.add(store, number, size=3200)
        stored.append(number)


@pytest.mark.spec('NS-25')
def test_no_space_is_an_error_until_there_is_some(store):
    samples.add(store, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    stored = [1]
    try:
        with pytest.raises(base.StoreUnavailable, match='full') as error:
            fill(store, stored)
        assert 'notifications.sqlite' in str(error.value)
        assert samples.numbers(store) == stored
        with pytest.raises(base.StoreUnavailable):
            samples.add(store, 0, size=200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    samples.add(store, 1000)
    assert samples.numbers(store) == [*stored, 1000]


@pytest.mark.spec('NS-25')
def test_a_full_database_is_an_error(store):
    samples.add(store, 1)
    store._database.read(
        lambda connection: connection.execute('PRAGMA max_page_count = 30'), 0
    )
    with pytest.raises(base.StoreUnavailable, match='free space'):
        samples.add(store, 2, size=200_000)
    assert samples.numbers(store) == [1]
    samples.add(store, 3)


@pytest.mark.spec('NS-26')
@pytest.mark.parametrize('how', ['not one', 'torn'])
def test_a_damaged_file_is_set_aside(store, make, path, caplog, how):
    for number in range(100):
        samples.add(store, number, size=3200)
    store.close()
    damaged = bytearray(path.read_bytes())
    if how == 'not one':
        damaged[:100] = b'\0' * 50 + b'garbage' * 8
        del damaged[100:]
    else:
        rest = random.Random(1).randbytes(len(damaged) - 4096)
        damaged[4096:] = rest
    path.write_bytes(damaged)
    store = make()
    with caplog.at_level(logging.ERROR):
        with pytest.raises(base.StoreUnavailable, match='damaged'):
            fill(store, [])
        samples.add(store, 0)
    assert samples.numbers(store) == [0]
    (aside,) = path.parent.glob('*.damaged-*')
    assert str(aside) in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.spec('NS-26')
def test_reading_a_damaged_file(store, path, caplog):
    path.parent.mkdir()
    path.write_bytes(b'garbage' * 1000)
    with pytest.raises(base.StoreUnavailable, match='damaged'):
        store.counts()
    assert store.counts() == (0, 0, 0)
    assert len(caplog.records) == 1


@pytest.mark.spec('NS-26')
def test_a_damaged_file_that_cannot_be_moved(store, path, caplog):
    path.parent.mkdir()
    path.write_bytes(b'garbage' * 1000)
    path.with_name(path.name + '.aside').mkdir()
    for _ in range(2):
        with pytest.raises(base.StoreUnavailable, match='damaged'):
            samples.add(store, 1)
    assert 'cannot be moved' in caplog.text


@pytest.mark.spec('NS-26')
def test_another_process_moves_it_just_now(store, path, caplog):
    file = store._database.file
    file.prepare()
    lock = os.open(f'{path}.aside', os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path.write_bytes(b'garbage' * 1000)
    with pytest.raises(base.StoreUnavailable, match='damaged'):
        samples.add(store, 1)
    os.close(lock)
    assert not list(path.parent.glob('*.damaged-*'))
    path.unlink()
    assert file.set_aside() == ''


@pytest.mark.spec('NS-27')
@pytest.mark.parametrize('what', ['newer', 'foreign'])
def test_a_file_of_another_layout_is_left_alone(store, path, what):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    if what == 'newer':
        other.execute('PRAGMA user_version = 2')
    else:
        other.execute('CREATE TABLE foreign_table (x)')
    other.commit()
    other.close()
    for _ in range(2):
        with pytest.raises(base.StoreUnavailable, match=r'layout [02]'):
            samples.add(store, 1)
        with pytest.raises(base.StoreUnavailable, match='move the file away'):
            store.counts()
    assert path.exists()
    assert not list(path.parent.glob('*.damaged-*'))


@pytest.mark.spec('NS-27')
def test_what_cannot_be_opened_is_not_tried_all_the_time(
    store, path, monkeypatch
):
    monkeypatch.setattr(database, 'RETRY_AFTER', 3600.0)
    path.parent.mkdir()
    path.mkdir()
    with pytest.raises(base.StoreUnavailable, match='regular'):
        samples.add(store, 1)
    path.rmdir()
    with pytest.raises(base.StoreUnavailable, match='regular'):
        samples.add(store, 1)
    store._database._retry_at = 0.0
    samples.add(store, 1)


@pytest.mark.spec('NS-28')
@pytest.mark.leaks(reason='closing it would harm the file that is there')
def test_nothing_is_stored_in_a_file_that_is_gone(store, make, path):
    store.saw(samples.WHERE, ['a'])
    samples.add(store, 1)
    os.rename(path, path.with_name('away'))
    other = make()
    samples.add(other, 2)
    samples.add(store, 3)
    assert samples.numbers(other) == [2, 3]
    # What was known of the old one is not taken for known to the new one.
    store.saw(samples.WHERE, ['a'])
    assert make().pools(samples.WHERE) == {'a'}


@pytest.mark.spec('NS-28')
@pytest.mark.leaks(reason='closing it would harm the file that is there')
def test_a_file_that_goes_while_it_is_written(store, path):
    runs = []

    def run(connection):
        runs.append(connection)
        if len(runs) == 1:
            os.unlink(path)

    store._database.write(run, clock.Deadline(samples.HANG))
    assert len(runs) == 2
    assert path.exists()

    def always(connection):
        os.unlink(path)

    with pytest.raises(base.StoreUnavailable):
        store._database.write(always, clock.Deadline(0.05))


@pytest.mark.spec('NS-25')
def test_a_directory_that_cannot_be_used(make, tmp_path):
    store = make(where=str(tmp_path / 'missing' / 'ipc'))
    with pytest.raises(base.StoreUnavailable, match='create its parent'):
        samples.add(store, 1)
    assert store.counts() == (0, 0, 0)


def test_an_interrupt_leaves_nothing_half_done(store):
    samples.add(store, 1)

    def interrupt(connection):
        connection.execute('DELETE FROM copy')
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        store._database.write(interrupt, clock.Deadline(samples.HANG))
    assert samples.numbers(store) == [1]
    samples.add(store, 2)


@pytest.mark.spec('NS-14', 'NS-51')
@pytest.mark.parametrize('hangs', [False, True])
def test_what_is_being_written_is_waited_for(store, hangs, monkeypatch):
    if hangs:
        monkeypatch.setattr(database, 'HUNG_TIMEOUT', 0.05)
    answered = threading.Event()
    answers = []

    def block(_connection):
        # Until after the deadline of the other one, or until it gave up.
        answered.wait(samples.HANG if hangs else 2.5)

    def add():
        try:
            answers.append(samples.add(store, 1, timeout=2.0))
        except base.StoreUncertain as error:
            answers.append(str(error))
        answered.set()

    one = store._database
    thread = threading.Thread(target=add)
    with one._turn:
        one._waiting.put(batch.Work(block, clock.Deadline(samples.HANG)))
        thread.start()
        waiting.until(lambda: len(one._waiting._works) == 2, 'other one')
        one._carry_out([])
    thread.join(samples.HANG)
    (answer,) = answers
    if hangs:
        assert 'hangs; it may have been stored' in answer
    else:
        assert answer is None
    assert samples.numbers(store) == [1]


@pytest.mark.spec('NS-14', 'NS-16')
def test_reading_and_closing_do_not_wait_for_ever(store, monkeypatch):
    monkeypatch.setattr(database, 'READ_TIMEOUT', 0.05)
    monkeypatch.setattr(database, 'FORK_TIMEOUT', 0.05)
    samples.add(store, 1)
    one = store._database
    # As another thread does that stores something just now.
    one._turn.acquire()
    with pytest.raises(base.StoreUnavailable, match='too long'):
        store.counts()
    store.close()
    assert one._connection is not None
    one._leave_turn([])
    assert one._connection is None


@pytest.mark.spec('NS-91')
def test_pools_are_remembered_while_the_file_is_busy(make, monkeypatch):
    monkeypatch.setattr(durable, 'KNOWN_TTL', 0.0)
    monkeypatch.setattr(persistent, 'SHORT_TIMEOUT', 0.05)
    store = make()
    samples.add(store, 1, ['a'])
    assert store.pools(samples.WHERE) == {'a'}
    store.saw(samples.WHERE, ['b'])
    store._database._turn.acquire()
    try:
        assert store.pools(samples.WHERE) == {'a', 'b'}
        with pytest.raises(base.StoreUnavailable, match='too long'):
            store.pools(samples.WHERE._replace(topic='unknown'))
    finally:
        store._database._turn.release()
    make().saw(samples.WHERE, ['c'])
    assert store.pools(samples.WHERE) == {'a', 'b', 'c'}


@pytest.mark.spec('NS-14')
def test_reading_while_another_process_makes_the_file(
    store, path, monkeypatch
):
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute('BEGIN EXCLUSIVE')
    monkeypatch.setattr(database, 'READ_TIMEOUT', 0.05)
    with pytest.raises(base.StoreUnavailable, match='too long'):
        store.counts()
    with pytest.raises(base.StoreUnavailable, match='too long'):
        samples.add(store, 1, timeout=0.05)
    other.execute('ROLLBACK')
    other.close()
    samples.add(store, 1)


@pytest.mark.spec('NS-25')
def test_a_directory_that_cannot_be_named(make, monkeypatch):
    monkeypatch.setenv('XDG_RUNTIME_DIR', '')

    def fail():
        raise FileNotFoundError(2, 'none')

    monkeypatch.setattr(tempfile, 'gettempdir', fail)
    store = make(where=None)
    with pytest.raises(base.StoreUnavailable, match=r'notifications\.sqlite'):
        samples.add(store, 1)


@pytest.mark.spec('NS-13')
def test_a_directory_of_another_user_is_left_as_it_is(
    store, path, monkeypatch
):
    samples.add(store, 1)
    modes = {p: p.stat().st_mode for p in path.parent.iterdir()}
    monkeypatch.setattr(os, 'geteuid', lambda: 4242)
    store._database.file.share()
    assert {p: p.stat().st_mode for p in path.parent.iterdir()} == modes


class Failing:
    """A connection whose commits fail after they were done."""

    def __init__(self, connection, error):
        self._connection = connection
        self._error = error

    def execute(self, statement, *arguments):
        cursor = self._connection.execute(statement, *arguments)
        if statement == 'COMMIT':
            raise self._error
        return cursor

    def __getattr__(self, name):
        return getattr(self._connection, name)


def failure(code):
    error = sqlite3.OperationalError('disk I/O error')
    error.sqlite_errorcode = code
    return error


@pytest.mark.spec('NS-51')
@pytest.mark.parametrize(
    ('code', 'doubtful'),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_FULL, False),
    ],
)
def test_a_commit_that_fails_may_have_been_done(store, code, doubtful):
    samples.add(store, 1)
    one = store._database
    one._connection = Failing(one._connection, failure(code))
    with pytest.raises(base.StoreError) as caught:
        samples.add(store, 2)
    assert isinstance(caught.value, base.StoreUncertain) is doubtful
    samples.add(store, 3)


@pytest.mark.spec('NS-51')
def test_an_interrupt_at_the_end_leaves_others_in_doubt(store):
    samples.add(store, 1)
    one = store._database
    one._connection = Failing(one._connection, KeyboardInterrupt())
    work = batch.Work(lambda connection: None, clock.Deadline(samples.HANG))
    with one._turn:
        one._waiting.put(work)
        with pytest.raises(KeyboardInterrupt):
            one._carry_out([])
    with pytest.raises(base.StoreUncertain, match='interrupted'):
        work.answer()
    samples.add(store, 3)


@pytest.mark.spec('NS-51')
def test_what_was_done_meanwhile_is_no_failure(store, monkeypatch):
    monkeypatch.setattr(database, 'HUNG_TIMEOUT', 0.05)
    one = store._database
    work = batch.Work(lambda connection: None, clock.Deadline(0.05))
    with one._turn:
        # The next transaction hangs, not the one that had this.
        work.finished = True
        one._see_to(work)
        assert not one._take_turn(work)


def space(monkeypatch, free, total, block=4096):
    sizes = [0] * 10
    sizes[:5] = block, block, total // block, free // block, free // block
    monkeypatch.setattr(os, 'statvfs', lambda _: os.statvfs_result(sizes))


@pytest.mark.spec('NS-52')
def test_the_last_room_is_left_to_others(store, monkeypatch):
    samples.add(store, 1)
    space(monkeypatch, reserve.RESERVE - 4096, 2**30)
    with pytest.raises(base.StoreFull, match='store_directory') as caught:
        samples.add(store, 2)
    assert 'notifications.sqlite' in str(caught.value)
    # What is there can be taken out, and pools be remembered.
    store.saw(samples.WHERE, ['a'])
    store.done([one.key for one in samples.everything(store)])
    assert samples.numbers(store) == []
    space(monkeypatch, reserve.RESERVE + 2**20, 2**30)
    with pytest.raises(base.StoreFull, match='store_directory'):
        samples.add(store, 3, size=2**20)
    samples.add(store, 4)
    assert samples.numbers(store) == [4]


@pytest.mark.spec('NS-52')
def test_of_a_small_file_system_less_is_left(store, monkeypatch):
    space(monkeypatch, 2**20 + 8192, 2**22)
    samples.add(store, 1)
    space(monkeypatch, 2**20 - 8192, 2**22)
    with pytest.raises(base.StoreFull):
        samples.add(store, 2)
    # One that does not tell its size has no bound that could be known.
    space(monkeypatch, 0, 0)
    samples.add(store, 3)


@pytest.mark.spec('NS-52')
def test_what_one_transaction_writes_is_bounded():
    works = batch.Waiting()
    for _ in range(10):
        works.put(batch.Work(None, None, batch.MAX_SIZE // 2))
    assert len(works.take()) == 2
    works.put(batch.Work(None, None, 2 * batch.MAX_SIZE))
    assert [len(works.take()) for _ in range(6)] == [2, 2, 2, 2, 1, 0]
