# SPDX-License-Identifier: Apache-2.0
"""The figures that a pool shows."""

import dataclasses

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import waiters

Reason = pool.EvictReason


@pytest.mark.spec('PL-30')
def test_a_new_pool_has_nothing(world):
    stats = dataclasses.asdict(world.pool.stats())
    assert stats.pop('closed_total') == dict.fromkeys(Reason, 0)
    assert set(stats.values()) == {0}


@pytest.mark.spec('PL-30')
def test_every_socket_is_counted(world):
    world.make_idle('a', 'a')
    for lease in world.checkout('a'), world.checkout('b'):
        lease.retire(Reason.UNFINISHED)
        lease.release()
    with world.checkout('a'), world.checkout('c'):
        stats = world.pool.stats()
    assert stats == pool.PoolStats(
        peers=2,
        opening=0,
        idle=0,
        reserved=0,
        in_use=2,
        retiring=0,
        waiting=0,
        created_total=4,
        warmed_total=0,
        reconnects_total=0,
        recycled_total=2,
        reused_total=2,
        replaced_total=0,
        closed_total={**dict.fromkeys(Reason, 0), Reason.UNFINISHED: 2},
        waits_total=0,
        wait_seconds_total=0.0,
        wait_seconds_max=0.0,
        handed_off_total=0,
        timeouts_total=0,
        reaped_total=0,
        refused_total=0,
    )
    stats = world.pool.stats()
    assert (stats.in_use, stats.idle) == (0, 2)


@pytest.mark.spec('PL-30')
def test_sockets_on_their_way_are_counted(world):
    seen = []

    def look(*_):
        stats = world.pool.stats()
        seen.append((stats.opening, stats.retiring))
        world.pool.check_invariants()

    world.on_open = look
    lease = world.checkout('a')
    lease.retire(Reason.UNFINISHED)
    world.on_event = look
    lease.release()
    # While opened; when checked in, before and after the socket was closed.
    assert seen == [(1, 0), (0, 1), (0, 0)]


@pytest.mark.spec('PL-41')
def test_the_hit_ratio_is_that_of_leases(world):
    assert world.pool.stats().hit_ratio == 0.0
    world.checkout().release()
    assert world.pool.stats().hit_ratio == 0.0
    for _ in range(3):
        world.checkout().release()
    assert world.pool.stats().hit_ratio == 0.75
    # One that was replaced was no hit.
    world.sockets[0].is_healthy = False
    world.checkout().release()
    stats = world.pool.stats()
    assert (stats.reused_total, stats.replaced_total) == (4, 1)
    assert stats.hit_ratio == 0.6


@pytest.mark.spec('PL-41')
def test_what_the_reaper_closes_is_counted_apart(make_world):
    world = make_world(max_age=60)
    world.make_idle('a', 'b', 'c')
    world.clock.tick(57)
    with world.checkout('c'):
        world.clock.tick(10)
        assert world.pool.reap() == 2
    stats = world.pool.stats()
    assert (stats.reaped_total, stats.closed_total[Reason.AGE]) == (2, 3)


@pytest.mark.spec('PL-41')
def test_waits_are_measured(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]
    assert world.pool.stats().wait_seconds_mean == 0.0
    for seconds in 1, 5, 3:
        monkeypatch.setattr(
            waiters.Waiter, 'wait', lambda *_, s=seconds: world.clock.tick(s)
        )
        with pytest.raises(pool.PoolTimeout):
            world.checkout('a', fakes.soon())
    stats = world.pool.stats()
    assert (stats.waits_total, stats.wait_seconds_total) == (3, 9)
    assert (stats.wait_seconds_mean, stats.wait_seconds_max) == (3, 5)
    for lease in leases:
        lease.release()


def test_a_snapshot_does_not_change(world):
    stats = world.pool.stats()
    world.checkout('a').release()
    world.pool.clear('a')
    assert stats.created_total == 0
    assert stats.closed_total[Reason.STALE] == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.idle = 1


def test_a_pool_shows_itself(world):
    world.make_idle('a', 'b')
    with world.checkout('a'), world.checkout('c'):
        assert repr(world.pool) == (
            "<SocketPool 'rpc' OPEN "
            '[peers: 3 | sockets: 2 in use, 1 idle | waiting: 0]>'
        )
    world.pool.close(fakes.soon())
    assert repr(world.pool) == (
        "<SocketPool 'rpc' CLOSED "
        '[peers: 0 | sockets: 0 in use, 0 idle | waiting: 0]>'
    )
