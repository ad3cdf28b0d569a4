# SPDX-License-Identifier: Apache-2.0
"""The cache that asks before its answers are too old."""

import os
import threading
import time

import pytest

from tests.fixtures import clock as fake
from tests.fixtures import waiting
from tests.unit.matchmaker import samples
from tests.unit.matchmaker import test_cache
from zmq_driver import address
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import refreshed
from zmq_driver.matchmaker import refresher as refresher_

TTL = 30.0
NEGATIVE_TTL = 1.0
STALE_TTL = 600.0
SETTLE = 20.0


class Requests:
    """What would be asked in the background, and when; a test does it."""

    def __init__(self, clock):
        self.due = {}
        self._clock = clock

    def request(self, where, at):
        self.due[where] = min(at, self.due.get(where, at))

    def stop(self, deadline):
        self.due = None

    def forget(self):
        self.due = {}


class Backend(test_cache.Backend):
    waits_for_server = True
    settle_time = SETTLE

    def watch(self, on_changed):
        self.changed = on_changed


class SlowBackend(test_cache.SlowBackend):
    waits_for_server = True

    def watch(self, on_changed):
        self.changed = on_changed


@pytest.fixture
def clock():
    return fake.FakeClock()


@pytest.fixture
def make(clock):
    def make(backend=None, **kwargs):
        backend = backend or Backend()
        times = {
            'ttl': TTL,
            'negative_ttl': NEGATIVE_TTL,
            'stale_ttl': STALE_TTL,
            'clock': clock,
        }
        cached = refreshed.RefreshedMatchmaker(
            backend, member='m', **(times | kwargs)
        )
        cached._refresher = Requests(clock)
        return backend, cached

    return make


def look(cached, where=None):
    return cached.lookup(where or samples.where(), samples.deadline())


def work(cached, clock):
    """Do what is due in the background; return how much it was."""
    due = [w for w, at in cached._refresher.due.items() if at <= clock()]
    for where in due:
        del cached._refresher.due[where]
        cached._refresh(where)
    return len(due)


def down(backend):
    backend.down = base.MatchmakerUnavailable('it is down')


def routes(*servers):
    return base.Routes([samples.route(server=name) for name in servers])


def unsettled(*found, gone=()):
    return base.Routes(found, settled=False, gone=gone)


@pytest.mark.spec('MM-80')
def test_an_answer_in_use_is_asked_for_before_it_is_too_old(make, clock):
    backend, cached = make()
    look(cached)
    clock.tick(TTL * 0.69)
    look(cached)
    assert not cached._refresher.due
    clock.tick(TTL * 0.12)
    new = backend.answer = routes('new')
    old = look(cached)
    assert old is not new
    assert cached._refresher.due == {samples.where(): clock()}
    assert look(cached) is old
    assert backend.asked() == 1
    work(cached, clock)
    assert look(cached) is new
    assert backend.asked() == 2


@pytest.mark.spec('MM-80')
def test_who_uses_it_never_waits(make, clock):
    backend, cached = make()
    look(cached)
    for _ in range(100):
        clock.tick(1)
        before = backend.asked()
        look(cached)
        assert backend.asked() == before
        work(cached, clock)
    assert 3 <= backend.asked() - 1 <= 5


@pytest.mark.spec('MM-80')
def test_processes_do_not_ask_at_the_same_time(make, clock):
    def first_check():
        _, cached = make()
        look(cached)
        return cached._entries[samples.where()].check_at - clock()

    found = [first_check() for _ in range(50)]
    assert max(found) - min(found) > TTL * 0.05
    assert TTL * 0.7 <= min(found) <= max(found) <= TTL * 0.8


@pytest.mark.spec('MM-80')
def test_an_answer_that_is_not_in_use_is_not_asked_for(make, clock):
    backend, cached = make()
    look(cached)
    clock.tick(TTL)
    assert work(cached, clock) == 0
    look(cached)
    assert backend.asked() == 2
    assert not cached._refresher.due


@pytest.mark.spec('MM-80')
def test_nobody_is_not_asked_for_in_the_background(make, clock):
    backend, cached = make()
    backend.answer = base.Routes(())
    look(cached)
    clock.tick(NEGATIVE_TTL * 0.9)
    look(cached)
    assert not cached._refresher.due
    clock.tick(NEGATIVE_TTL * 0.1)
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-81')
def test_a_backend_that_is_down_costs_nobody_time(make, clock, caplog):
    backend, cached = make()
    look(cached)
    clock.tick(TTL * 0.8)
    down(backend)
    look(cached)
    work(cached, clock)
    asked_in_background = backend.asked()
    for _ in range(200):
        clock.tick(1.0)
        before = backend.asked()
        assert look(cached) is backend.answer
        assert backend.asked() == before
        asked_in_background += work(cached, clock)
    assert backend.asked() == asked_in_background
    assert 60 < asked_in_background < 200
    assert 'it is down' in caplog.text
    assert 6 <= len(caplog.records) <= 8
    backend.down = None
    new = backend.answer = routes('new')
    clock.tick(2.0)
    look(cached)
    work(cached, clock)
    assert look(cached) is new


@pytest.mark.spec('MM-81')
def test_an_answer_is_not_served_for_longer_than_it_may(make, clock):
    backend, cached = make()
    look(cached)
    down(backend)
    clock.tick(TTL * 0.8)
    look(cached)
    work(cached, clock)
    clock.tick(STALE_TTL)
    with pytest.raises(base.MatchmakerUnavailable, match='it is down'):
        look(cached)


@pytest.mark.spec('MM-81')
def test_the_first_to_notice_waits_and_the_others_do_not(make, clock):
    backend, cached = make()
    for topic in 'ab':
        look(cached, samples.where(topic))
    down(backend)
    clock.tick(TTL)
    assert look(cached, samples.where('a')) is backend.answer
    assert backend.asked() == 3
    assert look(cached, samples.where('b')) is backend.answer
    assert backend.asked() == 3


@pytest.mark.spec('MM-81')
def test_an_invalidated_answer_is_not_waited_for_either(make, clock):
    backend, cached = make()
    look(cached)
    down(backend)
    cached.invalidate(samples.where())
    look(cached)
    asked = backend.asked()
    cached.invalidate(samples.where())
    assert look(cached) is backend.answer
    assert backend.asked() == asked


@pytest.mark.spec('MM-82')
def test_a_change_is_asked_for_at_once(make, clock):
    backend, cached = make()
    look(cached)
    clock.tick(1)
    backend.changed(samples.where())
    new = backend.answer = routes('new')
    assert look(cached) is not new
    assert work(cached, clock) == 1
    assert look(cached) is new


@pytest.mark.spec('MM-82')
def test_a_change_to_nobody_is_asked_for_at_once(make, clock):
    backend, cached = make()
    backend.answer = base.Routes(())
    look(cached)
    clock.tick(0.5)
    backend.changed(samples.where())
    backend.answer = routes('new')
    assert work(cached, clock) == 1
    assert look(cached) is backend.answer


@pytest.mark.spec('MM-82')
def test_a_change_of_what_is_not_in_use_is_not_asked_for(make, clock):
    backend, cached = make()
    backend.changed(samples.where())
    look(cached)
    clock.tick(TTL)
    backend.changed(samples.where())
    assert not cached._refresher.due


@pytest.mark.spec('MM-82')
def test_a_change_while_the_answer_is_on_its_way(make, clock):
    """What is on its way may be older than the change."""
    backend, cached = make(SlowBackend())
    callers = test_cache.Callers(cached)
    callers.start()
    waiting.until(backend.asked, 'a lookup')
    backend.changed(samples.where())
    clock.tick(1)
    assert work(cached, clock) == 1  # It is still on its way.
    backend.go.release()
    callers.join()
    new = backend.answer = routes('new')
    assert look(cached) is not new
    clock.tick(1)
    backend.go.release()
    assert work(cached, clock) == 1
    assert look(cached) is new


@pytest.mark.spec('MM-82')
def test_without_a_thread_a_change_invalidates(clock):
    backend = Backend()
    cached = test_cache.cache.CachedMatchmaker(backend, clock=clock)
    look(cached)
    backend.changed(samples.where())
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-83')
@pytest.mark.parametrize(('count', 'interval'), [(1, 0.1), (10_000, 2.1)])
def test_many_changes_are_few_questions(make, clock, count, interval):
    backend, cached = make()
    answer = base.Routes(
        [address.Route('e', os.urandom(16), f's{i}') for i in range(count)]
    )
    backend.answer = answer
    look(cached)
    asked = backend.asked()
    for _ in range(1000):
        clock.tick(0.01)
        backend.changed(samples.where())
        work(cached, clock)
    expected = 10 / interval
    assert expected * 0.7 < backend.asked() - asked <= expected + 1
    # The last one is not missed.
    asked = backend.asked()
    clock.tick(interval + 0.1)
    assert work(cached, clock) == 1
    assert backend.asked() == asked + 1
    assert not cached._refresher.due


@pytest.mark.spec('MM-84')
def test_what_the_backend_may_have_lost_is_kept(make, clock):
    left = []
    backend, cached = make(on_left=left.extend)
    known = routes('a', 'b', 'c')
    backend.answer = known
    look(cached)
    clock.tick(TTL)
    back = known.of_server('b')[0]
    backend.answer = unsettled(back)
    assert look(cached).routes == known.routes
    backend.answer = unsettled()
    clock.tick(NEGATIVE_TTL)
    assert look(cached).routes == known.routes
    assert not left
    backend.answer = base.Routes([back])
    clock.tick(NEGATIVE_TTL)
    assert look(cached).routes == (back,)
    assert {route.server for route in left} == {'a', 'c'}


@pytest.mark.spec('MM-84')
def test_what_does_not_come_back_is_not_kept_for_ever(make, clock):
    backend, cached = make()
    known = look(cached)
    backend.answer = unsettled()
    clock.tick(TTL)
    for _ in range(round(SETTLE)):
        assert look(cached).routes == known.routes
        clock.tick(NEGATIVE_TTL)
    assert not look(cached)
    assert not look(cached)


@pytest.mark.spec('MM-84')
def test_a_second_loss_is_like_the_first(make, clock):
    backend, cached = make()
    known = look(cached)
    for _ in range(2):
        backend.answer = unsettled()
        clock.tick(TTL)
        assert look(cached).routes == known.routes
        backend.answer = known
        clock.tick(NEGATIVE_TTL)
        assert look(cached) is known


@pytest.mark.spec('MM-84')
def test_a_second_loss_before_the_first_is_settled(make, clock):
    backend, cached = make()
    known = look(cached)
    for _ in range(5):
        down(backend)
        clock.tick(SETTLE - NEGATIVE_TTL)
        look(cached)
        work(cached, clock)
        backend.down = None
        backend.answer = unsettled()
        clock.tick(NEGATIVE_TTL)
        look(cached)
        work(cached, clock)
        assert look(cached).routes == known.routes


@pytest.mark.spec('MM-84')
def test_an_unsettled_answer_is_believed_shortly(make, clock):
    backend, cached = make()
    one = samples.route()
    backend.answer = unsettled(one)
    assert look(cached).routes == (one,)
    clock.tick(NEGATIVE_TTL)
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-85')
def test_what_has_left_is_not_kept(make, clock):
    backend, cached = make()
    backend.answer = routes('a', 'b')
    known = look(cached)
    gone, kept = known.routes
    backend.answer = unsettled(gone=[gone.incarnation])
    clock.tick(TTL)
    assert look(cached).routes == (kept,)


@pytest.mark.spec('MM-85')
def test_an_rpc_server_that_is_new_is_not_looked_for_where_it_was(make, clock):
    backend, cached = make()
    for scope, count in (
        (address.Scope.RPC, 1),
        (address.Scope.NOTIFICATION, 2),
    ):
        where = samples.where(scope=scope)
        backend.answer = routes('a')
        look(cached, where)
        new = samples.route(server='a')
        backend.answer = unsettled(new)
        clock.tick(TTL)
        found = look(cached, where)
        assert len(found) == count
        assert new in found.routes


def test_close_ends_the_thread_first(make):
    backend, cached = make()
    order = []
    cached._refresher.stop = lambda deadline: order.append('thread')
    backend.close = lambda deadline: order.append('backend')
    cached.close(samples.deadline())
    assert order == ['thread', 'backend']


@pytest.mark.spec('MM-53')
def test_a_child_begins_anew(make, clock):
    backend, cached = make()
    look(cached)
    down(backend)
    clock.tick(TTL)
    look(cached)
    backend.down = None
    cached.forget()
    assert cached._pauses is None
    down(backend)
    with pytest.raises(base.MatchmakerUnavailable):
        look(cached)


def test_a_hit_is_as_cheap_as_without(make):
    """It is 0.6 µs; the limit leaves room for coverage and a busy host."""
    _, cached = make(clock=time.monotonic)
    where, deadline = samples.where(), samples.deadline()
    cached.lookup(where, deadline)

    def measure():
        begin = time.perf_counter()
        for _ in range(1000):
            cached.lookup(where, deadline)
        return (time.perf_counter() - begin) / 1000

    assert min(measure() for _ in range(21)) < 20e-6


# The thread


@pytest.fixture
def refresher():
    """Give a factory of refreshers, ended after the test."""
    made = []

    def make(refresh):
        made.append(refresher_.Refresher('m', refresh))
        return made[-1]

    yield make
    for one in made:
        assert one.stop(samples.deadline())


@pytest.mark.spec('MM-80')
def test_the_soonest_goes_first_and_each_once(refresher):
    done = []
    one = refresher(done.append)
    now = time.monotonic()
    with one._changed:  # The thread must not be faster.
        one.request('later', now + 0.1)
        one.request('last', now + 60)
        one.request('last', now + 0.2)
        one.request('first', now)
        one.request('first', now + 60)
    waiting.until(lambda: len(done) == 3, 'three of them')
    assert done == ['first', 'later', 'last']


@pytest.mark.spec('MM-86')
def test_the_thread_survives_what_it_calls(refresher, caplog):
    done = threading.Event()

    def refresh(where):
        if where == 'good':
            done.set()
        raise ZeroDivisionError('a defect')

    one = refresher(refresh)
    for where in ('bad', 'good'):
        one.request(where, 0.0)
    assert done.wait(30)
    assert one.is_alive()
    waiting.until(lambda: len(caplog.records) == 2, 'two lines')


@pytest.mark.spec('MM-86')
def test_no_thread_before_the_first_request_or_after_the_end(refresher):
    done = []
    one = refresher(done.append)
    assert not one.is_alive()
    assert one.stop(samples.deadline())
    one.request('late', 0.0)
    assert not one.is_alive()
    assert not done
