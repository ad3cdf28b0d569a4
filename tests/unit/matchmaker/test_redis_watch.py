# SPDX-License-Identifier: Apache-2.0
"""Joins and leaves are heard from a real Redis."""

import threading

import pytest

from tests.fixtures import hung as hung_
from tests.fixtures import waiting
from tests.unit.matchmaker import redis_samples
from tests.unit.matchmaker import samples
from zmq_driver.matchmaker import refreshed
from zmq_driver.matchmaker.redis import watch as watch_


@pytest.fixture
def watched(make_own):
    """Give a matchmaker that listens to changes, and what it heard."""
    matchmaker = make_own()
    heard = []
    matchmaker.watch(heard.append)
    return matchmaker, heard


def find(matchmaker, where=None):
    return matchmaker.lookup(where or samples.where(), samples.deadline())


@pytest.mark.spec('MM-82')
def test_joins_and_leaves_are_heard(watched, make_own):
    matchmaker, heard = watched
    find(matchmaker)
    find(matchmaker, samples.where('other'))
    waiting.until(lambda: len(heard) == 2, 'two subscriptions')
    heard.clear()
    other = make_own()
    made = samples.registration()
    for call in (other.register, other.unregister, other.register):
        call(made, samples.deadline())
        assert redis_samples.wait_until_heard(heard) == samples.where()
        heard.clear()
    other.register(made, samples.deadline())  # again: no news
    other._renew()
    elsewhere = samples.registration(samples.where('unknown'))
    other.register(elsewhere, samples.deadline())
    make_own('v').register(made, samples.deadline())
    other.close(samples.deadline())
    redis_samples.wait_until_heard(heard)
    assert heard == [samples.where()]


@pytest.mark.spec('MM-82')
def test_what_expired_and_comes_back_is_a_join(make_own):
    query = '&matchmaker_heartbeat_ttl=1&matchmaker_heartbeat_freq=0.9'
    dies = make_own(query=query)
    matchmaker = make_own()
    made = samples.registration()
    dies.register(made, samples.deadline())
    dies._renewal.stop(samples.deadline())
    waiting.until(lambda: not find(matchmaker), 'end of the record')
    heard = []
    matchmaker.watch(heard.append)
    find(matchmaker)
    redis_samples.wait_until_watched(matchmaker, heard)
    dies.register(made, samples.deadline())
    redis_samples.wait_until_heard(heard)


@pytest.mark.spec('MM-82')
def test_through_the_cache_everything_is_seen_without_a_ttl(make_own):
    backend, other = make_own(), make_own()
    cached = refreshed.RefreshedMatchmaker(
        backend, member='m', ttl=600.0, negative_ttl=600.0
    )

    def servers():
        found = cached.lookup(samples.where(), samples.deadline())
        return sorted(route.server for route in found.routes)

    assert servers() == []
    for round_ in range(3):
        name = f's{round_}'
        made = samples.registration(server=name)
        other.register(made, samples.deadline())
        waiting.until(lambda name=name: servers() == [name], 'join')
        other.unregister(made, samples.deadline())
        waiting.until(lambda: servers() == [], 'leave')
    cached.close(samples.deadline())


@pytest.mark.spec('MM-86')
@pytest.mark.parametrize('defect', [False, True])
def test_the_thread_survives_what_it_calls(make_own, caplog, defect):
    matchmaker, other = make_own(), make_own()
    heard = threading.Event()

    def on_changed(where):
        heard.set()
        raise ZeroDivisionError('a defect')

    matchmaker.watch(on_changed)
    find(matchmaker)
    for _ in range(2):
        assert heard.wait(30)
        heard.clear()
        other.register(samples.registration(), samples.deadline())
    assert matchmaker._watch.is_alive()


@pytest.mark.spec('MM-87')
@pytest.mark.parametrize('how', ['killed', 'restarted', 'refused rights'])
def test_a_lost_subscription_is_made_again(
    own_redis, watched, make_own, how, caplog
):
    matchmaker, heard = watched
    find(matchmaker)
    redis_samples.wait_until_watched(matchmaker, heard)
    if how == 'restarted':
        own_redis.stop(keep=True)
        own_redis.start()
    elif how == 'killed':
        own_redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
    else:
        own_redis.command('ACL', 'SETUSER', 'default', 'resetchannels')
        own_redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
        waiting.until(
            lambda: 'are not heard' in caplog.text, 'line in the log'
        )
        own_redis.command('ACL', 'SETUSER', 'default', 'allchannels')
    # The address counts as changed, for nobody knows what was missed.
    redis_samples.wait_until_watched(matchmaker, heard)
    make_own().register(samples.registration(), samples.deadline())
    redis_samples.wait_until_heard(heard)
    assert matchmaker._watch.is_alive()


@pytest.mark.spec('MM-87')
def test_a_silent_server_is_noticed(directory, monkeypatch, caplog):
    monkeypatch.setattr(watch_, 'SILENCE', 0.05)
    monkeypatch.setattr(watch_, 'POLL', 0.02)
    hung = hung_.HungServer()
    settings = redis_samples.settings(
        f'zmq+redis://{hung.address}/', directory
    )
    matchmaker = redis_samples.kind_of('zmq+redis')(settings)
    matchmaker.watch(lambda where: None)
    matchmaker._watch.want(samples.where())
    waiting.until(lambda: 'is silent' in caplog.text, 'line in the log')
    matchmaker.close(samples.deadline())
    hung.close()


@pytest.mark.spec('MM-87')
def test_an_idle_server_is_not_a_silent_one(watched, make_own, monkeypatch):
    monkeypatch.setattr(watch_, 'SILENCE', 0.02)
    monkeypatch.setattr(watch_, 'POLL', 0.01)
    matchmaker, heard = watched
    pongs = []
    handle = watch_._Subscription.handle

    def spy(self, message):
        pongs.append(message[0] == b'pong')
        handle(self, message)

    monkeypatch.setattr(watch_._Subscription, 'handle', spy)
    find(matchmaker)
    redis_samples.wait_until_watched(matchmaker, heard)
    waiting.until(lambda: sum(pongs) >= 3, 'three answers')
    assert not heard


@pytest.mark.spec('MM-88')
def test_what_nobody_uses_is_not_listened_to(
    own_redis, watched, make_own, monkeypatch
):
    matchmaker, heard = watched
    for topic in ('used', 'unused'):
        find(matchmaker, samples.where(topic))
    waiting.until(lambda: len(heard) == 2, 'two subscriptions')

    def channels():
        return own_redis.command('PUBSUB', 'CHANNELS', '*')

    assert len(channels()) == 2
    matchmaker._watch._wanted[samples.where('unused')] -= watch_.UNUSED + 1
    waiting.until(lambda: len(channels()) == 1, 'end of a subscription')
    find(matchmaker, samples.where('unused'))
    waiting.until(lambda: len(channels()) == 2, 'subscription')


@pytest.mark.spec('MM-88')
def test_what_is_listened_to_is_bounded(watched, monkeypatch):
    monkeypatch.setattr(watch_, 'MAX_ADDRESSES', 3)
    matchmaker, _ = watched
    for topic in 'abcdabcd':
        find(matchmaker, samples.where(topic))
    assert len(matchmaker._watch._wanted) == 3


@pytest.mark.spec('MM-74')
def test_nobody_listens_if_nobody_wants_to_know(make_own):
    matchmaker = make_own()
    find(matchmaker)
    assert not matchmaker._watch.is_alive()
    matchmaker.watch(lambda where: None)
    matchmaker.close(samples.deadline())
    matchmaker._watch.want(samples.where())
    assert not matchmaker._watch.is_alive()
