# SPDX-License-Identifier: Apache-2.0
"""A lease that is not given back is told of, with its borrower."""

import logging

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import leaks

pytestmark = pytest.mark.spec('PL-40')


@pytest.fixture
def world(make_world):
    return make_world(max_size=2, max_per_peer=2, leak_after=30)


def warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING
    ]


def forgetful_borrower(world):
    return world.pool.checkout('a', fakes.NOW)


@pytest.mark.parametrize('fresh', [True, False])
def test_a_long_lease_is_told_of_once(world, caplog, fresh):
    if not fresh:
        world.make_idle('a')
    lease = forgetful_borrower(world)
    assert lease.fresh == fresh
    world.clock.tick(29.5)
    world.pool.reap()
    assert not caplog.records
    world.clock.tick(0.5)
    world.pool.reap()
    world.pool.reap()
    [text] = warnings(caplog)
    assert text.startswith(
        "pool rpc: the socket to 'a' has been held by MainThread "
        'for 30.000 s; it was checked out by:\n'
    )
    assert text.rstrip().endswith("return world.pool.checkout('a', fakes.NOW)")
    assert 'in forgetful_borrower' in text
    assert 'in test_a_long_lease_is_told_of_once' in text
    assert world.story()[-1] == 'leaked a'
    lease.release()


def test_each_lease_has_its_own_time(world, caplog):
    for _ in range(3):
        with world.checkout():
            world.clock.tick(20)
            world.pool.reap()
    assert not caplog.records
    with world.checkout():
        world.clock.tick(30)
        world.pool.reap()
    world.clock.tick(30)
    world.pool.reap()
    assert len(warnings(caplog)) == 1


def test_the_borrower_is_named(world, caplog):
    with fakes.actors(1) as [actor]:
        lease = fakes.run(actor, world.checkout)
        world.clock.tick(30)
        world.pool.reap()
        fakes.run(actor, lease.release)
    assert 'held by actor-0_0 for 30.000 s' in warnings(caplog)[0]


def test_a_lease_without_a_pool_to_give_it_back_to(world):
    """The end of the pool is told of elsewhere, and no longer here."""
    lease = world.checkout()
    world.clock.tick(30)
    assert [str(left) for left in world.pool.close(fakes.NOW)] == [
        "'a' held by MainThread for 30.000 s"
    ]
    lease.release()
    assert world.pool.reap() == 0


def test_an_idle_socket_is_no_leak(world, caplog):
    world.make_idle('a')
    world.clock.tick(1000)
    world.pool.reap()
    assert not caplog.records


def test_no_stack_is_taken_without_need(make_world, monkeypatch, caplog):
    monkeypatch.delattr(leaks, 'caller_stack')
    world = make_world(idle_ttl=5)
    world.make_idle('a')
    with world.checkout():
        world.clock.tick(1e6)
        world.pool.reap()
    assert not caplog.records


def test_the_option_alone_starts_the_thread(world):
    with world.checkout():
        assert world.pool._thread._thread.is_alive()
    assert pool.EventKind.LEAKED not in [e.kind for e in world.events]
