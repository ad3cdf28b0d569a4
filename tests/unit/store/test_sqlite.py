# SPDX-License-Identifier: Apache-2.0
"""What a store in SQLite does with one process."""

import os
import pathlib
import stat
import threading

import pytest

from tests.unit.store import samples
from zmq_driver import clock
from zmq_driver.store import base
from zmq_driver.store import persistent
from zmq_driver.store import sqlite
from zmq_driver.store import tidying


def files(directory):
    path = pathlib.Path(directory)
    return sorted(p.name for p in path.iterdir()) if path.exists() else []


@pytest.mark.spec('NS-01')
def test_nothing_is_touched_before_something_is_stored(store, directory):
    assert store.pools(samples.WHERE) == frozenset()
    assert store.pending(10) == store.queues(10) == store.take(1, 10) == []
    assert store.counts() == (0, 0, 0)
    store.saw(samples.WHERE, [])
    store.close()
    assert not pathlib.Path(directory).exists()


@pytest.mark.spec('NS-11')
@pytest.mark.parametrize(('sync', 'level'), [('normal', 1), ('full', 2)])
def test_the_disk_is_waited_for_as_configured(make, sync, level):
    store = make(notification_store_sync=sync)
    samples.add(store, 1)
    found = store._database.read(
        lambda connection: (
            connection.execute('PRAGMA synchronous').fetchone(),
            connection.execute('PRAGMA journal_mode').fetchone(),
        ),
        None,
    )
    assert found == ((level,), ('wal',))


@pytest.mark.spec('NS-12')
def test_deployments_share_nothing(make, directory):
    names = {
        sqlite.file_name(site)
        for site in ('local /', 'local /v', 'redis / a:1', 'redis / b:1')
    }
    assert len(names) == 4
    assert 'notifications.sqlite' in names
    samples.add(make(), 1)
    assert make('local /v').counts().copies == 0
    samples.add(make('local /v'), 2)
    assert samples.numbers(make()) == [1]


@pytest.mark.spec('NS-12')
@pytest.mark.parametrize(
    ('site', 'option'),
    [('redis / a:1', 'redis_key_prefix'), ('ring /', 'ringfile')],
)
def test_so_do_those_that_only_an_option_keeps_apart(make, site, option):
    samples.add(make(site, **{option: 'one'}), 1)
    assert make(site, **{option: 'two'}).counts().copies == 0
    assert make(site, **{option: 'one'}).counts().copies == 1


@pytest.mark.spec('NS-13')
def test_a_directory_of_its_own(make, directory, tmp_path):
    place = tmp_path / 'var'
    store = make(notification_store_directory=str(place))
    samples.add(store, 1)
    assert store.claim()
    assert not pathlib.Path(directory).exists()
    assert 'notifications.sqlite' in files(place)


@pytest.mark.spec('NS-13')
@pytest.mark.parametrize(('shared', 'mode'), [(False, 0o600), (True, 0o660)])
def test_only_those_who_share_the_directory_may_read_it(
    make, directory, shared, mode
):
    path = pathlib.Path(directory)
    path.mkdir()
    path.chmod(0o770 if shared else 0o755)
    mask = os.umask(0o077 if shared else 0)
    try:
        store = make()
        samples.add(store, 1)
        store.claim()
        assert len(files(directory)) == 4
        for name in files(directory):
            found = stat.S_IMODE((path / name).stat().st_mode)
            assert found == mode, name
    finally:
        os.umask(mask)


@pytest.mark.spec('NS-14')
def test_a_busy_store_is_not_waited_for_beyond_the_deadline(store, make):
    samples.add(store, 1)
    release = threading.Event()
    busy = threading.Event()

    def block(connection):
        busy.set()
        release.wait(samples.HANG)

    thread = threading.Thread(
        target=store._database.write,
        args=(block, clock.Deadline(samples.HANG)),
    )
    thread.start()
    try:
        assert busy.wait(samples.HANG)
        for other in (store, make()):
            with pytest.raises(base.StoreUnavailable, match='too long'):
                samples.add(other, 2, timeout=0.05)
            with pytest.raises(base.StoreUnavailable, match='too long'):
                samples.add(other, 2, timeout=0)
            with pytest.raises(base.StoreUnavailable, match='too long'):
                other.saw(samples.WHERE, ['a'])
        # Reading goes on while another process writes.
        assert other.pools(samples.WHERE) == frozenset()
        with pytest.raises(base.StoreUnavailable, match='too long'):
            store.pools(samples.WHERE)
    finally:
        release.set()
        thread.join(samples.HANG)
    assert samples.numbers(store) == [1]


@pytest.mark.spec('NS-15')
def test_space_is_given_back(make, monkeypatch, directory):
    monkeypatch.setattr(tidying, 'IDLE_PAGES', 8)
    store = make()
    for number in range(200):
        samples.add(store, number, size=4000)
    path = pathlib.Path(directory, 'notifications.sqlite')
    store.close()
    store = make()
    full = path.stat().st_size
    assert full > 200 * 4000
    store.done([one.key for one in samples.everything(store)])
    monkeypatch.setattr(persistent, 'TIDY_INTERVAL', 0.0)
    store._tidy_at = 0.0
    store.pending(1)
    store.close()
    assert path.stat().st_size < full / 4
