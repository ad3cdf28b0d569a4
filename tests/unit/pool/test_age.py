# SPDX-License-Identifier: Apache-2.0
"""A socket that is too old is not lent again."""

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import waiters

pytestmark = pytest.mark.spec('PL-32')

AGE = pool.EvictReason.AGE


@pytest.fixture
def world(make_world):
    return make_world(max_size=2, max_per_peer=2, max_waiters=2, max_age=100)


@pytest.mark.parametrize(('chance', 'age'), [(0.0, 100), (1.0, 90)])
def test_a_socket_of_its_age_is_replaced(world, chance, age):
    world.jitter = chance
    world.checkout().release()
    world.clock.tick(age - 0.5)
    with world.checkout() as lease:
        assert not lease.fresh
    world.clock.tick(0.5)
    with world.checkout() as lease:
        assert lease.fresh
    assert fakes.closed(world) == [AGE]


def test_each_socket_has_an_age_of_its_own(world):
    world.jitter = 1.0
    old = world.checkout()
    world.jitter = 0.0
    older = world.checkout()
    world.clock.tick(95)
    old.release()
    older.release()
    assert fakes.closed(world) == [AGE]
    assert world.sockets[0].closed


def test_use_does_not_make_it_younger(world):
    for _ in range(11):
        world.checkout().release()
        world.clock.tick(10)
    assert fakes.closed(world) == [AGE]


def test_a_lease_ends_a_socket_of_its_age(world):
    with world.checkout():
        world.clock.tick(100)
    assert fakes.closed(world) == [AGE]


def test_a_better_reason_is_told(world):
    with world.checkout() as lease:
        world.clock.tick(100)
        lease.retire(pool.EvictReason.UNFINISHED)
    assert fakes.closed(world) == [pool.EvictReason.UNFINISHED]


def test_all_that_are_too_old_are_replaced_by_one(world):
    world.make_idle('a', 'a')
    world.clock.tick(200)
    with world.checkout() as lease:
        assert lease.fresh
        assert fakes.closed(world) == [AGE, AGE]


def test_what_grows_old_on_its_way_to_a_waiter(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]

    def release_too_late(waiter, timeout):
        leases[0].release()
        world.clock.tick(100)

    monkeypatch.setattr(waiters.Waiter, 'wait', release_too_late)
    with world.checkout('a', fakes.soon()) as lease:
        assert lease.fresh
    assert fakes.closed(world) == [AGE]
    leases[1].release()


def test_without_a_limit_no_age_is_too_old(make_world):
    world = make_world()
    world.checkout().release()
    world.clock.tick(1e9)
    with world.checkout() as lease:
        assert not lease.fresh


def test_chance_is_asked_without_the_lock(world):
    world.pool._jitter = lambda: world.check_unlocked() or 0.0
    world.checkout().release()
