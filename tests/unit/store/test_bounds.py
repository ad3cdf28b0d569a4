# SPDX-License-Identifier: Apache-2.0
"""What happens at the bounds by count, size and age, and to pools."""

import logging
import time

import pytest

from tests.unit.store import samples
from zmq_driver.store import base
from zmq_driver.store import durable
from zmq_driver.store import persistent


@pytest.fixture
def calendar(monkeypatch):
    """Return a list with the seconds that the clocks are ahead."""
    ahead = [0.0]
    now = time.time
    monkeypatch.setattr(time, 'time', lambda: now() + ahead[0])
    monkeypatch.setattr(persistent, 'TIDY_INTERVAL', 0.0)
    return ahead


def dropped(store):
    return store.settings.counters.snapshot()['notifications_dropped']


@pytest.mark.spec('NS-22')
def test_who_waits_for_too_long_gets_no_more(make, calendar):
    store = make(notification_store_max_age=100.0)
    samples.add(store, 1, ['a'])
    calendar[0] = 50.0
    samples.add(store, 2, ['a'])
    calendar[0] = 120.0
    with pytest.raises(base.StoreFull, match='store_max_age is 100'):
        samples.add(store, 3, ['a', 'b'])
    samples.add(store, 4, ['b'])
    assert samples.numbers(store, 'a') == [1, 2]
    store.done([samples.everything(store, 'a')[0].key])
    samples.add(store, 5, ['a'])
    assert dropped(store) == 0


@pytest.mark.spec('NS-22')
def test_what_is_too_old_is_dropped(make, calendar):
    store = make(
        notification_store_max_age=100.0,
        notification_store_overflow='drop_oldest',
    )
    samples.add(store, 1, ['a', 'b'])
    calendar[0] = 50.0
    samples.add(store, 2, ['a'])
    calendar[0] = 120.0
    samples.add(store, 3, ['a'])
    assert samples.numbers(store, 'a') == [2, 3]
    assert samples.numbers(store, 'b') == []
    assert dropped(store) == 2


@pytest.mark.spec('NS-22')
def test_without_a_bound_of_age_nothing_is_too_old(make, calendar):
    store = make(
        notification_store_max_age=0.0,
        notification_store_overflow='drop_oldest',
    )
    samples.add(store, 1)
    calendar[0] = 1e9
    samples.add(store, 2)
    assert samples.numbers(store) == [1, 2]


# -- durable pools


@pytest.mark.spec('NS-23')
def test_saying_it_again_writes_nothing(store, make):
    store.saw(samples.WHERE, ['a'])
    other = make()
    before = other._database.read(
        lambda c: c.execute('PRAGMA data_version').fetchone(), None
    )
    for _ in range(10):
        store.saw(samples.WHERE, ['a'])
        assert store.pools(samples.WHERE) == {'a'}
    after = other._database.read(
        lambda c: c.execute('PRAGMA data_version').fetchone(), None
    )
    assert before == after


@pytest.mark.spec('NS-24')
def test_a_pool_that_stays_away_is_forgotten(make, calendar, caplog):
    store = make(notification_pool_retention=100.0)
    samples.add(store, 1, ['a', None])
    samples.add(store, 2, ['b'])
    store.bury([one.key for one in samples.everything(store, 'b')])
    calendar[0] = 60.0
    fresh = make(notification_pool_retention=100.0)
    fresh.saw(samples.WHERE, ['b'])
    samples.add(store, 3, ['a'])
    calendar[0] = 120.0
    with caplog.at_level(logging.WARNING):
        assert samples.numbers(store) == [1]
    assert dropped(store) == 2
    assert "'a'" in caplog.text
    assert 'notification_pool_retention' in caplog.text
    assert make().pools(samples.WHERE) == {'b'}
    # Dead letters wait for the operator, who has not come yet.
    assert samples.numbers(store, 'b', dead=True) == [2]


@pytest.mark.spec('NS-24')
def test_queues_that_were_forgotten_leave_nothing(make, calendar):
    store = make(notification_pool_retention=100.0)
    samples.add(store, 1)
    store.done([samples.everything(store)[0].key])
    assert len(store.queues(10)) == 1
    calendar[0] = 120.0
    store.pending(1)
    assert store.queues(10) == []


@pytest.mark.spec('NS-24')
def test_a_long_queue_is_forgotten_in_steps(make, calendar, monkeypatch):
    monkeypatch.setattr('zmq_driver.store.tidying.TIDY_LIMIT', 4)
    store = make(notification_pool_retention=100.0)
    for number in range(10):
        samples.add(store, number, ['a'])
    calendar[0] = 120.0
    left = []
    for _ in range(3):
        store.pending(1)
        left.append(store.counts().copies)
    assert left == [6, 2, 0]
    assert store.queues(1) == []


def test_answers_are_used_for_a_second(make):
    now = [0.0]
    pools = durable.DurablePools(make().settings.options, lambda: now[0])
    assert pools.known(samples.WHERE) is None
    pools.learn(samples.WHERE, frozenset('a'))
    assert pools.known(samples.WHERE) == {'a'}
    now[0] = durable.KNOWN_TTL
    assert pools.known(samples.WHERE) is None
    pools.seen(samples.WHERE, ['a'], 1)
    assert pools.unseen(samples.WHERE, ['a', 'b'], 1) == ['b']
    assert pools.unseen(samples.WHERE, ['a'], 2) == ['a']
    now[0] += durable.SEEN_TTL
    assert pools.unseen(samples.WHERE, ['a'], 1) == ['a']
    assert pools.known_before(samples.WHERE) == {'a'}


def test_addresses_that_are_remembered_are_bounded(make, monkeypatch):
    monkeypatch.setattr(durable, 'MAX_KNOWN', 1)
    pools = durable.DurablePools(make().settings.options)
    other = samples.WHERE._replace(topic='other')
    for where in (samples.WHERE, other):
        pools.learn(where, frozenset('a'))
    assert pools.known_before(other) == {'a'}
    assert pools.known_before(samples.WHERE) is None


@pytest.mark.spec('NS-54')
def test_what_nobody_ever_wants_has_the_same_bounds(make, calendar):
    store = make(notification_store_max_count=2)
    other = samples.WHERE._replace(topic='other')
    samples.add(store, 1)
    samples.add(store, 2, where=other)
    with pytest.raises(base.StoreFull, match='max_count'):
        samples.add(store, 3)
    store.done([one.key for one in samples.everything(store, where=other)])
    calendar[0] += 8 * 86400.0
    with pytest.raises(base.StoreFull, match='max_age'):
        samples.add(store, 4)
    # That is so for each address, as for each pool.
    samples.add(store, 5, where=other)


@pytest.mark.spec('NS-54')
def test_what_nobody_ever_wants_can_be_dropped_by_age(make, calendar):
    store = make(notification_store_overflow='drop_oldest')
    samples.add(store, 1)
    calendar[0] += 8 * 86400.0
    samples.add(store, 2)
    assert samples.numbers(store) == [2]
    assert dropped(store) == 1
