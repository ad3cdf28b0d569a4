# SPDX-License-Identifier: Apache-2.0
"""What every store does, whatever it keeps notifications in."""

import logging
import re
import threading
import time
import tracemalloc
import uuid

import pytest

from tests.unit.store import samples
from zmq_driver import clock
from zmq_driver.store import base


@pytest.fixture(params=['sqlite', 'redis'])
def place(request, directory):
    if request.param == 'sqlite':
        return directory
    server = request.getfixturevalue('shared_redis')
    prefix = uuid.uuid4().hex
    return f'zmq+redis://{server.address}/?redis_key_prefix={prefix}:'


def dropped(store):
    return store.settings.counters.snapshot()['notifications_dropped']


@pytest.mark.spec('NS-02', 'NS-05')
def test_what_is_stored_is_taken_as_it_was(store, make):
    before = time.time()
    store.add(
        samples.WHERE,
        b'm' * 16,
        b'\0body\xff',
        [base.Copy('a', samples.HOLDER), base.Copy('')],
        clock.Deadline(samples.HANG),
    )
    store.close()
    again = make()
    (queue, other) = again.pending(10)
    assert (queue.where, queue.pool, queue.copies) == (samples.WHERE, 'a', 1)
    assert not queue.dead
    assert before <= queue.oldest <= time.time()
    (found,) = again.take(queue.number, 10)
    assert found == (
        found.key,
        b'm' * 16,
        samples.WHERE,
        'a',
        b'\0body\xff',
        queue.oldest,
        1,
        samples.HOLDER,
    )
    (found,) = again.take(other.number, 10)
    assert (found.pool, found.attempts, found.holder) == ('', 0, None)
    assert again.counts() == (2, 0, 6)
    assert store.settings.counters.snapshot()['notifications_stored'] == 1


@pytest.mark.spec('NS-05')
def test_the_oldest_come_first_and_not_too_much_at_once(store):
    for number in range(9):
        samples.add(store, number, size=1000)
    (queue,) = store.pending(1)
    first = store.take(queue.number, 4)
    assert [samples.number(one) for one in first] == [0, 1, 2, 3]
    after = first[-1].key.number
    found = store.take(queue.number, 9, after, size=1500)
    assert [samples.number(one) for one in found] == [4, 5]
    assert len(store.take(queue.number, 9, after, size=1)) == 1
    assert samples.numbers(store) == list(range(9))
    assert store.take(99, 9) == []


@pytest.mark.spec('NS-05')
def test_done_removes_copies_and_the_message_with_the_last(store):
    samples.add(store, 1, ['a', 'b'])
    samples.add(store, 2, ['a'])
    keys = {pool: samples.everything(store, pool)[0].key for pool in 'ab'}
    store.done([keys['a']])
    assert samples.numbers(store, 'a') == [2]
    assert samples.numbers(store, 'b') == [1]
    assert store.counts() == (2, 0, 4)
    store.done([keys['a'], keys['b']])
    assert store.counts() == (1, 0, 2)
    assert samples.numbers(store, 'b') == []
    # The number of a copy that is gone is never that of another one.
    store.done([one.key for one in samples.everything(store, 'a')])
    samples.add(store, 3, ['a'])
    store.done([keys['a']])
    assert samples.numbers(store, 'a') == [3]


@pytest.mark.spec('NS-06')
def test_who_is_sent_something_is_written_down_before(store, make):
    samples.add(store, 1)
    samples.add(store, 2)
    one, two = samples.everything(store)
    store.hold([one.key, two.key], samples.HOLDER)
    store.release([two.key])
    store.release([two.key])
    one, two = samples.everything(make())
    assert (one.holder, one.attempts) == (samples.HOLDER, 1)
    assert (two.holder, two.attempts) == (None, 0)
    store.hold([one.key], base.Holder('other', b'b' * 16))
    one = samples.everything(store)[0]
    assert (one.holder, one.attempts) == (('other', b'b' * 16), 2)


@pytest.mark.spec('NS-07')
def test_what_was_for_whoever_comes_is_given_to_each_pool(store):
    for number in range(3):
        samples.add(store, number)
    samples.add(store, 3, ['b'])
    keys = [one.key for one in samples.everything(store)]
    store.hold(keys[:1], samples.HOLDER)
    store.done(keys[2:])
    # What has gone is not made again, and doing it twice is doing it once.
    store.split(keys, ['b', 'a', 'b'])
    store.split(keys, ['b', 'a'])
    assert samples.numbers(store) == []
    assert samples.numbers(store, 'a') == [0, 1]
    assert sorted(samples.numbers(store, 'b')) == [0, 1, 3]
    assert samples.everything(store, 'a')[0].holder == samples.HOLDER
    assert store.counts() == (5, 0, 6)
    store.done([one.key for one in samples.everything(store, 'a')])
    store.done([one.key for one in samples.everything(store, 'b')])
    assert store.counts() == (0, 0, 0)
    store.split([base.Key(99, 1)], ['a'])


@pytest.mark.spec('NS-07')
def test_one_pool_gets_what_was_for_whoever_comes(store):
    samples.add(store, 1)
    store.split([samples.everything(store)[0].key], ['a'])
    assert samples.numbers(store, 'a') == [1]


@pytest.mark.spec('NS-08')
def test_dead_letters_wait_for_an_operator(store):
    samples.add(store, 1, ['a'])
    samples.add(store, 2, ['a'])
    one, _two = samples.everything(store, 'a')
    store.hold([one.key], samples.HOLDER)
    store.bury([one.key])
    store.bury([one.key, base.Key(99, 1)])
    store.split([base.Key(99, 1)], ['c'])
    assert samples.numbers(store, 'a') == [2]
    assert samples.numbers(store, 'a', dead=True) == [1]
    assert store.counts() == (1, 1, 4)
    assert store.settings.counters.snapshot()['notifications_buried'] == 1
    (queue,) = store.pending(10, dead=True)
    store.bury([one.key._replace(queue=queue.number)])
    assert store.replay(queue.number, 10) == 1
    assert store.replay(queue.number, 10) == 0
    found = samples.everything(store, 'a')
    one, two = sorted(found, key=samples.number)
    assert (samples.number(one), one.attempts, one.holder) == (1, 0, None)
    assert samples.number(two) == 2
    # Living ones cannot be replayed.
    assert store.replay(one.key.queue, 10) == 0
    assert store.replay(99, 10) == 0


@pytest.mark.spec('NS-09')
def test_an_operator_can_drop_what_waits_and_then_the_pool(store):
    for number in range(5):
        samples.add(store, number, ['a', 'b'])
    queue = store.pending(1)[0]
    assert queue.pool == 'a'
    assert store.purge(queue.number, 2) == 2
    assert not store.remove(queue.number)
    assert samples.numbers(store, 'a') == [2, 3, 4]
    assert store.purge(queue.number, 100) == 3
    assert store.purge(queue.number, 100) == 0
    assert [one.pool for one in store.queues(10)] == ['a', 'b']
    assert store.queues(10)[0].oldest is None
    assert store.remove(queue.number)
    assert store.remove(queue.number)
    assert [one.pool for one in store.queues(10)] == ['b']
    assert samples.numbers(store, 'b') == list(range(5))


def test_queues_are_listed_in_pieces(store):
    for number, pool in enumerate('abc'):
        samples.add(store, number, [pool])
    first = store.pending(2)
    assert [queue.pool for queue in first] == ['a', 'b']
    rest = store.pending(2, first[-1].number)
    assert [queue.pool for queue in rest] == ['c']
    assert store.queues(9, rest[-1].number) == []


@pytest.mark.spec('NS-05')
def test_addresses_are_kept_apart(store):
    other = samples.WHERE._replace(topic='n.error')
    third = samples.WHERE._replace(exchange='nova')
    for number, where in enumerate((samples.WHERE, other, third)):
        samples.add(store, number, ['a'], where)
    assert samples.numbers(store, 'a', where=other) == [1]
    assert samples.numbers(store, 'a', where=third) == [2]


@pytest.mark.spec('NS-10')
def test_a_change_is_noticed_by_everybody_once(store, make):
    other = make()
    assert store.changed()
    assert not store.changed()
    other.changed()
    samples.add(store, 1)
    assert store.changed()
    assert other.changed()
    # What only drains is no news.
    (one,) = samples.everything(store)
    store.hold([one.key], samples.HOLDER)
    assert not store.changed()
    assert not other.changed()
    store.bury([one.key])
    other.changed()
    store.replay(store.pending(1, dead=True)[0].number, 1)
    assert other.changed()


@pytest.mark.spec('NS-29')
def test_memory_does_not_grow_with_what_is_stored(store):
    def fill(count):
        for number in range(count):
            samples.add(store, number, size=3200)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = fill(100)
        many = fill(900)
        tracemalloc.reset_peak()
        (queue,) = store.pending(1)
        while keys := [one.key for one in store.take(queue.number, 16)]:
            store.done(keys)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert many - few < 200_000
    assert peak - many < 500_000


@pytest.mark.spec('NS-17')
def test_threads_that_store_at_once_lose_nothing(store):
    def work(thread):
        for number in range(40):
            samples.add(store, 100 * thread + number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(samples.HANG)
    assert sorted(samples.numbers(store)) == [
        100 * thread + number for thread in range(8) for number in range(40)
    ]
    assert store.counts().copies == 320


@pytest.mark.spec('NS-16')
def test_after_close_everything_is_refused(store):
    samples.add(store, 1)
    store.close()
    store.close()
    with pytest.raises(base.StoreUnavailable, match='cleaned up'):
        samples.add(store, 2)
    with pytest.raises(base.StoreUnavailable, match='cleaned up'):
        store.counts()


@pytest.mark.spec('NS-20')
def test_at_the_count_nothing_more_is_taken(make):
    store = make(notification_store_max_count=3)
    samples.add(store, 1, ['a', 'b'])
    with pytest.raises(base.StoreFull, match='store_max_count is 3') as error:
        samples.add(store, 2, ['a', 'b'])
    assert re.search('notifications.sqlite|Redis at', str(error.value))
    assert store.counts().copies == 2
    samples.add(store, 3)
    with pytest.raises(base.StoreFull):
        samples.add(store, 4)
    store.done([one.key for one in samples.everything(store, 'a')])
    samples.add(store, 5)
    assert dropped(store) == 0
    with pytest.raises(base.StoreFull):
        samples.add(store, 6, ['a', 'b', 'c', 'd'])


@pytest.mark.spec('NS-20')
def test_at_the_size_nothing_more_is_taken(make):
    store = make(notification_store_max_size=10_000)
    samples.add(store, 1, ['a', 'b'], size=6000)
    with pytest.raises(base.StoreFull, match='store_max_size is 10000'):
        samples.add(store, 2, size=6000)
    samples.add(store, 3, size=3000)
    with pytest.raises(base.StoreFull, match='store_max_size'):
        samples.add(store, 4, size=10_001)
    assert store.counts() == (3, 0, 9004)


@pytest.mark.spec('NS-20')
def test_one_that_is_refused_does_not_disturb_others(make):
    store = make(notification_store_max_count=1)
    samples.add(store, 1)
    for _ in range(3):
        with pytest.raises(base.StoreFull):
            samples.add(store, 2)
    assert samples.numbers(store) == [1]


@pytest.mark.spec('NS-21')
def test_the_oldest_make_room(make, caplog):
    store = make(
        notification_store_max_count=4,
        notification_store_overflow='drop_oldest',
    )
    with caplog.at_level(logging.WARNING):
        for number in range(6):
            samples.add(store, number, ['a', 'b'])
    assert samples.numbers(store, 'a') == [4, 5]
    assert samples.numbers(store, 'b') == [4, 5]
    assert dropped(store) == 8
    assert len(caplog.records) == 1
    assert 'notification_store_max_count' in caplog.text
    # What can never have room drops nothing.
    with pytest.raises(base.StoreFull):
        samples.add(store, 6, ['a', 'b', 'c', 'd', 'e'])
    assert dropped(store) == 8


@pytest.mark.spec('NS-21')
def test_the_oldest_make_room_for_a_large_one(make):
    store = make(
        notification_store_max_size=10_000,
        notification_store_overflow='drop_oldest',
    )
    for number in range(5):
        samples.add(store, number, size=1900)
    samples.add(store, 5, size=5000)
    assert samples.numbers(store) == [3, 4, 5]
    with pytest.raises(base.StoreFull):
        samples.add(store, 6, size=10_000)
    assert dropped(store) == 3


@pytest.mark.spec('NS-21')
def test_dead_letters_make_room_too(make):
    store = make(
        notification_store_max_count=2,
        notification_store_overflow='drop_oldest',
    )
    samples.add(store, 1)
    samples.add(store, 2)
    store.bury([samples.everything(store)[0].key])
    samples.add(store, 3)
    assert samples.numbers(store) == [2, 3]
    assert store.counts().dead == 0


@pytest.mark.spec('NS-23')
def test_a_pool_that_was_seen_is_durable(store, make):
    store.saw(samples.WHERE, ['a', ''])
    assert store.pools(samples.WHERE) == {'a', ''}
    other = make()
    assert other.pools(samples.WHERE) == {'a', ''}
    assert other.pools(samples.WHERE._replace(topic='x')) == frozenset()
    # So is one that something was stored for, but not "whoever comes".
    samples.add(other, 1, ['c', None])
    assert make().pools(samples.WHERE) == {'a', '', 'c'}
