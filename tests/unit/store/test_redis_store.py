# SPDX-License-Identifier: Apache-2.0
"""What the store in Redis does, among several that drain."""

import contextlib
import logging
import signal
import time
import uuid

import pytest

from tests.fixtures import waiting
from tests.unit.store import samples
from tests.unit.store import test_processes
from zmq_driver import clock
from zmq_driver.store import base
from zmq_driver.store import loading
from zmq_driver.store import persistent
from zmq_driver.store.redis import lease
from zmq_driver.store.redis import store as redis_store


@pytest.fixture
def prefix():
    return f'{uuid.uuid4().hex}:'


@pytest.fixture
def place(shared_redis, prefix):
    return f'zmq+redis://{shared_redis.address}/?redis_key_prefix={prefix}'


@pytest.fixture
def short(monkeypatch):
    """Let leases end soon."""
    monkeypatch.setattr(lease, 'TTL', 0.3)
    monkeypatch.setattr(lease, 'RENEWAL', 0.05)


def keys(server, prefix):
    found = server.command('KEYS', f'{prefix}stored::*')
    return {key.decode().removeprefix(f'{prefix}stored::') for key in found}


def take(store, pool='a', limit=100, after=0, **kwargs):
    (queue,) = [q for q in store.pending(100) if q.pool == pool]
    return store.take(queue.number, limit, after, **kwargs)


def taken(store, *args, **kwargs):
    return [samples.number(one) for one in take(store, *args, **kwargs)]


@pytest.mark.spec('NS-60')
@pytest.mark.parametrize(
    ('url', 'name'),
    [
        ('zmq:///', 'sqlite'),
        ('zmq+ring:////etc/ring.json', 'sqlite'),
        ('zmq+redis://localhost/', 'redis'),
        ('zmq+sentinel://localhost/', 'redis'),
        ('zmq+redis://localhost/?notification_store=sqlite', 'sqlite'),
        ('zmq+redis://localhost/?notification_store=none', 'none'),
    ],
)
def test_the_url_chooses_the_store(url, name):
    store = samples.make(url)
    assert type(store) is loading.STORES.load(name)
    store.close()


@pytest.mark.spec('NS-60')
def test_redis_is_refused_where_it_does_not_find_listeners(make):
    with pytest.raises(RuntimeError, match='zmq\\+redis'):
        samples.make('zmq+ring:////r.json?notification_store=redis')


@pytest.mark.spec('NS-61')
def test_each_operation_is_one_round_trip(store, shared_redis):
    samples.add(store, 0, ['a'])
    store.claim()
    (queue,) = store.pending(1)
    holder = samples.HOLDER

    def count():
        return shared_redis.command('INFO', 'commandstats')['cmdstat_evalsha'][
            'calls'
        ]

    def calls(run):
        run()  # The server knows the script then.
        before = count()
        run()
        return count() - before

    copies = store.take(queue.number, 10)
    some = [one.key for one in copies]
    assert calls(lambda: samples.add(store, time.time_ns(), ['a'])) == 1
    assert calls(lambda: store.take(queue.number, 10)) == 1
    assert calls(lambda: store.hold(some, holder)) == 1
    assert calls(lambda: store.release(some)) == 1
    assert calls(store.changed) == 1
    assert calls(store.claim) == 0
    assert calls(lambda: store.done(some)) == 1
    # Pools are those of a second ago.
    assert calls(lambda: store.pools(samples.WHERE)) == 0
    assert calls(lambda: store.saw(samples.WHERE, ['a'])) == 0


@pytest.mark.spec('NS-61')
def test_nothing_connects_before_it_is_needed():
    # There is no such host.
    store = samples.make('zmq+redis://nobody.invalid/')
    store.unclaim()
    store.close()


@pytest.mark.spec('NS-62')
def test_what_is_added_again_is_stored_once(store, make):
    samples.add(store, 1, ['a', 'b'])
    samples.add(store, 1, ['a', 'b'])
    samples.add(make(), 1, ['a', 'b'])
    assert samples.numbers(store, 'a') == [1]
    store.done([one.key for one in samples.everything(store, 'a')])
    samples.add(store, 1, ['a', 'b'])
    assert samples.numbers(store, 'a') == []
    assert store.counts() == (1, 0, 2)


@pytest.mark.spec('NS-63')
def test_a_few_drain_and_the_others_wait(make):
    stores = [make() for _ in range(lease.DRAINERS + 2)]
    assert [one.claim() for one in stores].count(True) == lease.DRAINERS
    assert stores[0].claim()
    assert not stores[-1].claim()
    stores[0].unclaim()
    stores[0].unclaim()
    assert stores[-1].claim()
    assert not stores[0].claim()
    stores[1].close()
    assert stores[0].claim()


@pytest.mark.spec('NS-63')
def test_each_copy_is_taken_by_one(make):
    one, two = make(), make()
    assert one.claim()
    assert two.claim()
    for number in range(10):
        samples.add(one, number, ['a'])
    first = taken(one, limit=4)
    second = taken(two)
    assert first == [0, 1, 2, 3]
    assert second == [4, 5, 6, 7, 8, 9]
    assert taken(one, after=take(one)[-1].key.number) == []
    # Asked from the beginning, each gets its own once more.
    assert taken(one) == first
    assert taken(two) == second
    # Who does not drain sees all of them.
    assert samples.numbers(make(), 'a') == list(range(10))


@pytest.mark.spec('NS-63')
def test_nothing_is_passed_over_by_the_bound_of_size(make):
    one, two = make(), make()
    for number in range(200):
        samples.add(one, number, ['a'], size=100)
    assert one.claim()
    assert two.claim()
    assert len(take(one, limit=40)) == 40
    one.unclaim()
    found, after = [], 0
    while some := take(two, limit=50, after=after, size=1000):
        assert len(some) <= 10
        found += map(samples.number, some)
        after = max(after, some[-1].key.number)
    assert sorted(found) == list(range(200))


@pytest.mark.spec('NS-63')
def test_what_one_has_stays_its_own_when_it_looks_again(make):
    one, two = make(), make()
    for number in range(10):
        samples.add(one, number, ['a'], size=1000)
    assert one.claim()
    assert two.claim()
    assert len(take(one)) == 10
    assert taken(one, size=3000) == [0, 1, 2]
    assert taken(two) == []
    assert taken(one) == list(range(10))


@pytest.mark.spec('NS-66')
def test_all_is_put_back_however_much_it_is(make):
    one, two = make(), make()
    count = 1030
    for number in range(count):
        samples.add(one, number, ['a'])
    assert one.claim()
    assert two.claim()
    first = take(one, limit=count)
    assert len(first) == count
    one.put_back(first[0].key.queue)
    assert len(take(two, limit=count)) == count


@pytest.mark.spec('NS-64')
def test_what_is_left_in_order_is_taken_at_once(make):
    one, two = make(), make()
    for number in range(5):
        samples.add(one, number, ['a'])
    assert one.claim()
    assert two.claim()
    copies = take(one)
    one.hold([copy.key for copy in copies[:2]], samples.HOLDER)
    one.close()
    found = take(two)
    assert [samples.number(copy) for copy in found] == list(range(5))
    assert [copy.holder for copy in found[:3]] == [samples.HOLDER] * 2 + [None]
    assert [copy.attempts for copy in found] == [1, 1, 0, 0, 0]
    assert [copy.key for copy in found] == [copy.key for copy in copies]


DRAINER = """
print(store.claim(), flush=True)
for queue in store.pending(9):
    found = store.take(queue.number, 16)
    store.hold([one.key for one in found], samples.HOLDER)
    print(len(found), flush=True)
sys.stdin.read()
"""


@pytest.mark.spec('NS-64')
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_dead_process_has_taken_is_taken_over(store, place, how):
    for number in range(5):
        samples.add(store, number, ['a'])
    assert store.claim()
    process = samples.start(DRAINER, place)
    try:
        assert process.stdout.readline() == 'True\n'
        assert process.stdout.readline() == '5\n'
        assert take(store) == []
        process.send_signal(how)
        start = time.monotonic()
        waiting.until(
            lambda: store.claim() and take(store, limit=1), 'end', samples.HANG
        )
        # A generous bound: a lease is for 5 s.
        assert 1 < time.monotonic() - start < samples.HANG
        found = take(store)
        assert [samples.number(copy) for copy in found] == list(range(5))
        assert {copy.holder for copy in found} == {samples.HOLDER}
        # Nothing is left of its consumer.
        queue = found[0].key.queue
        assert len(groups(store, queue)) == 1
    finally:
        process.kill()
        process.communicate(timeout=samples.HANG)


def groups(store, queue):
    link = store._access._connections.connect(clock.Deadline(5))
    with contextlib.closing(link):
        key = f'{store._access._keys[0]}queue:{queue}'
        return link.ask(clock.Deadline(5), 'XINFO', 'CONSUMERS', key, 'pool')


@pytest.mark.spec('NS-63', 'NS-56')
def test_what_a_listener_may_have_is_taken_out_of_turn(make):
    one, two, three = make(), make(), make()
    other = base.Holder('other', b'b' * 16)
    for number in range(100):
        samples.add(one, number, ['a'])
    copies = [base.Copy('a', other)]
    where = samples.WHERE
    for number in range(100, 103):
        name = number.to_bytes(16, 'big')
        one.add(where, name, b'', copies, clock.Deadline(samples.HANG))
    assert one.claim()
    assert two.claim()
    assert three.claim()
    assert taken(make(), held=True) == [100, 101, 102]
    assert taken(one, held=True, limit=2) == [100, 101]
    assert taken(one, held=True) == [100, 101, 102]
    assert taken(two, held=True) == []
    # Who reads up to there leaves them alone.
    assert taken(two, limit=200) == list(range(100))
    assert taken(three, limit=200) == []
    assert taken(one, limit=200) == [100, 101, 102]
    one.unclaim()
    assert taken(three, held=True) == [100, 101, 102]
    three.put_back(take(three)[0].key.queue)
    assert taken(two, limit=200) == list(range(103))


@pytest.mark.spec('NS-63', 'NS-56')
def test_what_was_taken_out_of_turn_is_not_given_twice(make):
    one, two = make(), make()
    for number in range(5):
        samples.add(one, number, ['a'])
    keys = [copy.key for copy in samples.everything(one, 'a')]
    one.hold(keys[2:4], samples.HOLDER)
    assert one.claim()
    assert two.claim()
    found = take(one, held=True)
    assert [samples.number(copy) for copy in found] == [2, 3]
    after = found[-1].key.number
    assert taken(one, after=after) == [0, 1, 4]
    assert taken(one, after=keys[4].number) == []
    assert taken(one) == [0, 1, 2, 3, 4]
    assert take(two) == []
    assert taken(two, held=True) == []


@pytest.mark.spec('NS-65')
def test_who_was_taken_for_dead_changes_nothing(make, short):
    one, two = make(), make()
    samples.add(one, 1, ['a', 'b'])
    samples.add(one, 2)
    assert one.claim()
    copy = take(one)[0]
    anybody = take(one, None)[0]
    one.hold([copy.key], samples.HOLDER)
    time.sleep(0.4)
    assert two.claim()
    assert taken(two) == [1]
    other = base.Holder('other', b'b' * 16)
    two.hold([copy.key], other)
    for forbidden in (
        lambda: one.hold([copy.key], samples.HOLDER),
        lambda: one.release([copy.key]),
        lambda: one.bury([copy.key]),
        lambda: one.split([anybody.key], ['a']),
        lambda: take(one),
    ):
        with pytest.raises(base.StoreUnavailable, match='another process'):
            forbidden()
    (found,) = samples.everything(make(), 'a')
    assert (found.holder, found.attempts) == (other, 2)
    # It is told so until it has given up, and then begins as another one.
    assert not one.claim()
    assert not one.claim()
    with pytest.raises(base.StoreUnavailable, match='another process'):
        one.hold([copy.key], samples.HOLDER)
    one.unclaim()
    assert one.claim()
    assert taken(one, 'b') == [1]
    one.done([copy.key])
    assert samples.numbers(make(), 'a') == []


@pytest.mark.spec('NS-65')
def test_a_lease_lives_as_long_as_it_is_asked_for(store, make, short):
    other = make()
    samples.add(store, 1, ['a'])
    assert store.claim()
    assert taken(store) == [1]
    for _ in range(8):
        time.sleep(0.1)
        store.changed()
        assert store.claim()
        assert other.claim()
        assert take(other) == []


@pytest.mark.spec('NS-66')
def test_what_is_put_back_is_taken_by_others(make):
    one, two = make(), make()
    for number in range(70):
        samples.add(one, number, ['a'])
    assert one.claim()
    assert two.claim()
    (queue,) = one.pending(1)
    assert len(take(one)) == 70
    assert take(two) == []
    one.put_back(queue.number)
    assert taken(two) == list(range(70))
    assert take(one) == []
    # Without a lease, or a queue, there is nothing to put back.
    make().put_back(queue.number)
    one.put_back(99)


@pytest.mark.spec('NS-72')
def test_nothing_is_left_of_what_was_delivered(
    store, make, shared_redis, prefix
):
    for number in range(20):
        samples.add(store, number, ['a', 'b', None], size=50)
    assert store.claim()
    for _ in range(2):
        for queue in store.pending(9):
            copies = [one.key for one in store.take(queue.number, 100)]
            store.hold(copies, samples.HOLDER)
            if queue.pool is None:
                store.split(copies, ['a', 'c'])
            elif queue.pool == 'b':
                store.bury(copies)
            else:
                store.done(copies)
    (grave,) = store.pending(9, dead=True)
    assert store.purge(grave.number, 99) == 20
    for queue in store.pending(9):
        store.done([one.key for one in store.take(queue.number, 100)])
    assert store.counts() == (0, 0, 0)
    left = {key for key in keys(shared_redis, prefix) if key[:3] != 'id:'}
    queues = {key for key in left if key.startswith('queue:')}
    assert shared_redis.command('XLEN', f'{prefix}stored::messages') == 0
    assert left - queues == {
        'messages',
        'index',
        'seen',
        'total',
        'drainers',
        'pools:openstack:n.info',
    }
    for key in queues:
        full = f'{prefix}stored::{key}'
        assert shared_redis.command('XLEN', full) == 0
    for queue in store.queues(9):
        assert store.remove(queue.number)
    left = {key for key in keys(shared_redis, prefix) if key[:3] != 'id:'}
    assert left == {'messages', 'total', 'drainers'}


@pytest.mark.spec('NS-62')
def test_ids_expire(store, shared_redis, prefix):
    samples.add(store, 1, timeout=5)
    (key,) = [k for k in keys(shared_redis, prefix) if k.startswith('id:')]
    ttl = shared_redis.command('PTTL', f'{prefix}stored::{key}')
    assert 0 < ttl <= 7000


@pytest.mark.spec('NS-12')
def test_deployments_share_nothing(shared_redis, make, prefix, place):
    host = f'zmq+redis://{shared_redis.address}'
    samples.add(make(), 1)
    other = make(where=f'{host}/?redis_key_prefix=other:{prefix}')
    assert other.counts().copies == 0


@pytest.mark.spec('NS-22', 'NS-75')
def test_who_waits_for_too_long_gets_no_more(make, monkeypatch):
    store = make(notification_store_max_age=0.3)
    samples.add(store, 1, ['a'])
    samples.add(store, 2, ['a'])
    time.sleep(0.4)
    with pytest.raises(base.StoreFull, match=r'store_max_age is 0\.3'):
        samples.add(store, 3, ['a', 'b'])
    # The clocks of hosts do not matter.
    monkeypatch.setattr(time, 'time', lambda: 0.0)
    samples.add(store, 4, ['b'])
    samples.add(store, 5, ['b'])
    assert samples.numbers(store, 'a') == [1, 2]


@pytest.mark.spec('NS-22', 'NS-75')
def test_what_is_too_old_is_dropped(make, monkeypatch):
    monkeypatch.setattr(persistent, 'TIDY_INTERVAL', 0.0)
    store = make(
        notification_store_max_age=0.5,
        notification_store_overflow='drop_oldest',
    )
    samples.add(store, 1, ['a', 'b'])
    time.sleep(0.6)
    samples.add(store, 2, ['a'])
    assert samples.numbers(store, 'a') == [2]
    assert samples.numbers(store, 'b') == []
    snapshot = store.settings.counters.snapshot()
    assert snapshot['notifications_dropped'] == 2


@pytest.mark.spec('NS-24', 'NS-75')
def test_a_pool_that_stays_away_is_forgotten(make, monkeypatch, caplog):
    monkeypatch.setattr(persistent, 'TIDY_INTERVAL', 0.0)
    monkeypatch.setattr(redis_store, 'TIDY_LIMIT', 4)
    store = make(notification_pool_retention=1.0)
    for number in range(6):
        samples.add(store, number, ['a', None])
    samples.add(store, 7, ['b', 'c'])
    store.bury([one.key for one in samples.everything(store, 'b')])
    time.sleep(1.1)
    make(notification_pool_retention=1.0).saw(samples.WHERE, ['c'])
    with caplog.at_level(logging.WARNING):
        store.pending(1)
        # A long queue is forgotten in steps.
        assert store.counts().copies == 9
        assert samples.numbers(store) == list(range(6))
    assert "'a'" in caplog.text
    assert 'notification_pool_retention' in caplog.text
    assert make().pools(samples.WHERE) == {'c'}
    # Dead letters wait for the operator, who has not come yet.
    assert samples.numbers(store, 'b', dead=True) == [7]
    store.done([one.key for one in samples.everything(store)])
    store.done([one.key for one in samples.everything(store, 'c')])
    time.sleep(1.1)
    store.pending(1)
    assert [queue.dead for queue in store.queues(9)] == [True]


@pytest.mark.spec('NS-71')
def test_another_layout_is_left_alone(store, shared_redis, prefix):
    shared_redis.command('HSET', f'{prefix}stored::total', 'layout', '2')
    with pytest.raises(base.StoreUnavailable, match=r'layout 2.*prefix'):
        samples.add(store, 1)
    assert keys(shared_redis, prefix) == {'total'}


@pytest.mark.spec('NS-70')
def test_a_body_that_is_missing_is_no_obstacle(store, shared_redis, prefix):
    samples.add(store, 1, ['a', 'b'])
    samples.add(store, 2, ['a'])
    first = samples.everything(store, 'b')[0].key.number
    shared_redis.command('XDEL', f'{prefix}stored::messages', f'{first}-0')
    assert samples.numbers(store, 'a') == [2]
    assert store.claim()
    assert taken(store) == [2]


@pytest.mark.spec('NS-74')
def test_a_forked_child_takes_nothing_of_its_parents(store, make):
    samples.add(store, 1, ['a'])
    assert store.claim()
    assert taken(store) == [1]

    def child():
        with pytest.raises(base.StoreUnavailable, match='fork'):
            samples.add(store, 2, ['a'])
        store.close()
        other = make()
        samples.add(other, 3, ['a'])
        assert other.claim()
        assert taken(other) == [3]
        other.close()
        return True

    assert test_processes.in_child(child)
    assert store.claim()
    assert taken(store) == [1, 3]


@pytest.mark.spec('NS-17', 'NS-63')
def test_processes_that_store_and_drain_lose_and_repeat_nothing(
    store, place, tmp_path
):
    stop = tmp_path / 'stop'
    writers = [
        samples.start(test_processes.WRITER, place, 1000 * n, 150)
        for n in range(3)
    ]
    drainers = [
        samples.start(test_processes.DRAINER, place, stop) for _ in range(2)
    ]
    stored = [line for one in writers for line in test_processes.wait(one)]
    stop.touch()
    found = [line for one in drainers for line in test_processes.wait(one)]
    assert len(stored) == 450
    assert sorted(line for line in found if line != 'ready') == sorted(
        f'{pool} {number}' for number in stored for pool in 'ab'
    )
    assert store.counts() == (0, 0, 0)


@pytest.mark.spec('NS-03', 'NS-04')
def test_what_was_stored_survives_the_death_of_its_process(place, store):
    process = samples.start(test_processes.WRITER, place, 0, 99_999)
    lines = [process.stdout.readline() for _ in range(50)]
    process.kill()
    out = process.stdout.read()
    process.communicate(timeout=samples.HANG)
    lines += out[: out.rfind('\n') + 1].splitlines()
    stored = {int(line) for line in lines}
    for pool in 'ab':
        found = samples.numbers(store, pool)
        assert len(found) == len(set(found))
        assert stored <= set(found)
        assert len(found) <= len(stored) + 1
    assert samples.numbers(store, 'a') == samples.numbers(store, 'b')
