# SPDX-License-Identifier: Apache-2.0
"""The operators' commands for stored notifications, as processes."""

import contextlib

import pytest

from tests.fixtures import redis_server
from tests.functional import test_commands
from tests.unit.store import samples
from zmq_driver.store import base

OTHER = samples.WHERE._replace(topic='n.error')


@pytest.fixture
def redis():
    server = redis_server.RedisServer()
    yield server.start()
    server.close()


@pytest.fixture
def url(ipc_dir):
    return f'zmq:///?rpc_zmq_ipc_dir={ipc_dir}'


@pytest.fixture(params=['sqlite', 'redis'])
def each_url(request, ipc_dir, url):
    """Give the URL of each store."""
    if request.param == 'sqlite':
        return url
    redis = request.getfixturevalue('redis')
    return f'zmq+redis://{redis.address}/?rpc_zmq_ipc_dir={ipc_dir}'


@pytest.fixture
def store(ipc_dir, each_url):
    is_redis = each_url.startswith('zmq+redis')
    store = samples.make(each_url if is_redis else str(ipc_dir))
    with contextlib.closing(store):
        yield store


def shown(url, *arguments):
    status, rows = test_commands.table(
        'notifications', *arguments, '--url', url
    )
    assert status == 0
    return rows


def refused(url, *arguments):
    found = test_commands.run('notifications', *arguments, '--url', url)
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1
    return found.stderr


@pytest.mark.spec('CM-09', 'CM-08', 'NS-77')
def test_list(each_url, store, ipc_dir):
    url = each_url
    assert shown(url, 'list') == []
    assert not list(ipc_dir.glob('notifications*'))
    samples.add(store, 1, ['a', ''])
    samples.add(store, 2, ['a'])
    samples.add(store, 3, where=OTHER)
    store.bury([samples.everything(store, 'a')[0].key])
    store.saw(OTHER, ['idle'])
    rows = shown(url, 'list')
    assert [(row['Topic'], row['Pool']) for row in rows] == [
        ('n.error', None),
        ('n.error', 'idle'),
        ('n.info', ''),
        ('n.info', 'a'),
    ]
    assert [(row['Waiting'], row['Dead']) for row in rows] == [
        (1, 0),
        (0, 0),
        (1, 0),
        (1, 1),
    ]
    assert {row['Exchange'] for row in rows} == {'openstack'}
    for row in rows:
        assert (row['Oldest'] is None) is (row['Pool'] == 'idle')
        assert (row['Seen'] is None) is (row['Pool'] is None)
        assert 0 <= (row['Oldest'] or 0) < 3600
    assert len(shown(url, 'list', '--topic', 'n.info')) == 2
    assert len(shown(url, 'list', '--pool', '')) == 1
    assert len(shown(url, 'list', '--no-pool')) == 1
    assert shown(url, 'list', '--exchange', 'nova') == []


@pytest.mark.spec('CM-10', 'NS-77')
def test_purge(each_url, store):
    url = each_url
    for number in range(1200):
        samples.add(store, number, ['a', 'b'])
    store.bury([samples.everything(store, 'a')[0].key])
    assert '--all' in refused(url, 'purge')
    assert 'exclude' in refused(url, 'purge', '--dead', '--forget', '--all')
    assert 'no such' in refused(url, 'purge', '--pool', 'c')
    (row,) = shown(url, 'purge', '--pool', 'a', '--dead')
    assert (row['State'], row['Dropped']) == ('dead', 1)
    assert store.counts()[:2] == (2399, 0)
    rows = shown(url, 'purge', '--pool', 'a')
    assert sorted(row['Dropped'] for row in rows) == [0, 1199]
    assert not any(row['Forgotten'] for row in rows)
    assert store.counts().copies == 1200
    assert 'a' in {queue.pool for queue in store.queues(9)}
    shown(url, 'purge', '--pool', 'a', '--forget')
    assert {queue.pool for queue in store.queues(9)} == {'b'}
    (row,) = shown(url, 'purge', '--all', '--forget')
    assert (row['Dropped'], row['Forgotten']) == (1200, True)
    assert store.counts() == base.Counts(0, 0, 0)


@pytest.mark.spec('CM-11', 'NS-77')
def test_replay(each_url, store):
    url = each_url
    for number in range(3):
        samples.add(store, number, ['a', 'b'])
    for pool in 'ab':
        store.bury([one.key for one in samples.everything(store, pool)])
    (row,) = shown(url, 'replay', '--pool', 'a')
    assert (row['Pool'], row['Replayed']) == ('a', 3)
    assert sorted(samples.numbers(store, 'a')) == [0, 1, 2]
    assert store.counts()[:2] == (3, 3)
    assert len(shown(url, 'replay')) == 1
    assert shown(url, 'replay') == []


@pytest.mark.spec('CM-09')
def test_without_a_store(url):
    assert 'notification_store' in refused(
        f'{url}&notification_store=none', 'list'
    )


@pytest.mark.spec('CM-09')
def test_a_store_that_cannot_be_read(url, ipc_dir):
    (ipc_dir / 'notifications.sqlite').mkdir()
    assert 'not a regular file' in refused(url, 'list')


@pytest.mark.spec('CM-09', 'NS-77')
def test_a_redis_that_is_away(redis, ipc_dir):
    url = f'zmq+redis://{redis.address}/?rpc_zmq_ipc_dir={ipc_dir}'
    redis.kill()
    assert redis.address in refused(url, 'list')
