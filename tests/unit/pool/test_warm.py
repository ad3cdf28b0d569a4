# SPDX-License-Identifier: Apache-2.0
"""Sockets that are opened before anybody asks for them."""

import os
import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import ledger

Reason = pool.EvictReason
Kind = pool.EventKind


@pytest.fixture
def world(make_world):
    return make_world(max_size=4, max_per_peer=3, min_idle=2, max_waiters=4)


# -- by the reaper


@pytest.mark.spec('PL-42')
def test_the_reaper_opens_what_is_missing(world):
    world.make_idle('a')
    assert world.pool.reap() == 0
    stats = world.pool.stats()
    assert (stats.idle, stats.created_total, stats.warmed_total) == (2, 2, 1)
    world.pool.reap()
    assert world.pool.stats().created_total == 2


@pytest.mark.spec('PL-42')
def test_what_is_leased_is_not_idle(world):
    with world.checkout('a'):
        world.pool.reap()
        assert world.pool.stats().idle == 2
    assert world.pool.stats().idle == 3


@pytest.mark.spec('PL-42')
def test_the_limit_of_a_peer_holds(world):
    with world.checkout('a'), world.checkout('a'):
        world.pool.reap()
        assert world.pool.stats().idle == 1


@pytest.mark.spec('PL-42')
def test_nobody_loses_a_slot_to_a_warm_up(world):
    world.make_idle('a', 'b', 'c')
    world.pool.reap()
    assert world.pool.stats().idle == 4
    assert fakes.closed(world) == []
    assert world.pool.warm('d') == 0


@pytest.mark.spec('PL-42')
def test_what_was_closed_as_unhealthy_is_opened_anew(world):
    world.make_idle('a', 'a')
    world.sockets[1].is_healthy = False
    assert world.pool.reap() == 1
    assert world.pool.stats().idle == 2


@pytest.mark.spec('PL-42')
def test_a_peer_that_is_gone_is_left_alone(world):
    world.make_idle('a', 'a')
    for socket in world.sockets:
        socket.is_healthy = False
    assert world.pool.reap() == 2
    assert world.pool.stats().created_total == 2


@pytest.mark.spec('PL-42')
def test_without_min_idle_nothing_is_opened(make_world):
    world = make_world(idle_ttl=60)
    world.make_idle('a')
    world.pool.reap()
    assert world.pool.warm('a') == 0
    assert world.pool.stats().created_total == 1


# -- where asked for


@pytest.mark.spec('PL-43')
def test_a_peer_can_be_warmed_up(world):
    assert world.pool.warm('a') == 2
    assert world.pool.warm('a') == 0
    assert world.story() == ['opened a', 'opened a']
    with world.checkout('a') as lease:
        assert not lease.fresh
    stats = world.pool.stats()
    assert (stats.warmed_total, stats.created_total) == (2, 2)
    assert stats.hit_ratio == 1.0


@pytest.mark.spec('PL-43')
def test_one_thread_at_a_time_warms_up(world):
    found = []

    def warm_too(peer):
        world.on_open = None
        found.append(world.pool.warm('b'))

    world.on_open = warm_too
    assert world.pool.warm('a') == 2
    assert found == [0]
    assert world.pool.warm('b') == 2


@pytest.mark.spec('PL-39', 'PL-43')
def test_a_warm_up_starts_the_thread(make_world):
    world = make_world(name='warm', min_idle=1)
    world.pool.warm('a')
    names = [thread.name for thread in threading.enumerate()]
    assert 'zmq-reaper-warm' in names
    world.pool.close(fakes.NOW)


@pytest.mark.spec('PL-23', 'PL-43')
def test_a_closed_pool_is_not_warmed_up(world):
    world.pool.close(fakes.NOW)
    assert world.pool.warm('a') == 0
    assert world.sockets == []


@pytest.mark.spec('PL-27', 'PL-43')
def test_an_inherited_pool_is_not_warmed_up(world, monkeypatch):
    monkeypatch.setattr(os, 'getpid', lambda: 0)
    assert world.pool.warm('a') == 0


# -- where it goes


@pytest.mark.spec('PL-44')
def test_it_is_lent_last(world):
    world.checkout('a').release()
    world.clock.tick(5)
    world.pool.warm('a')
    with world.checkout('a') as lease:
        assert lease.socket is world.sockets[0]


@pytest.mark.spec('PL-44')
def test_it_is_evicted_first(make_world):
    world = make_world(max_size=3, max_per_peer=3, min_idle=1)
    world.make_idle('a', 'b')
    with world.checkout('b'):
        assert world.pool.warm('b') == 1
        world.checkout('c').release()
        assert [s.closed for s in world.sockets] == [0, 0, 1, 0]


@pytest.mark.spec('PL-36', 'PL-44')
def test_the_order_of_use_survives_the_reaper(world):
    world.make_idle('a')
    world.clock.tick(5)
    world.pool.warm('a')
    for _ in range(2):
        world.pool.reap()
    with world.checkout('a') as lease:
        assert lease.socket is world.sockets[0]


@pytest.mark.spec('PL-44')
def test_a_thread_that_waits_gets_it(make_world):
    world = make_world(max_size=1, max_per_peer=1, min_idle=1)
    world.single_threaded = False
    with fakes.actors(1) as [actor]:
        waiting = []

        def let_wait(peer):
            world.on_open = None
            waiting.append(
                actor.submit(world.checkout, peer, fakes.soon()),
            )
            world.wait_for(Kind.WAITING)

        world.on_open = let_wait
        assert world.pool.warm('a') == 1
        lease = waiting[0].result(fakes.PATIENCE)
        assert not lease.fresh
        fakes.run(actor, lease.release)


@pytest.mark.spec('PL-13', 'PL-44')
def test_it_is_closed_if_its_peer_was_cleared_meanwhile(world):
    def clear(peer):
        world.on_open = None
        world.pool.clear(peer)

    world.on_open = clear
    assert world.pool.warm('a') == 0
    assert fakes.closed(world) == [Reason.STALE]
    assert world.pool.stats().peers == 0


@pytest.mark.spec('PL-44')
def test_it_is_closed_if_the_pool_was_closed_meanwhile(world):
    world.on_open = lambda peer: world.pool.close(fakes.NOW)
    assert world.pool.warm('a') == 0
    assert fakes.closed(world) == [Reason.POOL_CLOSED]


# -- what goes wrong


def fail(peer):
    raise OSError('no descriptor is left')


@pytest.mark.spec('PL-45')
def test_an_error_reaches_who_asks_for_it(world):
    world.on_open = fail
    with pytest.raises(OSError, match='no descriptor'):
        world.pool.warm('a')
    assert world.pool.stats().opening == 0
    world.on_open = None
    assert world.pool.warm('a') == 2


@pytest.mark.spec('PL-45')
def test_an_error_does_not_hurt_the_reaper(world, caplog):
    world.make_idle('a', 'b')
    world.on_open = fail
    assert world.pool.reap() == 0
    [record] = caplog.records
    assert 'no socket to' in record.message
    assert 'no descriptor is left' in record.message
    assert not record.exc_info
    assert world.pool.stats().opening == 0


@pytest.mark.spec('PL-16', 'PL-45')
def test_an_interrupt_costs_no_slot(world, monkeypatch):
    def interrupt(socket, owner):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(fakes.FakeSocket, 'hand_over', interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.pool.warm('a')
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert world.pool.warm('a') == 2


# -- what is counted


@pytest.mark.spec('PL-46')
def test_what_is_kept_is_counted(world):
    for _ in range(3):
        world.checkout('a').release()
    world.checkout('b').retire(Reason.AGE)
    assert world.pool.stats().recycled_total == 3


@pytest.mark.spec('PL-46')
@pytest.mark.parametrize(
    ('reason', 'count'),
    [(Reason.UNHEALTHY, 1), (Reason.STALE, 1), (Reason.UNFINISHED, 0)],
)
def test_reconnects_are_counted(world, reason, count):
    lease = world.checkout('a')
    lease.retire(reason)
    lease.release()
    for _ in range(2):
        lease = world.checkout('a')
        lease.retire(Reason.AGE)
        lease.release()
    assert world.pool.stats().reconnects_total == count


@pytest.mark.spec('PL-46')
def test_a_peer_that_was_cleared_is_connected_anew(world):
    world.make_idle('a', 'b')
    world.pool.clear('a')
    world.make_idle('a', 'b')
    assert world.pool.stats().reconnects_total == 1


@pytest.mark.spec('PL-46')
def test_peers_lost_long_ago_are_forgotten(world, monkeypatch):
    monkeypatch.setattr(ledger, 'MOST_LOST', 2)
    for peer in 'abc':
        lease = world.checkout(peer)
        lease.retire(Reason.UNHEALTHY)
        lease.release()
    for peer in 'abc':
        world.checkout(peer).release()
    assert world.pool.stats().reconnects_total == 2
