# SPDX-License-Identifier: Apache-2.0
"""An interrupt may come anywhere; the pool loses no slot by it."""

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool

pytestmark = pytest.mark.spec('PL-16')

Reason = pool.EvictReason
Kind = pool.EventKind


@pytest.fixture
def world(make_world):
    """A pool in which a lost slot shows at the next checkout."""
    return make_world(max_size=1, max_per_peer=1, max_waiters=0)


def interrupt_at(world, kind):
    def interrupt(event):
        if event.kind is kind:
            world.on_event = None
            raise KeyboardInterrupt

    world.on_event = interrupt


def is_unharmed(world):
    world.check_books()
    world.checkout('z').release()
    world.check_books()
    return True


def test_in_the_factory(world):
    def interrupt(peer):
        world.on_open = None
        raise KeyboardInterrupt

    world.on_open = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.checkout('a')
    assert is_unharmed(world)


def test_when_the_socket_was_opened(world, monkeypatch):
    real = fakes.FakeSocket.hand_over

    def interrupt(socket, owner):
        monkeypatch.setattr(fakes.FakeSocket, 'hand_over', real)
        raise KeyboardInterrupt

    monkeypatch.setattr(fakes.FakeSocket, 'hand_over', interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.checkout('a')
    assert world.sockets[0].closed == 1
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert is_unharmed(world)


@pytest.mark.parametrize('kind', [Kind.OPENED, Kind.CHECKED_OUT])
def test_when_the_lease_was_about_to_begin(world, kind):
    interrupt_at(world, kind)
    with pytest.raises(KeyboardInterrupt):
        world.checkout('a')
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert is_unharmed(world)


def test_when_an_idle_socket_was_about_to_be_lent(world):
    world.make_idle('a')
    interrupt_at(world, Kind.CHECKED_OUT)
    with pytest.raises(KeyboardInterrupt):
        world.checkout('a')
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert is_unharmed(world)


def test_when_a_socket_is_examined(world):
    world.make_idle('a')
    world.sockets[0].raises['healthy'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.checkout('a')
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert is_unharmed(world)


@pytest.mark.spec('PL-14')
def test_when_an_unhealthy_socket_is_closed(world):
    world.make_idle('a')
    world.sockets[0].is_healthy = False
    world.sockets[0].raises['close'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.checkout('a')
    assert world.sockets[0].closed == 1
    assert fakes.closed(world) == [Reason.UNHEALTHY]
    assert is_unharmed(world)


def test_when_room_is_made(world):
    world.make_idle('a')
    world.sockets[0].raises['close'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.checkout('b')
    assert world.sockets[0].closed == 1
    assert fakes.closed(world) == [Reason.SURPLUS]
    assert is_unharmed(world)


def test_before_room_is_made(world, monkeypatch):
    """The slot was promised, and the socket in it is still open."""
    world.make_idle('a')
    real = world.pool._open

    def interrupt(*arguments):
        monkeypatch.setattr(world.pool, '_open', real)
        raise KeyboardInterrupt

    monkeypatch.setattr(world.pool, '_open', interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.checkout('b')
    assert world.sockets[0].closed == 1
    assert fakes.closed(world) == [Reason.SURPLUS]
    assert is_unharmed(world)


def test_when_a_socket_is_put_down(world):
    lease = world.checkout('a')
    lease.socket.raises['put_down'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert is_unharmed(world)


def test_when_a_socket_has_been_checked_in(world):
    lease = world.checkout('a')
    interrupt_at(world, Kind.CHECKED_IN)
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    assert world.pool.stats().idle == 1
    assert is_unharmed(world)


@pytest.mark.spec('PL-14')
def test_when_a_retired_socket_is_closed(world):
    lease = world.checkout('a')
    lease.retire(Reason.UNFINISHED)
    lease.socket.raises['close'] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    assert world.sockets[0].closed == 1
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert is_unharmed(world)


def test_when_a_retired_socket_is_about_to_be_closed(world):
    lease = world.checkout('a')
    lease.retire(Reason.UNHEALTHY)
    interrupt_at(world, Kind.CHECKED_IN)
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    assert fakes.closed(world) == [Reason.UNHEALTHY]
    assert is_unharmed(world)
