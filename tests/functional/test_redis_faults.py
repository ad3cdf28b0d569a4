# SPDX-License-Identifier: Apache-2.0
"""The table of faults of doc/specs/matchmaker-redis.rst, on real servers."""

import dataclasses
import time
import typing

import pytest

from tests.fixtures import redis_server
from tests.fixtures import waiting
from tests.unit.matchmaker import redis_samples
from tests.unit.matchmaker import samples
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import refreshed

#: Renewals and answers are quick, so that the tests are.
QUERY = (
    '&matchmaker_heartbeat_freq=0.5&matchmaker_heartbeat_ttl=20'
    '&redis_timeout=0.3'
)
#: Seconds that an answer is fresh: the faults last for longer.
TTL = 0.5


@dataclasses.dataclass
class Fault:
    """How it is made and mended, and what works meanwhile."""

    name: str
    make: typing.Any
    mend: typing.Any
    unknown_is_answered: bool = False
    can_register: bool = True
    own_user: bool = False


def nothing(deployment):
    pass


def restart(deployment):
    deployment.master.stop()


def full(deployment):
    deployment.master.command('CONFIG', 'SET', 'maxmemory', '1')


def not_full(deployment):
    deployment.master.command('CONFIG', 'SET', 'maxmemory', '0')


def change_password(deployment):
    deployment.master.command('ACL', 'SETUSER', 'zmq', 'resetpass', '>new')
    deployment.master.command('CLIENT', 'KILL', 'USER', 'zmq')


def change_password_back(deployment):
    deployment.master.command('ACL', 'SETUSER', 'zmq', 'resetpass', '>old')


def demote(deployment):
    # Its master does not answer, so it keeps its data, and serves it.
    deployment.master.command('REPLICAOF', '127.0.0.1', '1')


def promote(deployment):
    deployment.master.command('REPLICAOF', 'NO', 'ONE')


FAULTS = [
    Fault(
        'frozen',
        lambda d: d.master.freeze(),
        lambda d: d.master.thaw(),
    ),
    Fault('refuses', restart, lambda d: d.master.start()),
    Fault(
        'flushed',
        lambda d: d.master.command('FLUSHALL'),
        nothing,
        unknown_is_answered=True,
    ),
    Fault('read-only', demote, promote, unknown_is_answered=True),
    Fault('out of memory', full, not_full, unknown_is_answered=True),
    Fault(
        'wrong password',
        change_password,
        change_password_back,
        can_register=False,
        own_user=True,
    ),
]


class Deployment:
    def __init__(self):
        self.master = redis_server.RedisServer()

    def start(self):
        self.master.start()
        self.master.command(
            'ACL', 'SETUSER', 'zmq', 'on', '>old', '~*', '&*', '+@all'
        )
        return self

    def close(self):
        self.master.thaw()
        self.master.close()


@pytest.fixture
def deployment():
    deployment = Deployment()
    yield deployment.start()
    deployment.close()


class Peers:
    """A server that is registered, and a client that knows it."""

    def __init__(self, make):
        self.server = make(query=QUERY)
        self.made = samples.registration()
        self.server.register(self.made, samples.deadline())
        self.client = make(query=QUERY)
        self.cached = refreshed.RefreshedMatchmaker(
            self.client, member='m', ttl=TTL, negative_ttl=0.1
        )
        assert self.find().routes == (self.made.route,)
        waiting.until(self.client._watch.is_alive, 'subscription')

    def find(self, topic='topic', timeout=10.0):
        return self.cached.lookup(
            samples.where(topic), samples.deadline(timeout)
        )

    def use(self, seconds):
        """Look the known server up all the time; return the longest wait."""
        end = time.monotonic() + seconds
        longest = 0.0
        while time.monotonic() < end:
            begin = time.monotonic()
            assert self.find().routes == (self.made.route,)
            longest = max(longest, time.monotonic() - begin)
            time.sleep(0.005)
        return longest

    def check_threads(self):
        assert self.server._renewal.is_alive()
        assert self.client._watch.is_alive()
        assert self.cached._refresher.is_alive()

    def is_registered(self):
        try:
            found = self.client.lookup(samples.where(), samples.deadline())
            renewed = self.server._published.ended() == ''
        except base.MatchmakerUnavailable:
            return False
        return found.routes == (self.made.route,) and renewed


def check(peers, fault, deployment):
    """Make the fault, check what works, mend it, check that all works."""
    fault.make(deployment)
    # Much less than the sum of the waits, if each lookup had to wait.
    assert peers.use(3 * TTL) < 10
    try:
        if fault.unknown_is_answered:
            assert not peers.find('unknown')
        else:
            with pytest.raises(base.MatchmakerUnavailable) as caught:
                peers.find('unknown')
            assert 'cannot look up rpc exchange/unknown' in str(caught.value)
        new = samples.registration(samples.where('new'))
        if fault.can_register:
            peers.server.register(new, samples.deadline())
        else:
            with pytest.raises(base.MatchmakerUnavailable):
                peers.server.register(new, samples.deadline())
        peers.use(2 * TTL)
        peers.check_threads()
    finally:
        fault.mend(deployment)
    waiting.until(peers.is_registered, 'registration', 30)
    peers.use(2 * TTL)
    peers.server.register(new, samples.deadline())
    waiting.until(
        lambda: new.route in peers.find('new').routes, 'new server', 30
    )
    peers.check_threads()


@pytest.mark.spec('MM-97')
@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.name)
def test_fault(fault, deployment, ipc_dir):
    user = 'zmq:old@' if fault.own_user else ''
    with redis_samples.factory(
        ipc.IpcDirectory(str(ipc_dir)),
        f'zmq+redis://{user}{deployment.master.address}/',
    ) as make:
        peers = Peers(make)
        try:
            check(peers, fault, deployment)
        finally:
            deployment.master.thaw()
            peers.cached.close(samples.deadline(5))


@pytest.mark.spec('MM-97', 'MM-92')
def test_master_moved(ipc_dir):
    deployment = redis_server.SentinelDeployment(sentinels=1)
    deployment.start()
    fault = Fault(
        'master moved',
        lambda d: d.fail_over(),
        nothing,
        unknown_is_answered=True,
    )
    try:
        with redis_samples.factory(
            ipc.IpcDirectory(str(ipc_dir)),
            f'zmq+sentinel://{deployment.hosts}/mymaster/',
        ) as make:
            peers = Peers(make)
            try:
                check(peers, fault, deployment)
            finally:
                peers.cached.close(samples.deadline(5))
    finally:
        deployment.close()


@pytest.mark.spec('MM-97', 'MM-81')
def test_a_frozen_redis_does_not_slow_down_who_knows_the_server(
    deployment, ipc_dir
):
    """Ten thousand lookups, which take as long as without the fault."""
    with redis_samples.factory(
        ipc.IpcDirectory(str(ipc_dir)),
        f'zmq+redis://{deployment.master.address}/',
    ) as make:
        peers = Peers(make)
        deployment.master.freeze()
        peers.use(2 * TTL)
        waited = 0
        for _ in range(10_000):
            begin = time.monotonic()
            assert peers.find().routes == (peers.made.route,)
            waited += time.monotonic() - begin > 0.2
        deployment.master.thaw()
        peers.cached.close(samples.deadline(5))
    # Each would wait for redis_timeout; a busy host may add a pause or two.
    assert waited < 10
