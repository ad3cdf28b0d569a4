# SPDX-License-Identifier: Apache-2.0
"""What happens to the store in Redis when Redis fails."""

import re
import shutil
import time

import pytest

from tests.fixtures import process
from tests.fixtures import redis_server
from tests.fixtures import waiting
from tests.unit.store import samples
from tests.unit.store import test_redis_store
from zmq_driver.store import base
from zmq_driver.store import durable
from zmq_driver.store.redis import lease

SECRET = 'sekr1t'

SPEC = process.ROOT / 'doc' / 'specs' / 'notifications-redis.rst'
#: The rights that it lists.
RIGHTS = (
    re.search(r'user zmq on .*?(-@all.*)\n\n', SPEC.read_text(), re.DOTALL)[1]
    .partition('\n\n')[0]
    .split()
)


@pytest.fixture
def place(own_redis):
    return f'zmq+redis://{own_redis.address}/'


def test_the_rights_are_found():
    assert RIGHTS[0] == '-@all'
    assert RIGHTS[-1] == '+xinfo'


@pytest.mark.spec('NS-67')
def test_while_redis_is_away_pools_are_remembered(
    store, make, own_redis, monkeypatch
):
    monkeypatch.setattr(durable, 'KNOWN_TTL', 0.0)
    store = make()
    samples.add(store, 1, ['a'])
    assert store.pools(samples.WHERE) == {'a'}
    store.saw(samples.WHERE, ['b'])
    own_redis.kill()
    for _ in range(2):
        assert store.pools(samples.WHERE) == {'a', 'b'}
        with pytest.raises(base.StoreAway):
            store.saw(samples.WHERE, ['c'])
        with pytest.raises(base.StoreAway):
            store.pools(samples.WHERE._replace(topic='unknown'))
    with pytest.raises(base.StoreAway, match='Redis at') as error:
        samples.add(store, 2, ['a'])
    assert not error.value.may_be_done
    own_redis.start()
    samples.add(store, 2, ['a'])
    waiting.until(
        lambda: not store._access.is_away(), 'another try', samples.HANG
    )
    store.saw(samples.WHERE, ['c'])
    assert store.pools(samples.WHERE) == {'a', 'b', 'c'}
    assert samples.numbers(store, 'a') == [1, 2]


@pytest.mark.spec('NS-91')
def test_while_redis_refuses_pools_are_remembered(
    make, own_redis, monkeypatch
):
    monkeypatch.setattr(durable, 'KNOWN_TTL', 0.0)
    store = make()
    samples.add(store, 1, ['a'])
    assert store.pools(samples.WHERE) == {'a'}
    own_redis.command('ACL', 'SETUSER', 'default', '-eval', '-evalsha')
    assert store.pools(samples.WHERE) == {'a'}
    with pytest.raises(base.StoreUnavailable) as error:
        store.pools(samples.WHERE._replace(topic='unknown'))
    assert not isinstance(error.value, base.StoreAway)
    own_redis.command('ACL', 'SETUSER', 'default', '+@all')
    store.saw(samples.WHERE, ['b'])
    assert store.pools(samples.WHERE) == {'a', 'b'}


@pytest.mark.spec('NS-67', 'NS-62', 'NS-14')
def test_what_a_frozen_redis_may_have_done_is_told(store, make, own_redis):
    samples.add(store, 1, ['a'])
    store.pools(samples.WHERE)
    own_redis.freeze()
    try:
        start = time.monotonic()
        with pytest.raises(base.StoreAway, match='did not answer') as error:
            samples.add(store, 2, ['a'], timeout=0.2)
        assert error.value.may_be_done
        with pytest.raises(base.StoreAway) as error:
            samples.add(make(), 3, ['a'], timeout=0.2)
        assert error.value.may_be_done
        # Nobody in a hurry asks again just now.
        with pytest.raises(base.StoreAway, match='away'):
            store.saw(samples.WHERE, ['b'])
        assert time.monotonic() - start < samples.HANG
    finally:
        own_redis.thaw()
    samples.add(store, 2, ['a'])
    # When it runs again, it does what it was asked to; once.
    assert sorted(samples.numbers(store, 'a'))[:2] == [1, 2]
    assert samples.numbers(store, 'a').count(2) == 1


@pytest.mark.spec('NS-68')
def test_a_redis_without_memory(store, own_redis):
    samples.add(store, 1, ['a'])
    own_redis.command('CONFIG', 'SET', 'maxmemory', '1')
    with pytest.raises(base.StoreUnavailable, match='raise its') as error:
        samples.add(store, 2, ['b'])
    assert not isinstance(error.value, base.StoreAway)
    # What is there can be taken and delivered.
    assert store.counts().copies == 1
    store.done([samples.everything(store, 'a')[0].key])
    own_redis.command('CONFIG', 'SET', 'maxmemory', '0')
    samples.add(store, 2, ['b'])
    assert samples.numbers(store, 'b') == [2]
    assert len(store.queues(9)) == 2


@pytest.mark.spec('NS-68')
def test_a_redis_that_is_no_master_any_more(store, own_redis):
    samples.add(store, 1, ['a'])
    own_redis.command('REPLICAOF', '127.0.0.1', '1')
    with pytest.raises(base.StoreAway, match='name the master') as error:
        samples.add(store, 2, ['a'])
    assert not error.value.may_be_done
    own_redis.command('REPLICAOF', 'NO', 'ONE')
    samples.add(store, 2, ['a'])
    assert samples.numbers(store, 'a') == [1, 2]


@pytest.mark.spec('NS-68')
def test_a_redis_that_cannot_write_to_its_disk(store, own_redis):
    samples.add(store, 1, ['a'])
    own_redis.command('CONFIG', 'SET', 'save', '3600 1', 'appendonly', 'no')
    shutil.rmtree(own_redis.directory)
    own_redis.command('BGSAVE')

    def failed():
        found = own_redis.command('INFO', 'persistence')
        return found['rdb_last_bgsave_status'] == 'err'

    waiting.until(failed, 'failure', samples.HANG)
    with pytest.raises(base.StoreUnavailable, match='see its log'):
        samples.add(store, 2, ['a'])
    own_redis.directory.mkdir()
    own_redis.command('CONFIG', 'SET', 'save', '')
    samples.add(store, 2, ['a'])
    assert samples.numbers(store, 'a') == [1, 2]


@pytest.mark.spec('NS-68', 'MM-69')
def test_a_password_that_is_wrong(make, own_redis):
    own_redis.command('CONFIG', 'SET', 'requirepass', 'right')
    own_redis.password = 'right'
    store = make(where=f'zmq+redis://:{SECRET}@{own_redis.address}/')
    with pytest.raises(base.StoreUnavailable, match='check user') as error:
        samples.add(store, 1)
    assert not isinstance(error.value, base.StoreAway)
    assert SECRET not in str(error.value)
    assert SECRET not in repr(store.settings)


@pytest.mark.spec('NS-69')
def test_a_redis_that_is_killed_has_lost_nothing(store, own_redis):
    for number in range(50):
        samples.add(store, number, ['a', 'b'])
    assert store.claim()
    copies = test_redis_store.take(store, 'a')
    store.hold([one.key for one in copies], samples.HOLDER)
    store.done([one.key for one in copies[:10]])
    own_redis.kill()
    with pytest.raises(base.StoreAway):
        store.changed()
    own_redis.start()
    assert store.claim()
    found = samples.everything(store, 'a')
    assert [samples.number(one) for one in found] == list(range(10, 50))
    assert {one.holder for one in found} == {samples.HOLDER}
    assert samples.numbers(store, 'b') == list(range(50))
    assert store.counts().copies == 90


@pytest.mark.spec('NS-70')
def test_a_redis_that_lost_everything(store, own_redis, monkeypatch):
    monkeypatch.setattr(lease, 'RENEWAL', 0.0)
    samples.add(store, 1, ['a'])
    store.saw(samples.WHERE, ['a', 'b'])
    assert store.claim()
    (old,) = test_redis_store.take(store)
    store.changed()
    own_redis.command('FLUSHALL')
    assert store.changed() or True
    store.done([old.key])
    store.hold([], samples.HOLDER)
    with pytest.raises(base.StoreUnavailable, match='another process'):
        store.hold([old.key], samples.HOLDER)
    assert not store.claim()
    store.unclaim()
    assert store.claim()
    samples.add(store, 2, ['a'])
    assert store.changed()
    store.done([old.key])
    store.bury([old.key])
    assert samples.numbers(store, 'a') == [2]
    assert store.counts() == (1, 0, 2)
    # Whoever is there is written down again, after a second at most.

    def durable_again():
        store.pools(samples.WHERE)
        store.saw(samples.WHERE, ['a', 'b'])
        return store.pools(samples.WHERE) == {'a', 'b'}

    waiting.until(durable_again, 'durable pools', samples.HANG)


@pytest.mark.spec('NS-73')
def test_the_rights_that_are_listed_suffice(make, own_redis):
    own_redis.command(
        'ACL', 'SETUSER', 'zmq', 'on', '>pw', '~oslo:zmq:*', '&oslo:zmq:*',
        *RIGHTS,
    )  # fmt: skip
    store = make(
        where=f'zmq+redis://zmq:pw@{own_redis.address}/',
        notification_store_max_count=3,
        notification_store_max_age=1000.0,
        notification_store_overflow='drop_oldest',
    )
    other = make(where=f'zmq+redis://zmq:pw@{own_redis.address}/')
    for number in range(3):
        samples.add(store, number, ['a', None])
    store.saw(samples.WHERE, ['b'])
    assert store.pools(samples.WHERE) == {'a', 'b'}
    assert store.claim()
    assert other.claim()
    (one,) = test_redis_store.take(store)
    store.put_back(one.key.queue)
    (one,) = test_redis_store.take(store)
    store.hold([one.key], samples.HOLDER)
    store.release([one.key])
    store.unclaim()
    (one,) = test_redis_store.take(other)
    other.bury([one.key])
    (grave,) = other.pending(9, dead=True)
    assert other.replay(grave.number, 9) == 1
    (anybody,) = test_redis_store.take(other, None)
    other.split([anybody.key], ['a', 'b'])
    other.changed()
    for queue in other.queues(9):
        other.purge(queue.number, 9)
        assert other.remove(queue.number)
    assert other.counts() == (0, 0, 0)
    other.close()


@pytest.mark.spec('NS-76')
def test_after_a_failover_it_goes_on_at_the_new_master(make):
    servers = redis_server.SentinelDeployment()
    try:
        servers.start()
        store = make(where=f'zmq+sentinel://{servers.hosts}/mymaster')
        samples.add(store, 1, ['a'])
        assert store.claim()

        def replicated():
            return servers.replica.command('KEYS', '*stored*messages')

        waiting.until(replicated, 'replication', samples.HANG)
        servers.fail_over()

        def add():
            try:
                samples.add(store, 2, ['a'], timeout=2)
            except base.StoreAway:
                time.sleep(0.1)
                return False
            return True

        waiting.until(add, 'another master', samples.HANG)
        assert samples.numbers(store, 'a') == [1, 2]
        if not store.claim():
            # That took longer than a lease.
            store.unclaim()
            assert store.claim()
        assert test_redis_store.taken(store) == [1, 2]
        store.close()
    finally:
        servers.close()
