# SPDX-License-Identifier: Apache-2.0
"""The reaper closes what is of no more use, and disturbs nobody."""

import gc
import os
import threading
import weakref

import pytest

from tests.fixtures import waiting
from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import reaper

Reason = pool.EvictReason
Kind = pool.EventKind


@pytest.fixture
def world(make_world):
    return make_world(
        max_size=4, max_per_peer=3, max_waiters=4, idle_ttl=60, max_age=1000
    )


def while_examined(world, socket, action):
    """Do *action* while the reaper looks at *socket*, once."""
    real = socket.healthy

    def healthy():
        socket.healthy = real
        action()
        return real()

    socket.healthy = healthy


# -- what is closed


@pytest.mark.spec('PL-34')
def test_what_is_idle_for_too_long_is_closed(world):
    world.make_idle('a', 'b')
    world.clock.tick(57.5)
    assert world.pool.reap() == 0
    world.clock.tick(0.5)
    assert world.pool.reap() == 1
    assert world.story()[-1] == 'closed a: idle'
    world.clock.tick(1)
    assert world.pool.reap() == 1
    assert world.story()[-1] == 'closed b: idle'
    stats = world.pool.stats()
    assert (stats.reaped_total, stats.closed_total[Reason.IDLE]) == (2, 2)
    assert stats.peers == 0


@pytest.mark.spec('PL-34')
def test_use_begins_the_time_anew(world):
    world.checkout().release()
    world.clock.tick(59)
    world.checkout().release()
    world.clock.tick(59)
    assert world.pool.reap() == 0


@pytest.mark.spec('PL-34')
def test_some_stay_for_each_peer(make_world):
    world = make_world(
        max_size=9, max_per_peer=3, idle_ttl=60, min_idle=2, max_waiters=0
    )
    world.make_idle('a', 'a', 'a', 'b', 'b', 'b')
    world.clock.tick(60)
    assert world.pool.reap() == 2
    assert world.pool.reap() == 0
    # Those used last, of those that are healthy.
    assert [s.closed for s in world.sockets] == [1, 0, 0, 1, 0, 0]


@pytest.mark.spec('PL-34', 'PL-35')
def test_an_unhealthy_socket_is_none_that_stays(make_world):
    world = make_world(
        max_size=9, max_per_peer=3, idle_ttl=60, min_idle=1, max_waiters=0
    )
    world.make_idle('a', 'a', 'a')
    world.sockets[2].is_healthy = False
    world.clock.tick(60)
    assert world.pool.reap() == 2
    assert fakes.closed(world) == [Reason.UNHEALTHY, Reason.IDLE]
    assert [s.closed for s in world.sockets] == [1, 0, 1]


@pytest.mark.spec('PL-35')
def test_min_idle_keeps_nothing_that_is_too_old(make_world):
    world = make_world(max_size=2, max_per_peer=2, max_age=100, min_idle=2)
    world.make_idle('a', 'a')
    world.clock.tick(100)
    assert world.pool.reap() == 2
    assert fakes.closed(world) == [Reason.AGE, Reason.AGE]


@pytest.mark.spec('PL-34')
def test_without_a_ttl_nothing_is_idle_for_too_long(make_world):
    world = make_world()
    world.make_idle('a')
    world.clock.tick(1e9)
    assert world.pool.reap() == 0


@pytest.mark.spec('PL-35')
@pytest.mark.parametrize('method', ['hand_over', 'healthy', 'put_down'])
def test_what_fails_when_it_is_asked_is_closed(world, caplog, method):
    world.make_idle('a', 'a')
    world.sockets[1].raises[method] = OSError('broken')
    assert world.pool.reap() == 1
    assert fakes.closed(world) == [Reason.UNHEALTHY]
    assert 'could not be examined' in caplog.text
    assert 'OSError: broken' in caplog.text


# -- how it is looked at


@pytest.mark.spec('PL-33')
def test_an_entry_is_reserved_while_it_is_looked_at(world):
    world.make_idle('a')
    seen = []

    def look():
        world.pool.check_invariants()
        stats = world.pool.stats()
        seen.append((stats.reserved, stats.idle, stats.in_use))
        with world.checkout('a') as lease:
            seen.append(lease.fresh)

    while_examined(world, world.sockets[0], look)
    assert world.pool.reap() == 0
    assert seen == [(1, 0, 0), True]
    assert world.pool.stats().idle == 2


@pytest.mark.spec('PL-33')
def test_what_is_taken_meanwhile_is_left_alone(world):
    world.make_idle('a', 'b')
    leases = []
    while_examined(
        world, world.sockets[1], lambda: leases.append(world.checkout('a'))
    )
    world.clock.tick(58.5)
    assert world.pool.reap() == 0
    leases[0].release()


@pytest.mark.spec('PL-33')
def test_what_is_lent_is_left_alone(world):
    with world.checkout():
        world.clock.tick(5000)
        assert world.pool.reap() == 0


@pytest.mark.spec('PL-33')
def test_what_the_reaper_looks_at_makes_no_room(world):
    """The limit is reached, and the least recently used is being looked at."""
    world.make_idle('a', 'b', 'c', 'd')
    while_examined(
        world, world.sockets[0], lambda: world.checkout('e').release()
    )
    assert world.pool.reap() == 0
    assert world.story().count('closed b: surplus') == 1
    assert not world.sockets[0].closed


@pytest.mark.spec('PL-36')
def test_the_order_of_use_stays(world):
    world.make_idle('a', 'a', 'a', 'b')
    assert world.pool.reap() == 0
    with world.checkout('a') as lease:
        assert lease.socket is world.sockets[2]
        with world.checkout('c'):
            assert [s.closed for s in world.sockets] == [1, 0, 0, 0, 0]


@pytest.mark.spec('PL-36')
def test_it_goes_to_who_waits_meanwhile(make_world):
    world = make_world(max_size=1, max_per_peer=1, max_waiters=1, idle_ttl=9)
    world.make_idle('a')
    world.single_threaded = False
    with fakes.actors(1) as [actor]:
        futures = []

        def wait():
            futures.append(actor.submit(world.checkout, 'a', fakes.soon()))
            world.wait_for(Kind.WAITING)

        while_examined(world, world.sockets[0], wait)
        assert world.pool.reap() == 0
        lease = futures[0].result(fakes.PATIENCE)
        assert not lease.fresh
        fakes.run(actor, lease.release)


@pytest.mark.spec('PL-17')
@pytest.mark.spec('PL-35')
def test_the_slot_of_what_is_closed_goes_to_who_waits(make_world):
    world = make_world(max_size=1, max_per_peer=1, max_waiters=1, idle_ttl=9)
    world.make_idle('a')
    world.single_threaded = False
    with fakes.actors(1) as [actor]:
        futures = []

        def wait():
            futures.append(actor.submit(world.checkout, 'b', fakes.soon()))
            world.wait_for(Kind.WAITING)
            world.sockets[0].is_healthy = False

        while_examined(world, world.sockets[0], wait)
        assert world.pool.reap() == 1
        lease = futures[0].result(fakes.PATIENCE)
        assert lease.fresh
        fakes.run(actor, lease.release)


@pytest.mark.spec('PL-36')
def test_what_was_cleared_meanwhile_is_stale(world):
    world.make_idle('a')
    while_examined(world, world.sockets[0], lambda: world.pool.clear('a'))
    assert world.pool.reap() == 1
    assert fakes.closed(world) == [Reason.STALE]


@pytest.mark.spec('PL-36')
def test_a_pool_closed_meanwhile_waits_for_it(world):
    world.make_idle('a')
    left = []
    while_examined(
        world,
        world.sockets[0],
        lambda: left.extend(world.pool.close(fakes.NOW)),
    )
    assert world.pool.reap() == 1
    assert fakes.closed(world) == [Reason.POOL_CLOSED]
    assert [lease.owner for lease in left] == ['MainThread']
    assert world.pool.reap() == 0


@pytest.mark.spec('PL-37')
def test_one_run_at_a_time(world):
    world.make_idle('a', 'b')
    world.sockets[0].is_healthy = False
    found = []
    while_examined(
        world, world.sockets[1], lambda: found.append(world.pool.reap())
    )
    assert world.pool.reap() == 1
    assert found == [0]


@pytest.mark.spec('PL-16')
@pytest.mark.parametrize('method', ['healthy', 'close'])
def test_an_interrupt_costs_no_slot(world, method):
    world.make_idle('a')
    world.clock.tick(60 if method == 'close' else 0)
    world.sockets[0].raises[method] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.pool.reap()
    assert world.sockets[0].closed == 1
    assert world.pool.stats().peers == 0
    assert world.pool.reap() == 0


# -- a clock that goes back


@pytest.mark.spec('PL-38')
def test_idle_time_is_counted_from_the_jump(world):
    world.make_idle('a')
    world.clock._now -= 500
    assert world.pool.reap() == 0
    world.clock.tick(59)
    assert world.pool.reap() == 0
    world.clock.tick(1)
    assert world.pool.reap() == 1
    assert fakes.closed(world) == [Reason.IDLE]


@pytest.mark.spec('PL-38')
def test_age_is_counted_from_the_jump(make_world):
    world = make_world(max_age=100)
    world.make_idle('a')
    world.clock._now -= 500
    assert world.pool.reap() == 0
    world.clock.tick(99)
    assert world.pool.reap() == 0
    world.clock.tick(1)
    assert world.pool.reap() == 1
    assert fakes.closed(world) == [Reason.AGE]


# -- the thread


def threads(name):
    return [t for t in threading.enumerate() if t.name == name]


@pytest.mark.spec('PL-39')
@pytest.mark.parametrize('limit', [{'idle_ttl': 1}, {'max_age': 1}])
def test_the_thread_lives_from_the_first_socket_to_the_end(make_world, limit):
    world = make_world(name='t1', **limit)
    assert not threads('zmq-reaper-t1')
    with world.checkout('a'), world.checkout('b'):
        [thread] = threads('zmq-reaper-t1')
        assert thread.daemon
    world.pool.close(fakes.soon())
    assert not thread.is_alive()
    world.pool.close(fakes.soon())


@pytest.mark.spec('PL-39')
def test_there_is_no_thread_without_need(make_world):
    world = make_world(name='t2')
    world.checkout().release()
    assert not threads('zmq-reaper-t2')


@pytest.mark.spec('PL-39')
def test_a_closed_pool_starts_no_thread(make_world):
    world = make_world(name='t3', idle_ttl=1)
    world.on_open = lambda peer: world.pool.close(fakes.NOW)
    with pytest.raises(pool.PoolClosed):
        world.checkout()
    world.pool._thread.start(1.0)
    assert waiting.until(lambda: not threads('zmq-reaper-t3'), 'end')


@pytest.mark.spec('PL-39')
def test_the_thread_closes_sockets(make_world):
    world = make_world(name='t4', idle_ttl=60, reap_interval=0.001)
    world.single_threaded = False
    world.make_idle('a')
    world.clock.tick(60)
    world.wait_for(Kind.CLOSED)
    assert world.sockets[0].closed_by.name == 'zmq-reaper-t4'


@pytest.mark.spec('PL-39')
def test_the_thread_may_close_the_pool(make_world):
    world = make_world(name='t5', idle_ttl=60, reap_interval=0.001)
    world.single_threaded = False

    def close(event):
        if event.kind is Kind.CLOSED:
            world.pool.close(fakes.soon())

    world.on_event = close
    world.make_idle('a')
    world.clock.tick(60)
    world.wait_for(Kind.POOL_CLOSED)
    waiting.until(lambda: not threads('zmq-reaper-t5'), 'end')


@pytest.mark.spec('PL-37')
def test_the_thread_survives_what_is_raised(make_world, caplog):
    world = make_world(name='t6', idle_ttl=60, reap_interval=0.001)
    world.single_threaded = False
    world.make_idle('a')
    real = world.pool._reaper._clock

    def fail():
        world.pool._reaper._clock = real
        raise ValueError('no time')

    world.pool._reaper._clock = fail
    world.clock.tick(60)
    world.wait_for(Kind.CLOSED)
    assert 'a pool could not be looked after' in caplog.text
    assert 'ValueError: no time' in caplog.text


@pytest.mark.spec('PL-39')
def test_a_forgotten_pool_needs_no_thread():
    class Pool:
        def reap(self):
            pass

    one = Pool()
    thread = reaper.ReaperThread('zmq-reaper-t7', one.reap)
    gone = weakref.ref(one)
    thread.start(0.001)
    del one
    gc.collect()
    waiting.until(lambda: gone() is None, 'collected pool')
    waiting.until(lambda: not threads('zmq-reaper-t7'), 'end')


@pytest.mark.spec('PL-37')
def test_a_thread_that_cannot_be_started(world, caplog, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', fail)
    world.checkout().release()
    assert 'zmq-reaper-rpc could not be started' in caplog.text
    world.pool.close(fakes.soon())


@pytest.mark.spec('PL-39')
def test_nothing_is_reaped_in_a_child(world, monkeypatch):
    world.make_idle('a')
    world.clock.tick(60)
    monkeypatch.setattr(os, 'getpid', lambda: -1)
    assert world.pool.reap() == 0
    monkeypatch.undo()
    assert not world.sockets[0].closed
