# SPDX-License-Identifier: Apache-2.0
"""Redis behind real Sentinels."""

import time

import pytest
import redis

from tests.fixtures import clock as fake
from tests.fixtures import hung as hung_
from tests.fixtures import redis_server
from tests.fixtures import waiting
from tests.unit.matchmaker import redis_samples
from tests.unit.matchmaker import samples
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import connections as connections_
from zmq_driver.matchmaker.redis import link as link_
from zmq_driver.matchmaker.redis import servers

OFTEN = '&matchmaker_heartbeat_freq=0.5&matchmaker_heartbeat_ttl=10'


@pytest.fixture(scope='module')
def deployment():
    deployment = redis_server.SentinelDeployment(sentinels=2)
    yield deployment.start()
    deployment.close()


@pytest.fixture
def own_deployment():
    deployment = redis_server.SentinelDeployment(sentinels=1)
    yield deployment.start()
    deployment.close()


def members(directory, hosts, path='mymaster/'):
    return redis_samples.factory(directory, f'zmq+sentinel://{hosts}/{path}')


def find(matchmaker, timeout=30.0):
    return matchmaker.lookup(samples.where(), samples.deadline(timeout)).routes


def register(matchmaker):
    made = samples.registration()
    matchmaker.register(made, samples.deadline())
    return made


@pytest.mark.spec('MM-90')
def test_a_hung_sentinel_costs_its_time_out_once(deployment, directory):
    hung = hung_.HungServer()
    with members(directory, f'{hung.address},{deployment.hosts}') as make:
        for _ in range(3):
            matchmaker = make()
            group = matchmaker._connections._servers
            # Whoever answers goes first; begin with the one that does not.
            group._sentinels.sort(key=lambda s: s.port != hung.port)
            begin = time.monotonic()
            find(matchmaker)
            assert time.monotonic() - begin < 1.0
            assert group._sentinels[-1].port == hung.port
    hung.close()


@pytest.mark.spec('MM-90')
def test_sentinels_that_are_gone_are_passed_over(deployment, directory):
    with members(directory, f'127.0.0.1:1,[::1]:1,{deployment.hosts}') as make:
        assert find(make()) == ()


@pytest.mark.spec('MM-90', 'MM-68')
def test_every_problem_is_told_by_the_deadline(directory):
    hung = hung_.HungServer()
    with members(directory, f'{hung.address},127.0.0.1:1') as make:
        begin = time.monotonic()
        with pytest.raises(base.MatchmakerUnavailable) as caught:
            find(make(query='&sentinel_timeout=60'), 0.1)
        assert time.monotonic() - begin < 5
        assert f'Sentinel {hung.address}: ' in str(caught.value)
        assert 'Sentinel 127.0.0.1:1: ' in str(caught.value)
    hung.close()


@pytest.mark.spec('MM-94')
def test_the_path_is_group_and_virtual_host(deployment, directory):
    hosts = deployment.hosts
    with members(directory, hosts, 'mymaster/blue') as make:
        made = register(make())
        prefix = make.prefix
    with (
        members(directory, hosts, 'mymaster/blue') as blue,
        members(directory, hosts, '/blue') as default,
        members(directory, hosts, 'mymaster') as none,
        members(directory, hosts, '') as empty,
        members(directory, hosts, 'blue') as mistake,
    ):
        publisher = blue(prefix=prefix)
        publisher.register(made, samples.deadline())
        assert find(default(prefix=prefix)) == (made.route,)
        for make in (none, empty):
            assert find(make(prefix=prefix)) == ()
        with pytest.raises(
            base.MatchmakerUnavailable, match="no master group 'blue'"
        ):
            find(mistake())


@pytest.mark.spec('MM-91')
def test_a_replica_is_not_believed_to_be_the_master():
    asked = []

    class Link:
        def __init__(self, server, deadline):
            self.server = server
            asked.append(server.host)

        def ask(self, deadline, *command):
            if command[0] == 'ROLE':
                return [b'slave' if self.server.host == 'old' else b'master']
            answers = {'behind': b'old', 'right': b'new'}
            return [answers[self.server.host], b'6379']

        def close(self):
            asked.append(f'close {self.server.host}')

    group = servers.SentinelGroup(
        'g', [link_.Server(h, 1) for h in ('behind', 'right')], Link, Link
    )
    for _ in range(10):
        assert group.connect(samples.deadline()).server.host == 'new'
    assert group._sentinels[0].host == 'right'
    assert asked.count('old') == asked.count('close old')
    only = servers.SentinelGroup('g', [link_.Server('behind', 1)], Link, Link)
    with pytest.raises(redis.ConnectionError, match='is a slave'):
        only.connect(samples.deadline())


@pytest.mark.spec('MM-92', 'MM-95')
def test_a_failover_is_followed(own_deployment, directory):
    with members(directory, own_deployment.hosts) as make:
        matchmaker, other = make(query=OFTEN), make()
        heard = []
        other.watch(heard.append)
        made = register(matchmaker)
        assert find(other) == (made.route,)
        redis_samples.wait_until_watched(other, heard)
        new = own_deployment.fail_over()
        waiting.until(lambda: is_master(new), 'new master')
        # The old one lost it all, the new one perhaps.
        new.command('FLUSHALL')

        def followed():
            routes = found(other)
            latest = other._connections.latest
            return routes == (made.route,) and latest.port == new.port

        waiting.until(followed, 'registration at the new master', 30)
        # Messages are heard from the new one too.
        waiting.until(lambda: subscribers(new), 'subscription', 30)
        heard.clear()
        register(make())
        redis_samples.wait_until_heard(heard)
        assert matchmaker._renewal.is_alive()
        assert other._watch.is_alive()


@pytest.mark.spec('MM-92')
def test_a_master_that_dies_is_replaced(own_deployment, directory):
    with members(directory, own_deployment.hosts) as make:
        matchmaker, other = make(query=OFTEN), make()
        made = register(matchmaker)
        port = own_deployment.master.port
        own_deployment.master.kill()
        own_deployment.wait_for_master_other_than(port)
        waiting.until(
            lambda: found(other) == (made.route,), 'registration', 30
        )
        new = register(other)
        assert set(find(make())) == {made.route, new.route}


def is_master(server):
    return server.command('ROLE')[0] in ('master', b'master')


def subscribers(server):
    return server.command('PUBSUB', 'CHANNELS', '*')


def found(matchmaker):
    try:
        return find(matchmaker)
    except base.MatchmakerUnavailable:
        return None


@pytest.mark.spec('MM-93', 'MM-69')
def test_redis_and_sentinel_have_passwords_of_their_own(directory):
    deployment = redis_server.SentinelDeployment(
        sentinels=1, password='redispw', sentinel_password='sentpw'
    )
    deployment.start()
    try:
        hosts = f':redispw@{deployment.hosts}'
        with (
            members(directory, hosts) as make,
            members(directory, deployment.hosts) as without,
        ):
            matchmaker = make(query='&sentinel_password=sentpw')
            made = register(matchmaker)
            assert find(matchmaker) == (made.route,)
            for wrong in (
                make(),
                make(query='&sentinel_password=redispw'),
                without(query='&sentinel_password=sentpw'),
                without(
                    query='&sentinel_password=sentpw&redis_password=sentpw'
                ),
            ):
                with pytest.raises(base.MatchmakerUnavailable) as caught:
                    find(wrong)
                assert 'password' in str(caught.value)
                assert 'sentpw' not in str(caught.value)
                assert 'redispw' not in str(caught.value)
    finally:
        deployment.close()


@pytest.mark.spec('MM-95')
def test_connections_to_a_master_are_replaced_after_a_while(deployment):
    clock = fake.FakeClock()
    made = []

    def connect(server, deadline):
        made.append(
            link_.Link(
                link_.Login(),
                0,
                None,
                link_.Limits(1.0, 1.0),
                server,
                deadline,
            )
        )
        return made[-1]

    sentinels = [
        link_.Server('127.0.0.1', sentinel.port)
        for sentinel in deployment.sentinels
    ]
    group = servers.SentinelGroup('mymaster', sentinels, connect, connect)
    connections = connections_.Connections(group, clock)
    script = redis_samples.ECHO
    for tick, expected in ((0, 2), (29.0, 2), (1.0, 4), (29.9, 4)):
        clock.tick(tick)
        connections.run('test', script, [], [], samples.deadline())
        assert len(made) == expected
    connections.close()
    assert not any(link.is_open() for link in made)
    group.forget()
