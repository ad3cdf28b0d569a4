# SPDX-License-Identifier: Apache-2.0
"""Who gets a message."""

import collections
import threading

import pytest

from tests.unit.client import fakes
from zmq_driver import address
from zmq_driver.client import routing
from zmq_driver.client import suspects
from zmq_driver.matchmaker import base


def first_of(world, server, routes):
    return next(iter(world.routing.in_turn(fakes.WHERE, server, routes)))


def routes_of(world, count):
    for n in range(count):
        world.add(f's{n}')
    return world.lookup(fakes.WHERE, None).routes


@pytest.mark.spec('DL-07')
def test_each_is_first_equally_often(world):
    routes = routes_of(world, 3)
    firsts = [first_of(world, None, routes) for _ in range(300)]
    assert set(collections.Counter(firsts).values()) == {100}


@pytest.mark.spec('DL-06')
def test_each_is_tried_once(world):
    routes = routes_of(world, 3)
    for _ in range(5):
        order = list(world.routing.in_turn(fakes.WHERE, None, routes))
        assert sorted(order) == sorted(routes)


@pytest.mark.spec('DL-07')
def test_messages_to_one_server_do_not_disturb_the_turns(world):
    routes = routes_of(world, 2)
    firsts = []
    for _ in range(10):
        firsts.append(first_of(world, None, routes))
        first_of(world, 's0', routes)
        first_of(world, None, routes[:1])
    assert set(collections.Counter(firsts).values()) == {5}


@pytest.mark.spec('DL-07')
def test_clients_do_not_all_begin_with_the_same(clock):
    firsts = set()
    for _ in range(64):
        world = fakes.World(clock)
        firsts.add(first_of(world, None, routes_of(world, 2)).server)
    assert firsts == {'s0', 's1'}


@pytest.mark.spec('DL-07')
def test_threads_share_the_turns(world):
    routes = routes_of(world, 4)
    firsts = []

    def take():
        firsts.extend(first_of(world, None, routes) for _ in range(500))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(collections.Counter(firsts).values()) == {1000}


@pytest.mark.spec('DL-12')
def test_wait_ends_at_the_deadline(world):
    start = world.clock()
    assert world.routing.wait(fakes.WHERE, None, world.attempts()) == ()
    assert world.clock() - start == pytest.approx(10.0)
    assert max(world.slept) <= routing.PAUSES[1]


@pytest.mark.parametrize('server', [None, 'late'])
@pytest.mark.spec('DL-12')
def test_wait_finds_who_appears(world, server):
    world.add('other') if server else None
    world.after(3.0, lambda: world.add('late'))
    start = world.clock()
    found = world.routing.wait(fakes.WHERE, server, world.attempts())
    assert [route.server for route in found] == ['late']
    assert 3.0 <= world.clock() - start < 3.1


@pytest.mark.spec('DL-14')
def test_limited_retries_wait_an_interval_each(world):
    start = world.clock()
    assert not world.routing.wait(fakes.WHERE, None, world.attempts(2))
    assert world.clock() - start == pytest.approx(2 * fakes.RETRY_INTERVAL)


@pytest.mark.spec('DL-14')
def test_no_retry_looks_once(world):
    assert not world.routing.wait(fakes.WHERE, None, world.attempts(0))
    assert (world.lookups, world.slept) == (1, [])


@pytest.mark.spec('DL-03')
@pytest.mark.spec('DL-14')
def test_limited_retries_end_with_the_deadline(world):
    start = world.clock()
    attempts = world.attempts(1000, timeout=2.5)
    assert not world.routing.wait(fakes.WHERE, None, attempts)
    assert world.clock() - start == pytest.approx(2.5)


@pytest.mark.parametrize(
    ('retry', 'seconds'), [(None, 10.0), (2, 2.0), (0, 0.0)]
)
def test_unknown_is_not_nobody(world, retry, seconds):
    world.down = True
    start = world.clock()
    with pytest.raises(base.MatchmakerUnavailable):
        world.routing.wait(fakes.WHERE, None, world.attempts(retry))
    assert world.clock() - start == pytest.approx(seconds)


@pytest.mark.parametrize('retry', [None, 3])
def test_wait_outlives_a_matchmaker_that_was_down(world, retry):
    world.down = True
    peer = world.add('a')
    world.after(1.5, lambda: setattr(world, 'down', False))
    found = world.routing.wait(fakes.WHERE, None, world.attempts(retry))
    assert found == (peer.route,)


@pytest.mark.spec('DL-07')
def test_first_takes_turns(world):
    routes_of(world, 3)
    deadline = world.deadline()
    firsts = [
        world.routing.first(fakes.WHERE, None, deadline) for _ in range(30)
    ]
    assert set(collections.Counter(firsts).values()) == {10}


@pytest.mark.spec('DL-08')
def test_first_of_a_named_server(world):
    routes_of(world, 3)
    deadline = world.deadline()
    found = world.routing.first(fakes.WHERE, 's1', deadline)
    assert found.server == 's1'
    assert world.routing.first(fakes.WHERE, 's9', deadline) is None


def test_first_when_nothing_is_known(world):
    deadline = world.deadline()
    assert world.routing.first(fakes.WHERE, None, deadline) is None
    world.down = True
    assert world.routing.first(fakes.WHERE, None, deadline) is None
    assert not world.slept


def route(server):
    return address.Route(f'ipc:///{server}', b'i' * 16, server)


class Outdated:
    """A cache whose answer lacks the server that has just come."""

    def __init__(self, *known):
        self.known = base.Routes(known)
        self.all = base.Routes([*known, route('new')])
        self.calls = []

    def lookup(self, where, deadline):
        self.calls.append('lookup')
        return self.known

    def invalidate(self, where):
        self.calls.append('invalidate')
        self.known = self.all


@pytest.mark.spec('MM-89')
@pytest.mark.parametrize('known', [[], ['a'], ['a', 'b']])
def test_a_server_that_is_not_known_is_asked_for_once(world, known):
    lookups = Outdated(*(route(name) for name in known))
    one = routing.Routing(lookups, 1.0, world.sleep, suspects.Suspects(1.0))
    found = one.find(fakes.WHERE, 'new', world.deadline())
    assert [route.server for route in found] == (['new'] if known else [])
    lookups.calls.clear()
    assert not one.find(fakes.WHERE, 'never', world.deadline())
    assert lookups.calls == (
        ['lookup', 'invalidate', 'lookup'] if known else ['lookup']
    )


@pytest.mark.spec('MM-89')
def test_waiting_for_a_server_does_not_ask_all_the_time(world):
    lookups = Outdated(route('a'))
    one = routing.Routing(lookups, 1.0, world.sleep, suspects.Suspects(1.0))
    assert not one.wait(fakes.WHERE, 'never', world.attempts())
    assert lookups.calls.count('invalidate') == 1
    assert lookups.calls.count('lookup') > 10
