# SPDX-License-Identifier: Apache-2.0
"""Who waits, who is served, and what comes in between.

Threads wait for real here, but never for a time: a test goes on when it was
told that a thread waits. Where two threads race, the test takes the place
of the sleep of the waiting one, and so decides who wins.
"""

import contextlib
import re
import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import clock
from zmq_driver import pool
from zmq_driver.pool import waiters

Reason = pool.EvictReason
WAITING = pool.EventKind.WAITING


@pytest.fixture
def world(make_world):
    world = make_world(max_size=3, max_per_peer=2, max_waiters=8)
    world.single_threaded = False
    return world


@pytest.fixture
def crowd():
    with fakes.actors(4) as found:
        yield found


def queue_up(world, actor, peer):
    """Have *actor* wait for a socket; return the future of its lease."""
    count = world.count(WAITING)
    future = actor.submit(world.checkout, peer, fakes.soon())
    world.wait_for(WAITING, count + 1)
    return future


def get(future):
    return future.result(fakes.PATIENCE)


@contextlib.contextmanager
def instead_of_sleeping(monkeypatch, act):
    """Have *act* called, once, where a thread would fall asleep."""
    with monkeypatch.context() as patch:

        def wait(waiter, timeout):
            patch.undo()
            act()

        patch.setattr(waiters.Waiter, 'wait', wait)
        yield


@pytest.mark.spec('PL-10', 'PL-17')
def test_a_released_socket_goes_to_a_waiter(world, crowd):
    leases = [world.checkout('a'), world.checkout('a')]
    future = queue_up(world, crowd[0], 'a')
    socket = leases[1].socket
    world.clock.tick(2.5)
    leases[1].release()

    lease = get(future)
    assert not lease.fresh
    assert fakes.run(crowd[0], lambda: lease.socket) is socket
    assert socket.owner.name == 'actor-0_0'
    world.check_books()
    stats = world.pool.stats()
    assert stats.waits_total == stats.handed_off_total == 1
    assert stats.wait_seconds_total == 2.5
    assert stats.timeouts_total == 0


@pytest.mark.spec('PL-17')
def test_a_retired_socket_leaves_its_slot_to_a_waiter(world, crowd):
    leases = [world.checkout('a'), world.checkout('a')]
    future = queue_up(world, crowd[0], 'a')
    leases[0].retire(Reason.UNFINISHED)
    leases[0].release()
    assert get(future).fresh
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert len(leases) == 2


@pytest.mark.spec('PL-09', 'PL-17')
def test_a_failed_opening_leaves_its_slot_to_a_waiter(world, crowd):
    lease = world.checkout('a')
    started, go_on = threading.Event(), threading.Event()

    def fail(peer):
        world.on_open = None
        started.set()
        assert go_on.wait(fakes.PATIENCE)
        raise OSError(peer)

    world.on_open = fail
    failing = crowd[1].submit(world.checkout, 'a')
    assert started.wait(fakes.PATIENCE)
    future = queue_up(world, crowd[0], 'a')
    go_on.set()
    with pytest.raises(OSError, match='a'):
        get(failing)
    assert get(future).fresh
    assert not lease.socket.closed


@pytest.mark.spec('PL-18')
def test_waiters_are_served_in_their_order(world, crowd):
    lease = world.checkout('a'), world.checkout('a')
    futures = [queue_up(world, actor, 'a') for actor in crowd[:3]]

    lease[0].release()
    for n, actor in enumerate(crowd[:3]):
        served = get(futures[n])
        assert [f.done() for f in futures] == [m <= n for m in range(3)]
        fakes.run(actor, served.release)
    lease[1].release()


@pytest.mark.spec('PL-18', 'PL-04')
def test_an_idle_socket_makes_room_for_who_waits_for_another_peer(
    world, crowd
):
    leases = [world.checkout(peer) for peer in 'aab']
    for_c = queue_up(world, crowd[0], 'c')
    for_b = queue_up(world, crowd[1], 'b')

    leases[2].release()
    assert get(for_c).fresh
    assert not for_b.done()
    assert fakes.closed(world) == [Reason.SURPLUS]

    leases[0].release()
    assert get(for_b).fresh
    assert fakes.closed(world) == [Reason.SURPLUS] * 2
    world.check_books()


@pytest.mark.spec('PL-18')
def test_who_cannot_be_served_is_passed_over(world, crowd):
    """The first one's peer has its share, so the room is of no use to it."""
    leases = [world.checkout(peer) for peer in 'aab']
    for_a = queue_up(world, crowd[0], 'a')
    for_c = queue_up(world, crowd[1], 'c')
    for_b = queue_up(world, crowd[2], 'b')

    leases[2].release()
    assert get(for_c).fresh
    assert not for_a.done()
    fakes.run(crowd[1], get(for_c).release)
    assert get(for_b).fresh
    assert not for_a.done()
    leases[0].release()
    assert not get(for_a).fresh


@pytest.mark.spec('PL-18')
def test_the_order_holds_across_peers(world, crowd):
    leases = [world.checkout(peer) for peer in 'abc']
    futures = [
        queue_up(world, actor, peer)
        for actor, peer in zip(crowd[:3], 'dad', strict=True)
    ]
    for n, lease in enumerate(leases):
        lease.release()
        get(futures[n])
        assert [f.done() for f in futures] == [m <= n for m in range(3)]


@pytest.mark.spec('PL-19')
def test_a_newcomer_does_not_overtake(world, crowd):
    """What a waiter was given is not there for who comes next."""
    leases = [world.checkout('a'), world.checkout('a')]
    future = queue_up(world, crowd[0], 'a')
    leases[0].release()
    # Whether the waiter has woken up or not.
    with pytest.raises(pool.PoolTimeout):
        world.checkout('a')
    assert not get(future).fresh


@pytest.mark.spec('PL-19')
def test_room_that_comes_free_is_a_waiters(world, crowd):
    leases = [world.checkout(peer) for peer in 'abc']
    future = queue_up(world, crowd[0], 'd')
    leases[0].retire(Reason.UNFINISHED)
    leases[0].release()
    with pytest.raises(pool.PoolTimeout):
        world.checkout('e')
    assert get(future).fresh


@pytest.mark.spec('PL-21')
def test_a_wait_ends_at_its_deadline(world):
    leases = [world.checkout(peer) for peer in 'aab']
    with pytest.raises(pool.PoolTimeout) as caught:
        world.checkout('c', clock.Deadline(0.01))
    assert str(caught.value) == (
        "no socket to 'c' after 0.000 s: pool 'rpc' is OPEN, "
        '0 of 2 sockets to this peer, 3 of 3 in all, 0 of 8 waiting'
    )
    assert world.story()[-1] == 'waiting c'
    world.check_books()
    assert len(leases) == 3


@pytest.mark.spec('PL-21')
def test_the_error_says_how_long_it_waited(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]
    with (
        instead_of_sleeping(monkeypatch, lambda: world.clock.tick(1.5)),
        pytest.raises(pool.PoolTimeout, match=re.escape('after 1.500 s')),
    ):
        world.checkout('a', clock.Deadline(1.5, world.clock))
    stats = world.pool.stats()
    assert stats.wait_seconds_total == 1.5
    assert stats.timeouts_total == stats.waits_total == 1
    assert stats.handed_off_total == stats.waiting == 0
    assert len(leases) == 2


@pytest.mark.spec('PL-21')
def test_an_endless_deadline_is_none_too_long(world, crowd):
    leases = [world.checkout('a'), world.checkout('a')]
    endless = clock.Deadline(float('inf'))
    future = crowd[0].submit(world.checkout, 'a', endless)
    world.wait_for(WAITING)
    leases[0].release()
    get(future)


@pytest.mark.spec('PL-20')
def test_who_has_stopped_waiting_is_given_nothing(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]
    with (
        instead_of_sleeping(monkeypatch, lambda: None),
        pytest.raises(pool.PoolTimeout),
    ):
        world.checkout('a', fakes.soon())
    leases[0].release()
    assert world.pool.stats().idle == 1
    assert world.pool.stats().reserved == 0


@pytest.mark.spec('PL-20')
def test_a_socket_given_in_the_last_moment_is_taken(world, monkeypatch):
    """The deadline passes, but a socket comes before the waiter can say so."""
    leases = [world.checkout('a'), world.checkout('a')]

    def release():
        leases[0].release()
        world.pool.check_invariants()
        assert world.pool.stats().reserved == 1
        assert world.pool.stats().waiting == 0

    with instead_of_sleeping(monkeypatch, release):
        lease = world.checkout('a', fakes.soon())
    assert lease.socket is world.sockets[0]
    assert not lease.fresh


@pytest.mark.spec('PL-20')
@pytest.mark.parametrize('reason', [None, Reason.UNFINISHED])
def test_what_an_interrupted_waiter_was_given_is_not_lost(
    world, monkeypatch, reason
):
    """It was given an idle socket, or a slot."""
    leases = [world.checkout('a'), world.checkout('a')]

    def release():
        if reason:
            leases[0].retire(reason)
        leases[0].release()
        raise KeyboardInterrupt

    with (
        instead_of_sleeping(monkeypatch, release),
        pytest.raises(KeyboardInterrupt),
    ):
        world.checkout('a', fakes.soon())
    world.check_books()
    assert world.sockets[0].closed
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert world.checkout('a').fresh


@pytest.mark.spec('PL-16')
def test_an_interrupted_waiter_leaves_the_queue(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]

    def interrupt():
        raise KeyboardInterrupt

    with (
        instead_of_sleeping(monkeypatch, interrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        world.checkout('a', fakes.soon())
    assert world.pool.stats().waiting == 0
    leases[0].release()
    assert world.pool.stats().idle == 1


@pytest.mark.spec('PL-16', 'PL-18')
def test_what_an_interrupted_waiter_was_given_serves_the_next(
    world, monkeypatch, crowd
):
    leases = [world.checkout('a'), world.checkout('a')]
    futures = []

    def release():
        futures.append(queue_up(world, crowd[0], 'a'))
        leases[0].release()
        raise KeyboardInterrupt

    with (
        instead_of_sleeping(monkeypatch, release),
        pytest.raises(KeyboardInterrupt),
    ):
        world.checkout('a', fakes.soon())
    assert get(futures[0]).fresh


@pytest.mark.spec('PL-13')
def test_a_socket_cleared_before_the_waiter_wakes_up_is_not_lent(
    world, monkeypatch
):
    leases = [world.checkout('a'), world.checkout('a')]

    def release_and_clear():
        leases[0].release()
        world.pool.clear('a')

    with instead_of_sleeping(monkeypatch, release_and_clear):
        lease = world.checkout('a', fakes.soon())
    assert lease.fresh
    assert world.sockets[0].closed
    assert fakes.closed(world) == [Reason.STALE]


@pytest.mark.spec('PL-05')
def test_a_socket_that_a_waiter_was_given_is_examined(world, monkeypatch):
    leases = [world.checkout('a'), world.checkout('a')]
    world.sockets[0].is_healthy = False
    with instead_of_sleeping(monkeypatch, lambda: leases[0].release()):
        lease = world.checkout('a', fakes.soon())
    assert lease.fresh
    assert fakes.closed(world) == [Reason.UNHEALTHY]


@pytest.mark.spec('PL-05')
def test_while_an_unhealthy_socket_is_closed_its_slot_is_kept(world, crowd):
    """Another thread may take the idle socket, but it does not take both."""
    world.make_idle('a', 'a')
    lease = world.checkout('b')
    world.sockets[1].is_healthy = False
    others = []

    def take_the_other(event):
        if event.kind is pool.EventKind.CLOSED:
            world.on_event = None
            others.append(fakes.run(crowd[0], world.checkout, 'c'))
            with pytest.raises(pool.PoolTimeout):
                fakes.run(crowd[0], world.checkout, 'd')

    world.on_event = take_the_other
    assert world.checkout('a').fresh
    assert others[0].fresh
    assert fakes.closed(world) == [Reason.UNHEALTHY, Reason.SURPLUS]
    assert lease.fresh


@pytest.mark.spec('PL-22')
def test_no_more_than_max_waiters_wait(make_world, crowd):
    world = make_world(max_size=1, max_per_peer=1, max_waiters=2)
    world.single_threaded = False
    lease = world.checkout('a')
    futures = [queue_up(world, actor, 'a') for actor in crowd[:2]]
    with pytest.raises(pool.TooManyWaiters) as caught:
        world.checkout('a', fakes.soon())
    assert str(caught.value) == (
        "no socket to 'a' after 0.000 s: pool 'rpc' is OPEN, "
        '1 of 1 sockets to this peer, 1 of 1 in all, 2 of 2 waiting'
    )
    assert repr(world.pool) == (
        "<SocketPool 'rpc' OPEN "
        '[peers: 1 | sockets: 1 in use, 0 idle | waiting: 2]>'
    )
    world.pool.check_invariants()
    lease.release()
    for actor, future in zip(crowd, futures, strict=False):
        fakes.run(actor, get(future).release)


@pytest.mark.spec('PL-22', 'PL-06')
def test_nobody_waits_when_nobody_may(make_world):
    world = make_world(max_size=1, max_per_peer=1, max_waiters=0)
    lease = world.checkout('a')
    with pytest.raises(pool.TooManyWaiters):
        world.checkout('a', fakes.soon())
    with pytest.raises(pool.PoolTimeout):
        world.checkout('a', fakes.NOW)
    lease.release()


@pytest.mark.spec('PL-17')
def test_clearing_one_peer_serves_who_waits_for_another(world, crowd):
    """A leased socket of the cleared peer comes back and frees its slot."""
    leases = [world.checkout(peer) for peer in 'aab']
    future = queue_up(world, crowd[0], 'c')
    world.pool.clear('a')
    assert not future.done()
    leases[0].release()
    assert get(future).fresh
    assert fakes.closed(world) == [Reason.STALE]


def test_the_queue_knows_who_is_in_it():
    queue = waiters.WaitQueue()
    found = [waiters.Waiter(p, threading.current_thread()) for p in 'aba']
    assert not queue
    assert not queue.remove(found[0])
    for waiter in found:
        queue.add(waiter)
    assert len(queue) == 3
    assert list(queue.heads()) == found[:2]
    assert queue.remove(found[0])
    assert not queue.remove(found[0])
    assert set(queue.heads()) == {found[1], found[2]}
    assert queue.drain() == found[1:]
    assert len(queue) == 0
