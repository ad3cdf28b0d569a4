# SPDX-License-Identifier: Apache-2.0
"""How long a listener pool that was late is not waited for."""

import pytest

from tests.unit.client import fakes
from zmq_driver.client import retry
from zmq_driver.client import slow_pools

pytestmark = pytest.mark.spec('NS-46')


@pytest.fixture(autouse=True)
def longest(monkeypatch):
    """Make every pause as long as it may be."""
    monkeypatch.setattr(retry.random, 'uniform', lambda low, high: high)


@pytest.fixture
def pools(clock):
    return slow_pools.SlowPools(clock)


def pause(pools, clock):
    """Return for how long a pool is slow that is late now."""
    pools.late(fakes.NOTES, 'a')
    start = clock()
    while pools.contains(fakes.NOTES, 'a'):
        clock.tick(0.25)
    return clock() - start


def test_pauses_double_up_to_a_bound(pools, clock):
    assert not pools.contains(fakes.NOTES, 'a')
    found = [pause(pools, clock) for _ in range(8)]
    assert found == pytest.approx([4, 8, 16, 30, 30, 30, 30, 30])


def test_pool_that_was_in_time_begins_anew(pools, clock):
    assert [pause(pools, clock) for _ in range(2)] == [4, 8]
    pools.in_time(fakes.NOTES, 'a')
    assert pause(pools, clock) == 4
    pools.late(fakes.NOTES, 'a')
    pools.in_time(fakes.NOTES, 'a')
    assert not pools.contains(fakes.NOTES, 'a')


def test_who_was_late_at_the_same_time_counts_once(pools, clock):
    for _ in range(5):
        pools.late(fakes.NOTES, 'a')
    clock.tick(4.0)
    assert not pools.contains(fakes.NOTES, 'a')
    assert pause(pools, clock) == 8


def test_pools_are_told_apart(pools):
    pools.late(fakes.NOTES, 'a')
    assert not pools.contains(fakes.NOTES, 'b')
    assert not pools.contains(fakes.NOTES._replace(topic='other'), 'a')


def test_pools_that_are_remembered_are_bounded(pools, monkeypatch):
    monkeypatch.setattr(slow_pools, 'MAX_POOLS', 2)
    for n in range(5):
        pools.late(fakes.NOTES, str(n))
    assert len(pools._slow) == 1
