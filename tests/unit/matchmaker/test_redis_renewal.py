# SPDX-License-Identifier: Apache-2.0
"""Registrations are renewed, whatever happens to Redis."""

import collections
import itertools
import threading

from oslo_config import cfg
import oslo_messaging
import pytest

from tests.fixtures import clock as fake
from tests.fixtures import waiting
from tests.unit.matchmaker import samples
from zmq_driver import options
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import published
from zmq_driver.matchmaker.redis import renewal as renewal_
from zmq_driver.matchmaker.redis import store

PERIOD = 15.0
OFTEN = '&matchmaker_heartbeat_freq=0.2&matchmaker_heartbeat_ttl=2'


@pytest.fixture
def clock():
    return fake.FakeClock()


class Rounds:
    """Counts rounds, and fails as long as a test says so."""

    def __init__(self, clock):
        self.at = []
        self.error = None
        self._clock = clock

    def __call__(self):
        self.at.append(self._clock())
        if self.error is not None:
            raise self.error


@pytest.fixture
def rounds(clock):
    return Rounds(clock)


@pytest.fixture
def renewal(rounds, clock):
    """Give a renewal whose thread waits; the test ticks."""
    renewal = renewal_.Renewal('m', PERIOD, rounds, clock)
    renewal.start()
    yield renewal
    assert renewal.stop(samples.deadline())


def run(renewal, clock, seconds, step=0.5):
    for _ in range(round(seconds / step)):
        clock.tick(step)
        renewal.tick()


def pauses(at):
    return [b - a for a, b in itertools.pairwise(at)]


@pytest.mark.spec('MM-75')
def test_a_round_in_each_period_less_a_little_by_chance(
    renewal, rounds, clock
):
    run(renewal, clock, 3000, step=0.1)
    found = pauses(rounds.at)
    assert len(found) > 190
    assert min(found) >= PERIOD * 0.8 - 0.2
    assert max(found) <= PERIOD + 0.2
    assert max(found) - min(found) > 1


@pytest.mark.spec('MM-75')
def test_first_rounds_are_spread(clock):
    """Processes that begin together do not renew together."""
    seconds = collections.Counter()
    for _ in range(300):
        rounds = Rounds(clock)
        renewal = renewal_.Renewal('m', PERIOD, rounds, clock)
        renewal.start()
        seconds[round(renewal._due - clock())] += 1
        assert renewal.stop(samples.deadline())
    assert len(seconds) >= 10
    assert max(seconds.values()) < 100


@pytest.mark.spec('MM-75')
@pytest.mark.parametrize('freq', [60, 61, 2000])
def test_a_period_that_is_not_smaller_than_the_ttl_is_refused(freq):
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    url = oslo_messaging.TransportURL.parse(
        conf, f'zmq+redis://h/?matchmaker_heartbeat_freq={freq}'
    )
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        options.load(conf, url)
    assert f'matchmaker_heartbeat_freq ({freq} s)' in str(caught.value)
    assert 'matchmaker_heartbeat_ttl (60 s)' in str(caught.value)


@pytest.mark.spec('MM-77')
@pytest.mark.parametrize(
    'error',
    [base.MatchmakerUnavailable('it is down'), ZeroDivisionError('a defect')],
)
def test_errors_are_survived_with_growing_pauses(
    renewal, rounds, clock, caplog, error
):
    rounds.error = error
    run(renewal, clock, 60, step=0.05)
    found = pauses(rounds.at)
    assert found[0] < 0.7
    assert found[-1] > 2
    assert max(found) <= 5.1
    assert len(caplog.records) == 2
    assert str(error) in caplog.text
    defect = isinstance(error, ZeroDivisionError)
    assert bool(caplog.records[0].exc_info) is defect
    rounds.error = None
    count = len(rounds.at)
    run(renewal, clock, 10)
    assert len(rounds.at) == count + 1
    assert renewal.is_alive()


@pytest.mark.spec('MM-77')
def test_pauses_are_never_longer_than_the_period(rounds, clock):
    renewal = renewal_.Renewal('m', 0.1, rounds, clock)
    for _ in range(20):
        assert renewal._backoff.pause() <= 0.1


@pytest.mark.spec('MM-78')
def test_no_round_begins_after_the_end(rounds, clock):
    renewal = renewal_.Renewal('m', PERIOD, rounds, clock)
    assert renewal.stop(samples.deadline())
    renewal.start()
    assert not renewal.is_alive()
    renewal._due = 0
    renewal.tick()
    assert not rounds.at


@pytest.mark.spec('MM-78')
def test_stop_says_that_a_round_goes_on(clock):
    begun, go = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert go.wait(30)

    renewal = renewal_.Renewal('m', 0.1, slow)
    renewal.start()
    assert begun.wait(30)
    assert not renewal.stop(samples.deadline(0))
    go.set()
    assert renewal.stop(samples.deadline())


@pytest.mark.spec('MM-76')
def test_lost_registrations_come_back(own_redis, make_own, caplog):
    matchmaker, other = make_own(query=OFTEN), make_own()
    made = [samples.registration(samples.where(t)) for t in 'ab']
    for one in made:
        matchmaker.register(one, samples.deadline())
    own_redis.command('FLUSHALL')

    def back():
        found = other.records(samples.deadline())
        return {r.registration for r in found} == set(made)

    waiting.until(back, 'registrations')
    assert 'Redis had lost 2 of 2 registrations' in caplog.text


@pytest.mark.spec('MM-75')
def test_who_leaves_does_not_end_the_renewal_of_others(own_redis, make_own):
    matchmaker, other = make_own(query=OFTEN), make_own()
    leaves, stays = (samples.registration() for _ in range(2))
    for one in (leaves, stays):
        matchmaker.register(one, samples.deadline())
    matchmaker.unregister(leaves, samples.deadline())
    own_redis.command('FLUSHALL')

    def found():
        return other.records(samples.deadline())

    waiting.until(found, 'registration that stays')
    assert [r.registration for r in found()] == [stays]


@pytest.mark.spec('MM-76', 'MM-77')
def test_registrations_come_back_after_an_outage(own_redis, make_own):
    matchmaker, other = make_own(query=OFTEN), make_own()
    made = samples.registration()
    matchmaker.register(made, samples.deadline())
    own_redis.stop()
    waiting.until(
        lambda: matchmaker._renewal._warn_at > 0, 'renewal that fails'
    )
    own_redis.start()
    waiting.until(
        lambda: other.lookup(samples.where(), samples.deadline()).routes,
        'registration',
    )
    assert matchmaker._renewal.is_alive()


@pytest.mark.spec('MM-78')
def test_a_renewal_on_its_way_does_not_bring_back_what_leaves(
    own_redis, make_own
):
    """It has the record in hand when the listener leaves."""
    matchmaker, other = make_own(), make_own()
    made = samples.registration()
    matchmaker.register(made, samples.deadline())
    register = matchmaker._store.register
    begun, go = threading.Event(), threading.Event()

    def slow(*args):
        begun.set()
        assert go.wait(30)
        return register(*args)

    matchmaker._store.register = slow
    renewing = threading.Thread(target=matchmaker._renew)
    renewing.start()
    assert begun.wait(30)
    leaving = threading.Thread(
        target=matchmaker.unregister, args=(made, samples.deadline())
    )
    leaving.start()
    waiting.until(
        lambda: not matchmaker._published._wanted, 'listener that leaves'
    )
    go.set()
    for thread in (renewing, leaving):
        thread.join(30)
    assert other.records(samples.deadline()) == []
    matchmaker._renew()
    assert other.records(samples.deadline()) == []


@pytest.mark.spec('MM-78')
def test_who_waits_for_a_renewal_waits_until_the_deadline(make_shared):
    records = published.PublishedRecords()
    with (
        records.round(),
        pytest.raises(base.MatchmakerUnavailable, match='renewal'),
    ):
        records.wait_for_round(samples.deadline(0.01))
    records.wait_for_round(samples.deadline(0))


@pytest.mark.spec('MM-78')
def test_who_registers_while_it_closes_is_not_left_behind(make_shared):
    matchmaker, other = make_shared(), make_shared()
    register = matchmaker._store.register

    def close_first(*args):
        matchmaker._published.end('the matchmaker is closed')
        return register(*args)

    matchmaker._store.register = close_first
    with pytest.raises(base.MatchmakerUnavailable, match='closed'):
        matchmaker.register(samples.registration(), samples.deadline())
    assert other.records(samples.deadline()) == []


@pytest.mark.spec('MM-79')
def test_what_could_not_be_withdrawn_is_withdrawn_later(own_redis, make_own):
    matchmaker, other = make_own(query=OFTEN), make_own()
    made, stays = samples.registration(), samples.registration()
    for one in (made, stays):
        matchmaker.register(one, samples.deadline())
    own_redis.stop(keep=True)
    with pytest.raises(base.MatchmakerUnavailable):
        matchmaker.unregister(made, samples.deadline())
    own_redis.start()

    def gone():
        found = other.lookup(samples.where(), samples.deadline())
        return found.routes == (stays.route,)

    waiting.until(gone, 'withdrawal')
    waiting.until(
        lambda: not matchmaker._published._leaving, 'end of the attempts'
    )


@pytest.mark.spec('MM-79')
def test_what_may_have_been_registered_is_withdrawn(own_redis, make_own):
    """The answer to the registration came too late."""
    matchmaker = make_own(query=OFTEN + '&redis_timeout=0.05')
    other = make_own()
    other.register(samples.registration(), samples.deadline())
    own_redis.freeze()
    made = samples.registration()
    matchmaker.register(made, samples.deadline())
    with pytest.raises(base.MatchmakerUnavailable):
        matchmaker.unregister(made, samples.deadline())
    own_redis.thaw()
    waiting.until(
        lambda: not matchmaker._published._leaving, 'end of the attempts'
    )
    assert len(other.records(samples.deadline())) == 1


def test_close_during_an_outage_is_told(own_redis, make_own, caplog):
    matchmaker = make_own(query='&redis_timeout=0.1')
    matchmaker.register(samples.registration(), samples.deadline())
    own_redis.freeze()
    matchmaker.close(samples.deadline(1))
    assert 'they expire within 60 s' in caplog.text
    own_redis.thaw()


def test_many_registrations_are_renewed_in_parts(make_shared, monkeypatch):
    monkeypatch.setattr(store, 'CHUNK', 7)
    matchmaker, other = make_shared(), make_shared()
    for number in range(20):
        matchmaker.register(
            samples.registration(samples.where(f't{number}')),
            samples.deadline(),
        )
    matchmaker._renew()
    assert len(other.records(samples.deadline())) == 20
    matchmaker.close(samples.deadline())
    assert other.records(samples.deadline()) == []


@pytest.mark.parametrize(
    ('ttl', 'freq'), [(60, 15), (600, 300), (60, 59), (1, 0.1)]
)
def test_a_gap_is_noticed_before_records_expire_and_not_by_one_member(
    ttl, freq
):
    times = store.Times.of(ttl, freq)
    assert freq < times.gap <= ttl or freq > ttl * 0.9
    if freq <= ttl / 2.2:
        assert times.gap <= ttl - freq
    assert times.settle > freq
