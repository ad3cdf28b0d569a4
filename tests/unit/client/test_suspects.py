# SPDX-License-Identifier: Apache-2.0
"""Who is avoided, for how long."""

import collections
import itertools
import threading

import pytest

from tests.unit.client import fakes
from zmq_driver import address
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import request as requests
from zmq_driver.client import suspects

PATIENCE = 2.0


def route(number=0):
    return address.Route(f'tcp://h:{number}', bytes(16), 's')


@pytest.fixture
def one(clock):
    return suspects.Suspects(PATIENCE, clock)


@pytest.fixture
def full_pauses(monkeypatch):
    """Take no part off the pauses."""
    monkeypatch.setattr(suspects.random, 'uniform', lambda low, high: high)


def deliver(world, retry=None, server=None, timeout=10.0):
    request = requests.Request(
        fakes.WHERE, server, envelope.WANT_ACK, fakes.BODY, bytes(16)
    )
    return world.delivery.deliver(request, retry, world.deadline(timeout))


def took(world, count):
    """Return how long each of some deliveries took."""
    times = []
    for _ in range(count):
        start = world.clock()
        deliver(world)
        times.append(world.clock() - start)
    return times


@pytest.mark.spec('DL-43')
def test_pause_doubles_up_to_a_limit(one, clock, full_pauses):
    pauses = []
    for _ in range(10):
        one.failed(route())
        start = clock()
        while one.avoids(route()):
            clock.tick(0.05)
        pauses.append(clock() - start)
        assert one.take(route())
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert pauses == pytest.approx(expected, abs=0.06)


@pytest.mark.spec('DL-43')
def test_pauses_are_not_all_alike(clock):
    ends = set()
    for _ in range(200):
        one = suspects.Suspects(PATIENCE, clock)
        one.failed(route())
        ends.add(one.routes[route()].until - clock())
    assert len(ends) > 100
    assert min(ends) >= suspects.FIRST_PAUSE / 2
    assert max(ends) <= suspects.FIRST_PAUSE


@pytest.mark.spec('DL-43')
def test_failures_at_the_same_time_count_once(one, clock, full_pauses):
    for _ in range(8):
        one.failed(route())
    clock.tick(suspects.FIRST_PAUSE)
    assert not one.avoids(route())
    # Nobody has taken it meanwhile, and it fails again.
    one.failed(route())
    clock.tick(suspects.FIRST_PAUSE)
    assert one.avoids(route())
    clock.tick(suspects.FIRST_PAUSE)
    assert not one.avoids(route())


@pytest.mark.spec('DL-45')
def test_one_at_a_time_tries_again(one, clock):
    one.failed(route())
    assert not one.take(route())
    clock.tick(suspects.FIRST_PAUSE)
    assert one.take(route())
    assert not one.take(route())
    # It never told how that ended.
    clock.tick(PATIENCE)
    assert one.take(route())


@pytest.mark.spec('DL-46')
def test_success_forgets(one, clock, full_pauses):
    for _ in range(5):
        one.failed(route())
        clock.tick(suspects.LONGEST_PAUSE)
    one.connected(route())
    one.connected(route())
    assert not one.routes
    one.failed(route())
    clock.tick(suspects.FIRST_PAUSE)
    assert not one.avoids(route())


@pytest.mark.spec('DL-46')
def test_new_incarnation_starts_afresh(one):
    one.failed(route())
    other = route()._replace(incarnation=b'\1' * 16)
    assert one.avoids(route())
    assert not one.avoids(other)
    assert one.take(other)


@pytest.mark.spec('DL-46')
def test_memory_is_bounded(one):
    for number in range(suspects.MAX_ROUTES + 10):
        one.failed(route(number))
    assert len(one.routes) == suspects.MAX_ROUTES
    assert not one.avoids(route(9))
    assert one.avoids(route(10))


def test_many_threads_at_once(one):
    def use():
        for number in range(500):
            one.failed(route(number % 7))
            one.take(route(number % 5))
            one.forget(route(number % 3))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(one.routes) <= {route(number) for number in range(7)}


@pytest.mark.spec('DL-43')
def test_dead_peer_is_paid_for_seldom(world, full_pauses):
    dead, alive = world.add('dead'), world.add('alive')
    dead.die()
    times = took(world, 40)
    # It was chosen for the first time once; while it is avoided, no time
    # passes in this world, so that it is not tried again.
    assert dead.attempts == 1
    assert sorted(times)[-1] == pytest.approx(fakes.CONNECT_TIMEOUT)
    assert sum(times) == pytest.approx(fakes.CONNECT_TIMEOUT)
    assert len(alive.got) == 40


@pytest.mark.spec('DL-43')
def test_dead_peer_is_tried_again_after_longer_and_longer_pauses(
    world, full_pauses
):
    dead = world.add('dead')
    world.add('alive')
    dead.die()
    tried = []
    for _ in range(4000):
        before = dead.attempts
        deliver(world)
        if dead.attempts > before:
            tried.append(world.clock())
        world.tick(0.01)
    gaps = [b - a for a, b in itertools.pairwise(tried)]
    pauses = [gap - fakes.CONNECT_TIMEOUT for gap in gaps]
    assert pauses[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6], abs=0.05)


@pytest.mark.spec('DL-46')
def test_peer_that_came_back_takes_its_turns(world):
    peers = [world.add(n) for n in 'ab']
    peers[0].refuses = True
    for _ in range(4):
        deliver(world)
    peers[0].refuses = False
    world.tick(suspects.LONGEST_PAUSE)
    for peer in peers:
        peer.got.clear()
    for _ in range(20):
        deliver(world)
    assert [len(peer.got) for peer in peers] == [10, 10]
    assert not world.suspects.routes


@pytest.mark.spec('DL-44')
@pytest.mark.parametrize('server', [None, 'a'])
def test_only_route_is_tried_all_the_same(world, server):
    peer = world.add('a')
    peer.refuses = True
    world.after(1.0, lambda: setattr(peer, 'refuses', False))
    start = world.clock()
    deliver(world, server=server)
    # As soon as the pauses between attempts allow, not those of suspects.
    assert world.clock() - start < 1.6
    assert len(peer.got) == 1


@pytest.mark.spec('DL-44')
def test_all_are_tried_when_all_have_failed(world):
    peers = [world.add(n) for n in 'abc']
    for peer in peers:
        peer.refuses = True
        world.suspects.failed(peer.route)
    with pytest.raises(requests.Undelivered):
        deliver(world, retry=2)
    assert sum(peer.attempts for peer in peers) == 3
    peers[1].refuses = False
    deliver(world)
    assert len(peers[1].got) == 1


@pytest.mark.spec('DL-44')
def test_named_server_is_not_replaced(world):
    peers = [world.add(n) for n in 'ab']
    world.suspects.failed(peers[0].route)
    deliver(world, server='a')
    assert [len(peer.got) for peer in peers] == [1, 0]


@pytest.mark.spec('DL-47')
@pytest.mark.parametrize(('count', 'bad'), [(3, 1), (10, 4), (20, 15)])
def test_others_share_the_load_evenly(world, count, bad):
    peers = [world.add(f's{n:02}') for n in range(count)]
    for peer in peers[:bad]:
        world.suspects.failed(peer.route)
    others = count - bad
    for _ in range(others * 30):
        deliver(world)
    taken = collections.Counter(
        {peer.route.server: len(peer.got) for peer in peers[bad:]}
    )
    assert sum(taken.values()) == others * 30
    assert max(taken.values()) <= 33
    assert min(taken.values()) >= 27


@pytest.mark.spec('DL-43')
def test_suspects_come_last_in_turn(world):
    peers = [world.add(n) for n in 'abcd']
    world.suspects.failed(peers[1].route)
    routes = world.lookup(fakes.WHERE, None).routes
    for _ in range(8):
        order = list(world.routing.in_turn(fakes.WHERE, None, routes))
        assert order[-1] == peers[1].route
        assert sorted(order) == sorted(routes)


@pytest.mark.spec('DL-43')
@pytest.mark.spec('LI-10')
def test_fanout_remembers_who_refused(world):
    peers = [world.add(n) for n in 'ab']
    peers[0].refuses = True
    start = world.clock()
    world.rpc.fanout(
        fakes.WHERE, fakes.BODY, deadline=world.deadline(), retry=0
    )
    # One look at each connection is enough, and no waiting.
    assert world.clock() == start
    assert peers[0].attempts == 1
    assert len(peers[1].got) == 1
    assert set(world.suspects.routes) == {peers[0].route}
    assert world.count('fanout_copies_failed') == 1


@pytest.mark.spec('DL-43')
def test_fanout_remembers_who_was_silent(world):
    peers = [world.add(n) for n in 'ab']
    peers[0].connects = False
    world.rpc.fanout(
        fakes.WHERE, fakes.BODY, deadline=world.deadline(), retry=0
    )
    assert set(world.suspects.routes) == {peers[0].route}


def test_no_time_to_send_is_no_failure_of_the_peer(world):
    peer = world.add('a')
    request = requests.Request(
        fakes.WHERE, None, envelope.WANT_ACK, fakes.BODY, bytes(16)
    )
    deadline = world.deadline(0.0)
    with (
        world.sender.checkout(peer.route, deadline) as lease,
        pytest.raises(errors.PeerNotReady, match='no time was left'),
    ):
        world.sender.send(lease, peer.route, request, deadline, deadline)
    assert not world.suspects.routes


@pytest.mark.spec('DL-59')
@pytest.mark.parametrize(
    'reason',
    [envelope.NackReason.STOPPED, envelope.NackReason.UNKNOWN_TARGET],
)
def test_listener_that_stopped_is_asked_once(world, reason):
    stopped = world.add('a', fakes.nack(reason))
    well = world.add('b')
    for _ in range(10):
        deliver(world)
        world.tick(5.0)
    assert len(stopped.got) == 1
    assert len(well.got) == 10
    assert world.suspects.has_stopped(stopped.route)
    # It may have been wrong about itself.
    world.tick(suspects.STOPPED_PAUSE)
    stopped.answer = fakes.ack
    for _ in range(4):
        deliver(world)
    assert len(stopped.got) > 2
    assert not world.suspects.routes
    world.suspects.gone(stopped.route)
    world.suspects.forget(stopped.route)
    assert not world.suspects.routes


@pytest.mark.spec('DL-59')
def test_listener_that_stopped_is_asked_when_there_is_no_other(world):
    only = world.add('a', fakes.nack(envelope.NackReason.STOPPED))
    with pytest.raises(requests.Undelivered):
        deliver(world, timeout=5.0)
    assert len(only.got) > 2


@pytest.mark.spec('DL-59')
def test_unreachable_listener_that_stopped_stays_so(one):
    one.gone(route())
    one.failed(route())
    one.connected(route())
    assert one.avoids(route())
    assert one.has_stopped(route())


@pytest.mark.spec('DL-59')
def test_busy_listener_and_one_without_incarnation_have_not_stopped(world):
    busy = world.add('a', fakes.nack(envelope.NackReason.BUSY))
    ring = world.add('b', fakes.nack(envelope.NackReason.UNKNOWN_TARGET))
    ring.route = ring.route._replace(incarnation=envelope.ANY_INCARNATION)
    world.registered[1] = ring.route
    with pytest.raises(requests.Undelivered):
        deliver(world, timeout=1.0)
    assert busy.got
    assert ring.got
    assert not world.suspects.routes


@pytest.mark.spec('DL-59')
def test_fanout_leaves_out_who_stopped(world):
    world.add('a', fakes.nack(envelope.NackReason.STOPPED))
    well = world.add('b')
    start = world.clock()
    for _ in range(2):
        world.rpc.fanout(
            fakes.WHERE, fakes.BODY, deadline=world.deadline(), retry=None
        )
    assert world.clock() - start < 1.0
    assert len(well.got) == 2
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-59')
def test_stopped_listener_comes_after_one_that_is_only_avoided(world):
    stopped, paused = world.add('a'), world.add('b')
    for _ in range(6):
        world.suspects.gone(stopped.route)
        world.suspects.failed(paused.route)
        deliver(world)
        routes = [stopped.route, paused.route]
        world.suspects.failed(paused.route)
        assert list(world.routing.in_turn(fakes.WHERE, None, routes)) == [
            paused.route,
            stopped.route,
        ]
    assert len(paused.got) == 6
    assert not stopped.got


@pytest.mark.spec('DL-46')
def test_suspects_that_left_unseen_are_not_kept(one, clock):
    one.gone(route(1))
    one.failed(route(2))
    clock.tick(2 * suspects.STOPPED_PAUSE + 1.0)
    one.failed(route(3))
    assert set(one.routes) == {route(3)}
