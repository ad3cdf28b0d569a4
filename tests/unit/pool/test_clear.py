# SPDX-License-Identifier: Apache-2.0
"""Clearing a peer: what is open now is not lent again."""

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool

Reason = pool.EvictReason


@pytest.mark.spec('PL-12')
def test_idle_sockets_are_closed_at_once(world):
    world.make_idle('a', 'a', 'b')
    world.pool.clear('a')
    assert [s.peer for s in world.sockets if s.closed] == ['a', 'a']
    assert world.story()[-3:] == [
        'cleared a',
        'closed a: stale',
        'closed a: stale',
    ]
    assert world.pool.stats().peers == 1


@pytest.mark.spec('PL-12')
def test_a_leased_socket_is_closed_by_its_borrower(world):
    with fakes.actors(1) as [actor]:
        lease = fakes.run(actor, world.checkout)
        world.pool.clear('a')
        socket = world.sockets[0]
        assert not socket.closed
        fakes.run(actor, lease.release)
    assert socket.closed == 1
    assert socket.closed_by.name == 'actor-0_0'
    assert fakes.closed(world) == [Reason.STALE]


@pytest.mark.spec('PL-13')
def test_the_next_socket_is_not_stale(world):
    old = world.checkout('a')
    world.pool.clear('a')
    new = world.checkout('a')
    assert new.fresh
    old.release()
    new.release()
    assert [s.closed for s in world.sockets] == [1, 0]
    assert world.checkout('a').socket is world.sockets[1]


@pytest.mark.spec('PL-13')
def test_a_socket_opened_meanwhile_is_lent_once(world):
    def clear(peer):
        world.on_open = None
        world.pool.clear(peer)

    world.on_open = clear
    with world.checkout('a') as lease:
        assert lease.fresh
    assert fakes.closed(world) == [Reason.STALE]
    assert world.checkout('a').fresh


def test_a_peer_without_sockets_can_be_cleared(world):
    world.pool.clear('a')
    assert world.story() == ['cleared a']
    world.make_idle('a')
    world.checkout('a').release()
    assert len(world.sockets) == 1


@pytest.mark.spec('PL-14', 'PL-16')
def test_an_interrupt_waits_until_all_sockets_are_closed(world):
    world.make_idle('a', 'a')
    world.sockets[0].raises['close'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.pool.clear('a')
    assert [socket.closed for socket in world.sockets] == [1, 1]
    assert world.pool.stats().peers == 0


@pytest.mark.spec('PL-16')
def test_an_interrupt_does_not_keep_sockets_from_being_closed(world):
    def interrupt(event):
        world.on_event = None
        raise KeyboardInterrupt

    world.make_idle('a', 'a')
    world.on_event = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.pool.clear('a')
    assert all(socket.closed for socket in world.sockets)
    assert world.pool.stats().peers == 0
