# SPDX-License-Identifier: Apache-2.0
"""Which socket a checkout gets when it need not wait."""

import logging
import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool

Reason = pool.EvictReason


@pytest.mark.spec('PL-08')
def test_the_first_checkout_opens_a_socket(world):
    with world.checkout('a') as lease:
        assert lease.fresh
        assert lease.peer == 'a'
        assert lease.socket is world.sockets[0]
        assert lease.socket.peer == 'a'
        assert lease.socket.owner is threading.current_thread()
    assert world.story() == ['opened a', 'checked out a', 'checked in a']


@pytest.mark.spec('PL-08', 'PL-02', 'PL-10')
def test_the_next_one_gets_the_same_socket(world):
    world.make_idle('a')
    assert world.sockets[0].owner is None
    with world.checkout('a') as lease:
        assert not lease.fresh
        assert lease.socket is world.sockets[0]
        assert lease.socket.owner is threading.current_thread()
    assert len(world.sockets) == 1


@pytest.mark.spec('PL-02')
def test_the_socket_used_last_comes_first(world):
    world.make_idle('a', 'a')
    first, last = world.sockets
    assert world.checkout('a').socket is last
    assert world.checkout('a').socket is first


def test_a_socket_serves_its_own_peer_only(world):
    world.make_idle('a')
    assert world.checkout('b').socket is not world.sockets[0]


@pytest.mark.spec('PL-03', 'PL-06')
def test_a_peer_has_at_most_its_share(world):
    leases = [world.checkout('a'), world.checkout('a')]
    with pytest.raises(pool.PoolTimeout):
        world.checkout('a')
    leases.pop().release()
    world.checkout('a')


@pytest.mark.spec('PL-03', 'PL-06')
def test_the_pool_has_at_most_its_size(world):
    leases = [world.checkout(peer) for peer in 'aabb']
    with pytest.raises(pool.PoolTimeout):
        world.checkout('c')
    leases.pop().release()
    world.checkout('c')
    assert fakes.closed(world) == [Reason.SURPLUS]


@pytest.mark.spec('PL-04')
def test_the_least_recently_used_idle_socket_makes_room(world):
    world.make_idle('a', 'b', 'c', 'd')
    world.checkout('a').release()

    closed_first = []
    world.on_open = lambda peer: closed_first.append(world.sockets[1].closed)
    world.checkout('e').release()

    assert [s.peer for s in world.sockets if s.closed] == ['b']
    assert closed_first == [1]
    assert world.story()[-4:] == [
        'closed b: surplus',
        'opened e',
        'checked out e',
        'checked in e',
    ]


@pytest.mark.spec('PL-04')
def test_of_two_sockets_to_one_peer_the_other_one_stays(world):
    world.make_idle('a', 'a', 'b', 'c')
    world.checkout('d').release()
    assert [s.closed for s in world.sockets] == [1, 0, 0, 0, 0]
    assert world.checkout('a').socket is world.sockets[1]


@pytest.mark.spec('PL-04')
def test_no_room_is_made_when_the_peer_has_its_share(world):
    world.make_idle('b', 'c')
    leases = [world.checkout('a'), world.checkout('a')]
    with pytest.raises(pool.PoolTimeout):
        world.checkout('a')
    assert fakes.closed(world) == []
    assert len(leases) == 2


@pytest.mark.spec('PL-03', 'PL-04')
def test_the_room_is_nobody_elses_while_it_is_made(world):
    """Others find the pool full while a socket makes room for another."""
    leases = [world.checkout(peer) for peer in 'aab']
    world.make_idle('c')

    def intrude(event):
        if event.kind is pool.EventKind.CLOSED:
            world.on_event = None
            world.pool.check_invariants()
            assert world.pool.stats().opening == 1
            with pytest.raises(pool.PoolTimeout):
                world.checkout('e')

    world.on_event = intrude
    with world.checkout('d') as lease:
        assert world.on_event is None
        assert lease.fresh
    assert len(leases) == 3


@pytest.mark.spec('PL-05')
def test_an_unhealthy_socket_is_passed_over(world):
    world.make_idle('a', 'a')
    world.sockets[1].is_healthy = False
    with world.checkout('a') as lease:
        assert lease.socket is world.sockets[0]
        assert not lease.fresh
    assert world.sockets[1].closed
    assert fakes.closed(world) == [Reason.UNHEALTHY]


@pytest.mark.spec('PL-05')
def test_without_a_healthy_one_a_new_one_is_opened(world):
    world.make_idle('a', 'a')
    for socket in world.sockets:
        socket.is_healthy = False
    with world.checkout('a') as lease:
        assert lease.fresh
    assert fakes.closed(world) == [Reason.UNHEALTHY] * 2
    assert len(world.sockets) == 3


@pytest.mark.spec('PL-05')
def test_the_slot_of_an_unhealthy_socket_is_used_without_waiting(make_world):
    world = make_world(max_size=1, max_per_peer=1, max_waiters=0)
    world.make_idle('a')
    world.sockets[0].is_healthy = False
    assert world.checkout('a').fresh


@pytest.mark.spec('PL-05', 'PL-28')
def test_a_socket_that_cannot_be_examined_is_unhealthy(world, caplog):
    world.make_idle('a')
    world.sockets[0].raises['healthy'] = ValueError('broken')
    assert world.checkout('a').fresh
    assert world.sockets[0].closed
    assert fakes.closed(world) == [Reason.UNHEALTHY]
    assert "pool rpc: <FakeSocket to a> could not be examined" in caplog.text


@pytest.mark.spec('PL-06')
def test_a_passed_deadline_is_enough_when_nobody_need_wait(make_world):
    world = make_world(max_size=1, max_per_peer=1)
    world.make_idle('a')
    assert world.checkout('a', fakes.NOW).socket is world.sockets[0]


@pytest.mark.spec('PL-06', 'PL-21')
def test_a_passed_deadline_is_not_waited_for(world, monkeypatch):
    monkeypatch.setattr('zmq_driver.pool.waiters.Waiter.wait', None)
    leases = [world.checkout(('tcp://h', 1)) for _ in range(2)]
    with pytest.raises(pool.PoolTimeout) as caught:
        world.checkout(('tcp://h', 1))
    assert str(caught.value) == (
        "no socket to ('tcp://h', 1) after 0.000 s: pool 'rpc' is OPEN, "
        '2 of 2 sockets to this peer, 2 of 4 in all, 0 of 8 waiting'
    )
    assert world.pool.stats().timeouts_total == 1
    assert len(leases) == 2


@pytest.mark.spec('PL-09')
def test_what_the_factory_raises_passes_through(make_world):
    world = make_world(max_size=1, max_per_peer=1)

    def fail(peer):
        raise OSError(f'no way to {peer}')

    world.on_open = fail
    for _ in range(3):
        with pytest.raises(OSError, match='no way to a'):
            world.checkout('a')
        world.check_books()
    assert repr(world.pool) == (
        "<SocketPool 'rpc' OPEN "
        '[peers: 0 | sockets: 0 in use, 0 idle | waiting: 0]>'
    )
    assert world.story() == []

    world.on_open = None
    assert world.checkout('a').fresh


@pytest.mark.spec('PL-09')
def test_room_made_for_a_socket_that_fails_to_open_is_room(make_world):
    world = make_world(max_size=1, max_per_peer=1)
    world.make_idle('a')

    def fail(peer):
        raise OSError(peer)

    world.on_open = fail
    with pytest.raises(OSError, match='b'):
        world.checkout('b')
    assert world.pool.stats().peers == 0
    world.on_open = None
    world.checkout('b')


def test_the_factory_may_use_the_pool(world):
    def open_another(peer):
        world.on_open = None
        world.checkout('b').release()

    world.on_open = open_another
    world.checkout('a').release()
    assert world.pool.stats().idle == 2


def test_a_peer_that_is_no_key_is_refused(world):
    with pytest.raises(TypeError, match='unhashable'):
        world.checkout(['a'])
    world.checkout('a')


@pytest.mark.spec('PL-28')
def test_nothing_is_called_with_the_lock_held(world, caplog):
    """The fakes check it at every call; here every call is made."""

    class Handler(logging.Handler):
        def emit(self, record):
            world.check_unlocked()

    handler = Handler()
    logging.getLogger('zmq_driver.pool').addHandler(handler)
    try:
        world.make_idle('a', 'b', 'c', 'd')
        world.sockets[0].is_healthy = False
        world.sockets[1].raises['healthy'] = ValueError()
        world.sockets[2].raises['close'] = ValueError()
        for peer in 'abef':
            world.checkout(peer).release()
        world.pool.clear('b')
        world.pool.close(fakes.NOW)
    finally:
        logging.getLogger('zmq_driver.pool').removeHandler(handler)
    assert all(socket.closed == 1 for socket in world.sockets)
    assert len(caplog.records) == 2
