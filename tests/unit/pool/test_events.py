# SPDX-License-Identifier: Apache-2.0
"""What the listener is told, and what it may do."""

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool

Reason = pool.EvictReason
Kind = pool.EventKind


def test_an_event_says_what_happened_to_whom(world):
    lease = world.checkout('a')
    lease.retire(Reason.UNFINISHED)
    lease.release()
    assert world.events[-1] == pool.PoolEvent(
        'rpc', Kind.CLOSED, 'a', Reason.UNFINISHED
    )


@pytest.mark.spec('PL-14')
@pytest.mark.parametrize('reason', list(Reason))
def test_a_socket_is_closed_once_for_one_reason(make_world, reason):
    world = make_world(max_size=1, max_per_peer=1, max_age=100, idle_ttl=50)
    with world.checkout('a') as lease:
        if reason is Reason.UNFINISHED:
            lease.retire(reason)
    if reason is Reason.STALE:
        world.pool.clear('a')
    elif reason is Reason.UNHEALTHY:
        world.sockets[0].is_healthy = False
        world.checkout('a').release()
    elif reason is Reason.SURPLUS:
        world.checkout('b').release()
    elif reason is Reason.IDLE:
        world.clock.tick(50)
        world.pool.reap()
    elif reason is Reason.AGE:
        world.clock.tick(100)
        world.checkout('a').release()
    elif reason is Reason.POOL_CLOSED:
        world.pool.close(fakes.NOW)

    assert world.sockets[0].closed == 1
    assert fakes.closed(world) == [reason]
    totals = world.pool.stats().closed_total
    assert totals == {r: int(r is reason) for r in Reason}


@pytest.mark.spec('PL-29')
def test_a_listener_that_fails_is_logged_and_called_again(world, caplog):
    def fail(event):
        raise ValueError(event.kind)

    world.on_event = fail
    world.checkout('a').release()
    world.pool.clear('a')
    world.pool.close(fakes.soon())
    assert world.story() == [
        'opened a',
        'checked out a',
        'checked in a',
        'cleared a',
        'closed a: stale',
        'pool closing',
        'pool closed',
    ]
    assert caplog.text.count('pool rpc: the listener failed') == 7


def test_the_listener_may_use_the_pool(world):
    def use(event):
        if event.kind is Kind.CHECKED_IN and event.peer == 'a':
            world.checkout('b').release()
            world.check_books()

    world.on_event = use
    world.checkout('a').release()
    assert world.pool.stats().idle == 2


def test_a_pool_needs_no_listener(world):
    quiet = pool.SocketPool('quiet', world._open, pool.PoolOptions())
    for _ in range(2):
        quiet.checkout('a', fakes.NOW).release()
    quiet.clear('a')
    quiet.close(fakes.soon())
    assert world.events == []
    world.sockets.clear()
