# SPDX-License-Identifier: Apache-2.0
import os
import threading
import time

import pytest

from tests.fixtures import clock as fake
from tests.fixtures import waiting
from tests.unit.matchmaker import samples
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import cache

TTL = 30.0
NEGATIVE_TTL = 0.5
STALE_TTL = 600.0
CHECK_INTERVAL = 0.01


class Backend(base.Matchmaker):
    """Answers what a test put into ``answer``, and counts."""

    def __init__(self):
        self.answer = base.Routes([samples.route()])
        self.calls = []
        self.down = None

    def _call(self, *call):
        self.calls.append(call)
        if self.down is not None:
            raise self.down

    def asked(self):
        return sum(call[0] == 'lookup' for call in self.calls)

    def lookup(self, where, deadline):
        self._call('lookup', where)
        return self.answer

    def register(self, registration, deadline):
        self._call('register', registration)

    def unregister(self, registration, deadline):
        self._call('unregister', registration)

    def records(self, deadline):
        self._call('records')
        return ['record']

    def close(self, deadline):
        self._call('close')

    def forget(self):
        self._call('forget')


class RevisedBackend(Backend):
    def __init__(self):
        super().__init__()
        self.mark = 1

    def revision(self, where):
        self.calls.append(('revision', where))
        return self.mark


class SlowBackend(Backend):
    """Holds every lookup until the test lets it go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Semaphore(0)

    def lookup(self, where, deadline):
        answer = self.answer
        self._call('lookup', where)
        assert self.go.acquire(timeout=30)
        if self.down is not None:
            raise self.down
        return answer


@pytest.fixture
def clock():
    return fake.FakeClock()


@pytest.fixture
def make(clock):
    def make(backend=None, **kwargs):
        times = {
            'ttl': TTL,
            'negative_ttl': NEGATIVE_TTL,
            'stale_ttl': STALE_TTL,
            'check_interval': CHECK_INTERVAL,
            'clock': clock,
        }
        backend = backend or Backend()
        return backend, cache.CachedMatchmaker(backend, **(times | kwargs))

    return make


class Callers:
    """Threads that look up, and what they got."""

    def __init__(self, cached):
        self._cached = cached
        self._threads = []
        self.got = []

    def start(self, number=1, timeout=30.0):
        for _ in range(number):
            thread = threading.Thread(target=self._look, args=(timeout,))
            self._threads.append(thread)
            thread.start()

    def _look(self, timeout):
        try:
            self.got.append(look(self._cached, timeout=timeout))
        except base.MatchmakerUnavailable as exc:
            self.got.append(str(exc))

    def join(self):
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.got


def look(cached, where=None, timeout=30.0):
    return cached.lookup(where or samples.where(), samples.deadline(timeout))


def waiters(cached):
    """Return how many wait for lookups of others."""
    return sum(
        len(flight.done._cond._waiters) for flight in cached._flights.values()
    )


@pytest.mark.spec('MM-40')
def test_an_answer_is_served_until_its_time_is_up(make, clock):
    backend, cached = make()
    assert look(cached) is backend.answer
    clock.tick(TTL - 0.1)
    assert look(cached) is backend.answer
    assert backend.asked() == 1
    clock.tick(0.1)
    backend.answer = base.Routes([samples.route()])
    assert look(cached) is backend.answer
    assert backend.asked() == 2


@pytest.mark.spec('MM-40')
def test_addresses_are_remembered_apart(make):
    backend, cached = make()
    for topic in 'abab':
        look(cached, samples.where(topic))
    assert backend.asked() == 2


@pytest.mark.spec('MM-41')
def test_nobody_is_believed_for_a_short_time(make, clock):
    backend, cached = make()
    backend.answer = base.Routes(())
    assert not look(cached)
    clock.tick(NEGATIVE_TTL - 0.1)
    assert not look(cached)
    assert backend.asked() == 1
    clock.tick(0.1)
    backend.answer = base.Routes([samples.route()])
    assert look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-40')
def test_the_age_counts_from_the_question(make, clock):
    backend, cached = make()
    ask = backend.lookup

    def slow(where, deadline):
        clock.tick(TTL)
        return ask(where, deadline)

    backend.lookup = slow
    look(cached)
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-42')
def test_one_asks_and_the_others_wait(make):
    backend, cached = make(SlowBackend())
    callers = Callers(cached)
    callers.start(8)
    waiting.until(lambda: waiters(cached) == 7, 'seven waiters')
    assert backend.asked() == 1
    backend.go.release()
    assert callers.join() == [backend.answer] * 8
    assert backend.asked() == 1
    assert not cached._flights


@pytest.mark.spec('MM-42')
def test_different_addresses_do_not_wait_for_each_other(make):
    backend, cached = make(SlowBackend())
    callers = Callers(cached)
    callers.start()
    waiting.until(backend.asked, 'a lookup')
    backend.lookup = lambda where, deadline: 'at once'
    assert look(cached, samples.where('other')) == 'at once'
    backend.go.release()
    callers.join()


@pytest.mark.spec('MM-42')
def test_a_waiter_ends_at_its_own_deadline(make):
    backend, cached = make(SlowBackend())
    callers = Callers(cached)
    callers.start()
    waiting.until(backend.asked, 'a lookup')
    with pytest.raises(base.MatchmakerUnavailable, match='no time left'):
        look(cached, timeout=0.01)
    backend.go.release()
    assert callers.join() == [backend.answer]
    assert look(cached) is backend.answer


@pytest.mark.spec('MM-43')
def test_all_who_wait_get_the_error_at_once(make):
    backend, cached = make(SlowBackend())
    callers = Callers(cached)
    callers.start(8)
    waiting.until(lambda: waiters(cached) == 7, 'seven waiters')
    backend.down = base.MatchmakerUnavailable('it is down')
    backend.go.release()
    assert callers.join() == ['it is down'] * 8
    assert backend.asked() == 1
    backend.down = None
    backend.go.release()
    assert look(cached) is backend.answer


@pytest.mark.spec('MM-43')
def test_a_defect_of_the_backend_does_not_strand_the_others(make):
    backend, cached = make(SlowBackend())
    backend.down = None
    failed = []

    def lead():
        try:
            look(cached)
        except ZeroDivisionError as exc:
            failed.append(exc)

    leader = threading.Thread(target=lead)
    leader.start()
    waiting.until(backend.asked, 'a lookup')
    callers = Callers(cached)
    callers.start(3)
    waiting.until(lambda: waiters(cached) == 3, 'three waiters')
    backend.down = ZeroDivisionError('a defect')
    backend.go.release()
    leader.join(30)
    assert len(failed) == 1
    assert len(callers.join()) == 3
    assert all('a defect' in text for text in callers.got)
    assert not cached._flights


@pytest.mark.spec('MM-44')
def test_invalidate_asks_again(make):
    backend, cached = make()
    look(cached)
    look(cached, samples.where('other'))
    cached.invalidate(samples.where())
    cached.invalidate(samples.where('unknown'))
    backend.answer = base.Routes(())
    assert not look(cached)
    assert look(cached, samples.where('other'))
    assert backend.asked() == 3


@pytest.mark.spec('MM-44')
def test_an_older_answer_is_not_kept(make):
    backend, cached = make(SlowBackend())
    old = backend.answer
    early = Callers(cached)
    early.start(2)
    waiting.until(lambda: waiters(cached) == 1, 'a waiter')
    cached.invalidate(samples.where())
    backend.answer = base.Routes([samples.route()])
    late = Callers(cached)
    late.start(2)
    waiting.until(lambda: backend.asked() == 2, 'a second lookup')
    waiting.until(lambda: waiters(cached) == 1, 'a second waiter')
    backend.go.release()
    backend.go.release()
    assert early.join() == [old] * 2
    assert late.join() == [backend.answer] * 2
    assert look(cached) is backend.answer
    assert backend.asked() == 2


@pytest.mark.spec('MM-44')
def test_an_older_answer_that_comes_last_is_not_kept(make):
    """It is on its way while a newer one has arrived already."""
    backend, cached = make(SlowBackend())
    ask = backend.lookup
    early = Callers(cached)
    early.start()
    waiting.until(backend.asked, 'a lookup')
    cached.invalidate(samples.where())
    new = base.Routes([samples.route()])
    backend.lookup = lambda where, deadline: new
    assert look(cached) is new
    backend.lookup = ask
    backend.go.release()
    assert early.join() == [backend.answer]
    assert look(cached) is new


@pytest.mark.spec('MM-45')
@pytest.mark.parametrize('name', ['register', 'unregister'])
@pytest.mark.parametrize('down', [False, True])
def test_register_and_unregister_invalidate(make, name, down):
    backend, cached = make()
    look(cached)
    made = samples.registration()
    change = getattr(cached, name)
    if down:
        backend.down = base.MatchmakerUnavailable('it is down')
        with pytest.raises(base.MatchmakerUnavailable, match='it is down'):
            change(made, samples.deadline())
        backend.down = None
    else:
        change(made, samples.deadline())
    assert (name, made) in backend.calls
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-46')
def test_revisions_are_compared_at_most_every_interval(make, clock):
    backend, cached = make(RevisedBackend())
    look(cached)
    for _ in range(5):
        backend.calls.clear()
        clock.tick(CHECK_INTERVAL / 2)
        look(cached)
        assert backend.calls == []
        clock.tick(CHECK_INTERVAL / 2)
        for _ in range(3):
            look(cached)
        assert backend.calls == [('revision', samples.where())]


@pytest.mark.spec('MM-46')
@pytest.mark.parametrize('mark', [2, None])
def test_another_revision_asks_again(make, clock, mark):
    backend, cached = make(RevisedBackend())
    look(cached)
    backend.mark = mark
    backend.answer = base.Routes([samples.route()])
    clock.tick(CHECK_INTERVAL / 2)
    assert look(cached) is not backend.answer
    clock.tick(CHECK_INTERVAL / 2)
    assert look(cached) is backend.answer


@pytest.mark.spec('MM-46')
def test_nobody_is_compared_too(make, clock):
    backend, cached = make(RevisedBackend())
    backend.answer = base.Routes(())
    look(cached)
    clock.tick(CHECK_INTERVAL)
    look(cached)
    assert backend.asked() == 1
    backend.mark, backend.answer = 2, base.Routes([samples.route()])
    clock.tick(CHECK_INTERVAL)
    assert look(cached)


@pytest.mark.spec('MM-46')
def test_the_revision_is_read_before_the_answer(make, clock):
    """Who joins in between is not missed for ever."""
    backend, cached = make(RevisedBackend())
    ask = backend.lookup

    def join_meanwhile(where, deadline):
        answer = ask(where, deadline)
        backend.mark = 2
        return answer

    backend.lookup = join_meanwhile
    look(cached)
    clock.tick(CHECK_INTERVAL)
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-40', 'MM-46')
def test_the_same_revision_does_not_prolong_an_answer(make, clock):
    """A killed process does not change the revision."""
    backend, cached = make(RevisedBackend())
    look(cached)
    for _ in range(5):
        clock.tick(TTL / 5)
        look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-46')
def test_one_thread_compares_and_the_others_go_on(make, clock):
    backend, cached = make(RevisedBackend())
    look(cached)
    clock.tick(CHECK_INTERVAL)
    comparing, go = threading.Event(), threading.Event()

    def slow(where):
        comparing.set()
        assert go.wait(30)
        return 1

    backend.revision = slow
    callers = Callers(cached)
    callers.start()
    assert comparing.wait(30)
    assert look(cached) is backend.answer
    go.set()
    assert callers.join() == [backend.answer]
    assert backend.asked() == 1


@pytest.mark.spec('MM-42', 'MM-46')
def test_an_answer_that_arrives_just_now_is_taken(make, clock):
    """While one thread compares, another has the new answer already."""
    backend, cached = make(RevisedBackend())
    look(cached)
    clock.tick(CHECK_INTERVAL)

    def overtaken(where):
        backend.revision = lambda where: 2
        cached.invalidate(where)
        look(cached)
        return 2

    backend.revision = overtaken
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-47')
def test_an_answer_nobody_vouches_for_is_believed_shortly(make, clock):
    backend, cached = make(RevisedBackend(), check_interval=TTL)
    backend.mark = None
    look(cached)
    clock.tick(NEGATIVE_TTL - 0.1)
    look(cached)
    assert backend.asked() == 1
    clock.tick(0.1)
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-47')
def test_an_answer_nobody_vouches_for_is_asked_for_at_the_next_check(
    make, clock
):
    backend, cached = make(RevisedBackend())
    backend.mark = None
    look(cached)
    for mark in (None, 1):
        backend.mark = mark
        clock.tick(CHECK_INTERVAL)
        look(cached)
    assert backend.asked() == 3
    clock.tick(CHECK_INTERVAL)
    look(cached)
    assert backend.asked() == 3


@pytest.mark.spec('MM-48')
def test_a_stale_answer_is_better_than_none(make, clock, caplog):
    backend, cached = make()
    look(cached)
    backend.down = base.MatchmakerUnavailable('it is down')
    clock.tick(STALE_TTL - 0.1)
    assert look(cached) is backend.answer
    assert len(caplog.records) == 1
    assert 'it is down' in caplog.text
    assert caplog.records[0].exc_info is None


@pytest.mark.spec('MM-48')
def test_an_answer_that_is_too_old_is_none(make, clock, caplog):
    backend, cached = make()
    look(cached)
    backend.down = base.MatchmakerUnavailable('it is down')
    clock.tick(STALE_TTL)
    with pytest.raises(base.MatchmakerUnavailable, match='it is down'):
        look(cached)
    assert not caplog.records


@pytest.mark.spec('MM-48')
def test_an_answer_can_be_fresh_for_longer_than_it_may_be_stale(make, clock):
    backend, cached = make(stale_ttl=0)
    look(cached)
    backend.down = base.MatchmakerUnavailable('it is down')
    clock.tick(TTL - 0.1)
    assert look(cached)
    clock.tick(0.1)
    with pytest.raises(base.MatchmakerUnavailable):
        look(cached)


@pytest.mark.spec('MM-48')
def test_a_backend_that_is_down_is_not_asked_by_everybody(make, clock, caplog):
    backend, cached = make()
    look(cached)
    clock.tick(TTL)
    backend.down = base.MatchmakerUnavailable('it is down')
    for i in range(4):
        for _ in range(10):
            assert look(cached) is backend.answer
        assert backend.asked() == 2 + i
        clock.tick(NEGATIVE_TTL)
    backend.down, backend.answer = None, base.Routes([samples.route()])
    assert look(cached) is backend.answer
    assert len(caplog.records) == 1


@pytest.mark.spec('MM-48')
def test_warnings_are_rare(make, clock, caplog):
    backend, cached = make()
    for topic in 'ab':
        look(cached, samples.where(topic))
    backend.down = base.MatchmakerUnavailable('it is down')
    clock.tick(TTL)
    for expected in (1, 1, 2):
        for topic in 'ab':
            look(cached, samples.where(topic))
        assert len(caplog.records) == expected
        clock.tick(cache.WARNING_INTERVAL * 0.5)


@pytest.mark.spec('MM-48')
def test_an_invalidated_answer_is_still_better_than_none(make):
    backend, cached = make()
    look(cached)
    cached.invalidate(samples.where())
    backend.down = base.MatchmakerUnavailable('it is down')
    assert look(cached) is backend.answer
    assert backend.asked() == 2


@pytest.mark.spec('MM-48')
def test_a_changed_revision_of_a_backend_that_is_down(make, clock):
    backend, cached = make(RevisedBackend())
    look(cached)
    backend.mark = None
    backend.down = base.MatchmakerUnavailable('it is down')
    clock.tick(CHECK_INTERVAL)
    for _ in range(3):
        assert look(cached) is backend.answer
    assert backend.asked() == 2


@pytest.mark.spec('MM-48')
def test_a_waiter_without_time_takes_a_stale_answer(make, clock):
    backend, cached = make(SlowBackend())
    backend.go.release()
    look(cached)
    clock.tick(TTL)
    callers = Callers(cached)
    callers.start()
    waiting.until(lambda: backend.asked() == 2, 'a lookup')
    assert look(cached, timeout=0.01) is backend.answer
    backend.go.release()
    callers.join()


@pytest.mark.spec('MM-49')
def test_nothing_known_is_not_nobody(make):
    backend, cached = make()
    backend.down = base.MatchmakerUnavailable('it is down')
    for expected in (1, 2):
        with pytest.raises(base.MatchmakerUnavailable, match='it is down'):
            look(cached)
        assert backend.asked() == expected
    backend.down = None
    assert look(cached) is backend.answer


@pytest.mark.spec('MM-49')
def test_a_stale_nobody_is_not_served(make, clock):
    backend, cached = make()
    backend.answer = base.Routes(())
    look(cached)
    backend.down = base.MatchmakerUnavailable('it is down')
    assert not look(cached)
    clock.tick(NEGATIVE_TTL)
    with pytest.raises(base.MatchmakerUnavailable):
        look(cached)


@pytest.mark.spec('MM-50')
def test_the_backend_is_asked_without_the_lock(make, clock):
    backend, cached = make(RevisedBackend())
    held = []

    def spy(name):
        call = getattr(backend, name)

        def checked(*args):
            held.append(cached._lock.locked())
            return call(*args)

        setattr(backend, name, checked)

    for name in ('lookup', 'register', 'unregister', 'close', 'revision'):
        spy(name)
    look(cached)
    clock.tick(CHECK_INTERVAL)
    look(cached)
    cached.register(samples.registration(), samples.deadline())
    cached.unregister(samples.registration(), samples.deadline())
    cached.close(samples.deadline())
    assert held == [False] * 6


@pytest.mark.spec('MM-51')
def test_what_is_remembered_is_bounded(make):
    backend, cached = make(maxsize=3)
    for i in range(10):
        look(cached, samples.where(f't{i}'))
        look(cached, samples.where('t0'))
    assert len(cached._entries) == 3
    # The one that is used is not the one that goes.
    assert backend.asked() == 10
    assert not cached._flights


def test_records_are_asked_of_the_backend(make):
    backend, cached = make()
    for _ in range(2):
        assert cached.records(samples.deadline()) == ['record']
    assert backend.calls == [('records',)] * 2


def test_close_closes_the_backend_and_empties_the_cache(make):
    backend, cached = make()
    look(cached)
    cached.close(samples.deadline())
    assert ('close',) in backend.calls
    look(cached)
    assert backend.asked() == 2


@pytest.mark.spec('MM-53')
def test_forget_in_a_child_of_a_busy_parent(make):
    backend, cached = make(SlowBackend())
    callers = Callers(cached)
    callers.start(2)
    waiting.until(lambda: waiters(cached) == 1, 'a waiter')
    with cached._lock:
        pid = os.fork()
        if not pid:
            cached.forget()
            backend.go = threading.Semaphore(1)
            ok = look(cached) is backend.answer
            os._exit(0 if ok and ('forget',) in backend.calls else 1)
    assert os.waitpid(pid, 0)[1] == 0
    backend.go.release()
    callers.join()


@pytest.mark.parametrize(
    'wrong',
    [
        {'ttl': 0},
        {'ttl': -1},
        {'ttl': float('nan')},
        {'negative_ttl': 0},
        {'stale_ttl': -1},
        {'check_interval': -0.1},
        {'maxsize': 0},
    ],
)
def test_impossible_numbers_are_refused(make, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)


def test_negative_ttl_is_never_more_than_ttl(make, clock):
    backend, cached = make(ttl=1, negative_ttl=5)
    backend.answer = base.Routes(())
    look(cached)
    clock.tick(1)
    look(cached)
    assert backend.asked() == 2


def test_a_hit_is_cheap(make):
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


@pytest.mark.spec('MM-44')
def test_threads_and_invalidations_at_once(make):
    """No caller gets an answer that is older than its own invalidation."""
    backend, cached = make(clock=time.monotonic)
    lock = threading.Lock()
    newest = [1]
    failed = []

    def ask(where, deadline):
        answer = newest[0]
        time.sleep(0)  # lets another thread run
        return answer

    def work():
        try:
            for _ in range(500):
                with lock:
                    newest[0] += 1
                    mine = newest[0]
                cached.invalidate(samples.where())
                assert look(cached) >= mine
        except BaseException as exc:
            failed.append(exc)

    backend.lookup = ask
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert look(cached) == newest[0]
    assert not cached._flights
