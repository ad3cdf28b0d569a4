# SPDX-License-Identifier: Apache-2.0
"""The end of a pool, with leases out or not, and in a forked process."""

import os
import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import clock
from zmq_driver import pool
from zmq_driver.pool import waiters

Reason = pool.EvictReason
Kind = pool.EventKind


@pytest.mark.spec('PL-23')
def test_idle_sockets_are_closed(world):
    world.make_idle('a', 'b')
    assert world.pool.close(fakes.soon()) == []
    assert all(socket.closed for socket in world.sockets)
    assert world.story()[-4:] == [
        'pool closing',
        'closed a: pool closed',
        'closed b: pool closed',
        'pool closed',
    ]
    assert world.pool.state is pool.PoolState.CLOSED


@pytest.mark.spec('PL-23')
def test_nothing_is_lent_any_more(world):
    world.make_idle('a')
    world.pool.close(fakes.soon())
    with pytest.raises(pool.PoolClosed) as caught:
        world.checkout('a', fakes.soon())
    assert str(caught.value) == (
        "no socket to 'a' after 0.000 s: pool 'rpc' is CLOSED, "
        '0 of 2 sockets to this peer, 0 of 4 in all, 0 of 8 waiting'
    )


@pytest.mark.spec('PL-23')
def test_waiting_threads_fail_at_once(world):
    world.single_threaded = False
    leases = [world.checkout('a'), world.checkout('a')]
    with fakes.actors(2) as crowd:
        futures = [
            actor.submit(world.checkout, 'a', fakes.soon()) for actor in crowd
        ]
        world.wait_for(Kind.WAITING, 2)
        world.pool.close(fakes.NOW)
        for future in futures:
            with pytest.raises(pool.PoolClosed):
                future.result(fakes.PATIENCE)
    assert world.pool.stats().handed_off_total == 0
    for lease in leases:
        lease.release()


@pytest.mark.spec('PL-23')
def test_a_waiter_that_has_yet_to_wake_up_fails_too(world, monkeypatch):
    """It was given a socket, but the pool was closed before it looked."""
    leases = [world.checkout('a'), world.checkout('a')]

    def release_and_close(waiter, timeout):
        leases[0].release()
        world.pool.close(fakes.NOW)

    monkeypatch.setattr(waiters.Waiter, 'wait', release_and_close)
    with pytest.raises(pool.PoolClosed):
        world.checkout('a', fakes.soon())
    assert fakes.closed(world) == [Reason.POOL_CLOSED]
    leases[1].release()
    assert fakes.closed(world) == [Reason.POOL_CLOSED] * 2


@pytest.mark.spec('PL-23')
def test_a_socket_opened_meanwhile_is_not_lent(world):
    left = []

    def close(peer):
        left.extend(world.pool.close(fakes.NOW))

    world.on_open = close
    with pytest.raises(pool.PoolClosed):
        world.checkout('a')
    assert world.sockets[0].closed
    assert [lease.peer for lease in left] == ['a']
    assert world.story() == [
        'pool closing',
        'pool closed',
        'opened a',
        'closed a: pool closed',
    ]


@pytest.mark.spec('PL-23')
def test_a_slot_given_to_a_waiter_that_has_yet_to_wake_up(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]

    def retire_and_close(waiter, timeout):
        leases[0].retire(Reason.UNFINISHED)
        leases[0].release()
        world.pool.close(fakes.NOW)

    monkeypatch.setattr(waiters.Waiter, 'wait', retire_and_close)
    with pytest.raises(pool.PoolClosed):
        world.checkout('a', fakes.soon())
    leases[1].release()
    assert world.pool.stats().peers == 0


@pytest.mark.spec('PL-05', 'PL-23')
def test_an_unhealthy_socket_is_not_replaced_any_more(world):
    world.make_idle('a')
    world.sockets[0].is_healthy = False

    def close(event):
        if event.kind is Kind.CLOSED:
            world.on_event = None
            world.pool.close(fakes.NOW)

    world.on_event = close
    with pytest.raises(pool.PoolClosed):
        world.checkout('a')
    assert len(world.sockets) == 1


@pytest.mark.spec('PL-24')
def test_an_unhealthy_socket_is_waited_for(world):
    """The pool is closed while the last socket it has is being closed."""
    world.single_threaded = False
    world.make_idle('a')
    world.sockets[0].is_healthy = False
    with fakes.actors(1) as [actor]:
        closing = []

        def close(event):
            if event.kind is Kind.CLOSED:
                world.on_event = None
                closing.append(actor.submit(world.pool.close, fakes.soon()))
                world.wait_for(Kind.POOL_CLOSING)

        world.on_event = close
        with pytest.raises(pool.PoolClosed):
            world.checkout('a')
        assert closing[0].result(fakes.PATIENCE) == []


@pytest.mark.spec('PL-24')
def test_leases_are_waited_for(world):
    world.single_threaded = False
    lease = world.checkout('a')
    with fakes.actors(1) as [actor]:
        closing = actor.submit(world.pool.close, fakes.soon())
        world.wait_for(Kind.POOL_CLOSING)
        assert world.pool.state is pool.PoolState.CLOSING
        lease.release()
        assert closing.result(fakes.PATIENCE) == []
    assert world.pool.state is pool.PoolState.CLOSED
    assert fakes.closed(world) == [Reason.POOL_CLOSED]


@pytest.mark.spec('PL-24')
def test_an_endless_deadline_is_none_too_long(world):
    assert world.pool.close(clock.Deadline(float('inf'))) == []


@pytest.mark.spec('PL-24')
def test_leases_that_do_not_come_back_are_described(world):
    lease = world.checkout('a')
    world.clock.tick(2.5)
    other = world.checkout(('b', 1))
    world.clock.tick(1)
    left = sorted(world.pool.close(fakes.NOW), key=str)
    name = threading.current_thread().name
    assert left == [('a', name, 3.5), (('b', 1), name, 1.0)]
    assert [str(each) for each in left] == [
        f"'a' held by {name} for 3.500 s",
        f"('b', 1) held by {name} for 1.000 s",
    ]
    assert not any(socket.closed for socket in world.sockets)
    lease.release()
    other.release()


@pytest.mark.spec('PL-25')
def test_a_lease_that_outlives_its_pool_closes_its_socket(world):
    with fakes.actors(1) as [actor]:
        lease = fakes.run(actor, world.checkout)
        assert len(world.pool.close(fakes.NOW)) == 1
        fakes.run(actor, lambda: lease.socket)
        fakes.run(actor, lease.release)
    assert world.sockets[0].closed == 1
    assert world.sockets[0].closed_by.name == 'actor-0_0'
    assert world.story()[-3:] == [
        'pool closed',
        'checked in a',
        'closed a: pool closed',
    ]
    assert world.pool.close(fakes.soon()) == []


@pytest.mark.spec('PL-26')
def test_closing_again_does_nothing_and_does_not_wait(world, monkeypatch):
    lease = world.checkout('a')
    left = world.pool.close(fakes.NOW)
    story = world.story()
    monkeypatch.setattr(world.pool._closer.drained, 'wait', None)
    assert world.pool.close(fakes.soon()) == left
    assert world.story() == story
    lease.release()


@pytest.mark.spec('PL-26')
def test_several_threads_may_close(world):
    world.single_threaded = False
    lease = world.checkout('a')
    with fakes.actors(4) as crowd:
        closing = [a.submit(world.pool.close, fakes.soon()) for a in crowd]
        world.wait_for(Kind.POOL_CLOSING)
        lease.release()
        assert [c.result(fakes.PATIENCE) for c in closing] == [[]] * 4
    assert world.count(Kind.POOL_CLOSING) == 1
    assert world.count(Kind.POOL_CLOSED) == 1


@pytest.mark.spec('PL-16')
def test_an_interrupt_does_not_keep_sockets_from_being_closed(world):
    def interrupt(event):
        world.on_event = None
        raise KeyboardInterrupt

    world.make_idle('a', 'b')
    world.on_event = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.pool.close(fakes.soon())
    assert all(socket.closed for socket in world.sockets)
    assert world.pool.close(fakes.soon()) == []


def in_child(function):
    """Return the text that *function* returns in a forked process."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        text = 'it raised'
        try:
            text = function()
        finally:
            os.write(writable, text.encode())
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


@pytest.mark.spec('PL-27')
def test_a_forked_child_leaves_the_pool_alone(world):
    """The fork comes while a thread, which the child lacks, has the lock."""
    world.make_idle('a', 'b')
    lease = world.checkout('a')
    story = world.story()

    def use_the_pool():
        assert lease.socket is world.sockets[0]
        lease.release()
        with pytest.raises(pool.LeaseEnded):
            lease.release()
        world.pool.clear('a')
        assert world.pool.close(fakes.soon()) == []
        with pytest.raises(pool.PoolClosed) as stats:
            world.pool.stats()
        with pytest.raises(pool.PoolClosed) as caught:
            world.checkout('a')
        assert str(stats.value) == str(caught.value)
        assert world.story() == story
        assert not any(socket.closed for socket in world.sockets)
        assert repr(world.pool).startswith("<SocketPool 'rpc' OPEN")
        return str(caught.value)

    with world.pool._lock:
        world.single_threaded = False
        text = in_child(use_the_pool)
    assert text == f"pool 'rpc' was inherited from process {os.getpid()}"
    lease.release()
    assert world.pool.stats().idle == 2


@pytest.mark.spec('PL-27')
def test_an_inherited_pool_is_known_by_its_process(world, monkeypatch):
    """The same without a fork, so that the lines are seen to run."""
    world.make_idle('a', 'b')
    lease = world.checkout('a')
    story = world.story()
    with monkeypatch.context() as child:
        child.setattr(os, 'getpid', lambda: -1)
        lease.release()
        world.pool.clear('b')
        assert world.pool.close(fakes.soon()) == []
        for refused in world.pool.stats, world.checkout:
            with pytest.raises(pool.PoolClosed, match='inherited'):
                refused()
    assert world.story() == story
    assert world.pool.stats().in_use == world.pool.stats().idle == 1
