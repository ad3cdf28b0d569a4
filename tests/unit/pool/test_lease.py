# SPDX-License-Identifier: Apache-2.0
"""What a borrower may do with a lease, and how leases end."""

import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import ownership
from zmq_driver import pool

Reason = pool.EvictReason


@pytest.mark.spec('PL-01', 'TO-01')
@pytest.mark.parametrize(
    'use',
    [
        lambda lease: lease.socket,
        lambda lease: lease.peer,
        lambda lease: lease.release(),
        lambda lease: lease.retire(Reason.UNFINISHED),
        lambda lease: lease.__exit__(None, None, None),
    ],
    ids=['socket', 'peer', 'release', 'retire', 'exit'],
)
def test_a_lease_is_of_use_to_its_thread_only(world, use):
    lease = world.checkout('a')
    with (
        fakes.actors(1) as [actor],
        pytest.raises(ownership.OwnershipError) as caught,
    ):
        fakes.run(actor, use, lease)
    assert str(caught.value) == (
        f"<SocketLease to 'a', of {threading.current_thread().name}> "
        'was used by actor-0_0'
    )
    assert world.pool.stats().in_use == 1
    lease.release()


@pytest.mark.spec('PL-10')
def test_a_block_left_normally_keeps_the_socket(world):
    with world.checkout('a'):
        world.check_books()
    assert world.pool.stats().idle == 1
    assert world.sockets[0].owner is None


@pytest.mark.spec('PL-07')
@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_a_block_left_by_an_exception_retires_it(world, error):
    with pytest.raises(error), world.checkout('a'):
        raise error
    assert world.sockets[0].closed
    assert fakes.closed(world) == [Reason.UNFINISHED]
    assert world.story()[-2:] == ['checked in a', 'closed a: unfinished']
    assert world.pool.stats().peers == 0


@pytest.mark.spec('PL-10')
def test_a_retired_socket_is_closed_at_the_end(world):
    with world.checkout('a') as lease:
        lease.retire(Reason.UNHEALTHY)
        assert not lease.socket.closed
    assert world.sockets[0].closed
    assert fakes.closed(world) == [Reason.UNHEALTHY]


@pytest.mark.spec('PL-10')
def test_the_first_reason_stays(world):
    lease = world.checkout('a')
    lease.retire(Reason.UNHEALTHY)
    lease.retire(Reason.SURPLUS)
    with pytest.raises(KeyError), lease:
        raise KeyError
    assert fakes.closed(world) == [Reason.UNHEALTHY]


@pytest.mark.spec('PL-10')
def test_the_borrowers_reason_stands_before_the_pools(world):
    lease = world.checkout('a')
    world.pool.clear('a')
    lease.retire(Reason.UNFINISHED)
    lease.release()
    assert fakes.closed(world) == [Reason.UNFINISHED]


@pytest.mark.spec('PL-11')
@pytest.mark.parametrize(
    'use',
    [
        lambda lease: lease.socket,
        lambda lease: lease.peer,
        lambda lease: lease.release(),
        lambda lease: lease.retire(Reason.UNFINISHED),
    ],
    ids=['socket', 'peer', 'release', 'retire'],
)
def test_a_lease_that_has_ended_is_of_no_use(world, use):
    lease = world.checkout('a')
    lease.release()
    with pytest.raises(pool.LeaseEnded) as caught:
        use(lease)
    assert isinstance(caught.value, RuntimeError)
    assert str(caught.value) == (
        f'<SocketLease ended, of {threading.current_thread().name}> '
        'was used or released after its end'
    )
    assert world.pool.stats().idle == 1


def test_a_lease_may_be_released_within_its_block(world):
    with world.checkout('a') as lease:
        lease.release()
        assert world.pool.stats().idle == 1


def test_one_thread_may_hold_many_leases(world):
    with world.checkout('a') as first, world.checkout('a') as second:
        assert first.socket is not second.socket
        world.check_books()
    assert world.pool.stats().idle == 2


@pytest.mark.spec('PL-15')
@pytest.mark.parametrize('method', ['close', 'hand_over'])
def test_a_socket_that_does_not_close_costs_no_slot(
    make_world, caplog, method
):
    world = make_world(max_size=1, max_per_peer=1)
    lease = world.checkout('a')
    lease.retire(Reason.UNFINISHED)
    lease.socket.raises[method] = OSError('no')
    lease.release()
    assert '<FakeSocket to a> could not be closed' in caplog.text
    assert fakes.closed(world) == [Reason.UNFINISHED]
    world.check_books()
    world.checkout('a')
