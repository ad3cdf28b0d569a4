# SPDX-License-Identifier: Apache-2.0
"""What is in Redis, and who reads it how."""

import itertools
import os
import pathlib
import shutil
import tempfile

import msgpack
import pytest

from tests.fixtures import redis_server
from tests.fixtures import waiting
from tests.unit.matchmaker import contract
from tests.unit.matchmaker import redis_samples
from tests.unit.matchmaker import samples
from zmq_driver import address
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import record
from zmq_driver.matchmaker.redis import scripts

KEYS = scripts.Keys('p:', 'v')


def register(matchmaker, at=None, tcp_endpoint='', **kwargs):
    registration = samples.registration(at, **kwargs)._replace(
        tcp_endpoint=tcp_endpoint
    )
    matchmaker.register(registration, samples.deadline())
    return registration


def find(matchmaker, where=None):
    return matchmaker.lookup(
        where or samples.where(), samples.deadline()
    ).routes


def keys(server, matchmaker):
    return sorted(
        key.decode() for key in server.command('KEYS', matchmaker.prefix + '*')
    )


@pytest.mark.spec('MM-61')
def test_names_of_keys_tell_the_address_and_never_meet():
    names = [*contract.NAMES, ':', 'a:b', '%3A', '\udcff', 'ä' * 3]
    places = [
        address.Address(scope, exchange, topic)
        for scope in address.Scope
        for exchange, topic in itertools.product(names, repeat=2)
    ]
    found = {KEYS.name(where) for where in places}
    assert len(found) == len(places)
    assert {KEYS.address(name) for name in found} == set(places)
    hosts = {scripts.Keys('p:', host).at('x') for host in names}
    assert len(hosts) == len(names)


@pytest.mark.spec('MM-61')
@pytest.mark.parametrize('name', ['', 'rpc:a', 'nonsense:a:b', 'rpc:a:b:c'])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match=r'scope|unpack'):
        KEYS.address(name)


@pytest.mark.spec('MM-60')
def test_each_operation_is_one_round_trip(own_redis, make_own):
    matchmaker = make_own()
    made = register(matchmaker)  # the server learns the scripts
    find(matchmaker)
    matchmaker.unregister(made, samples.deadline())

    def ran():
        found = own_redis.command('INFO', 'commandstats')
        return found['cmdstat_evalsha']['calls']

    for call in (
        lambda: register(matchmaker),
        lambda: find(matchmaker),
        lambda: matchmaker.register(made, samples.deadline()),
        lambda: matchmaker.unregister(made, samples.deadline()),
    ):
        before = ran()
        call()
        assert ran() == before + 1


@pytest.mark.spec('MM-62')
def test_a_record_that_is_not_renewed_expires(own_redis, make_own):
    query = '&matchmaker_heartbeat_ttl=1&matchmaker_heartbeat_freq=0.5'
    dies, lives = make_own(query=query), make_own(query=query)
    dead, alive = register(dies), register(lives)
    assert len(find(make_own())) == 2
    dies._renewal.stop(samples.deadline())
    waiting.until(
        lambda: find(make_own()) == (alive.route,), 'end of the record'
    )
    dies.register(dead, samples.deadline())
    assert len(find(make_own())) == 2


@pytest.mark.spec('MM-62')
def test_no_key_is_for_ever(own_redis, make_own):
    matchmaker = make_own('v')
    made = [register(matchmaker, samples.where(t)) for t in 'abc']
    matchmaker.unregister(made[0], samples.deadline())
    found = keys(own_redis, matchmaker)
    assert len(found) == 5
    for key in found:
        assert 0 < own_redis.command('PTTL', key) <= 60_000


@pytest.mark.spec('MM-62')
def test_a_short_ttl_does_not_shorten_a_long_one(own_redis, make_own):
    register(make_own())
    register(
        make_own(
            query='&matchmaker_heartbeat_ttl=2&matchmaker_heartbeat_freq=1'
        )
    )
    for key in keys(own_redis, make_own()):
        if ':at:' in key or ':index:' in key:
            assert own_redis.command('PTTL', key) > 50_000


@pytest.mark.spec('MM-63')
def test_nothing_is_left_after_an_orderly_end(shared_redis, make_shared):
    first, second = make_shared(), make_shared()
    made = [register(first, samples.where(topic)) for topic in 'abc']
    register(second, samples.where('a'))
    first.unregister(made[0], samples.deadline())
    first.close(samples.deadline())
    assert [r.registration.address.topic for r in records(second)] == ['a']
    second.close(samples.deadline())
    left = keys(shared_redis, first)
    assert not [key for key in left if 'at:' in key or 'index:' in key]


def records(matchmaker):
    return matchmaker.records(samples.deadline())


@pytest.mark.spec('MM-64')
def test_a_replica_answers(own_redis, make_own, directory, caplog):
    made = register(make_own())
    replica = redis_server.RedisServer(
        f'replicaof 127.0.0.1 {own_redis.port}', 'repl-diskless-sync-delay 0'
    )
    try:
        replica.start()
        waiting.until(
            lambda: replica.command('ROLE')[3] in ('connected', b'connected'),
            'replication',
        )
        with redis_samples.factory(
            directory, f'zmq+redis://{replica.address}/'
        ) as make:
            reader = make(prefix=make_own.prefix)
            assert find(reader) == (made.route,)
            register(reader)
            assert 'zmq+sentinel' in caplog.text
    finally:
        replica.close()


@pytest.mark.spec('MM-64')
def test_a_full_redis_answers(own_redis, make_own, caplog):
    matchmaker = make_own()
    made = register(matchmaker)
    own_redis.command('CONFIG', 'SET', 'maxmemory', '1')
    for one in (matchmaker, make_own()):
        assert find(one) == (made.route,)
        register(one)
        assert 'maxmemory' in caplog.text
        caplog.clear()
    own_redis.command('CONFIG', 'SET', 'maxmemory', '0')
    register(matchmaker)


@pytest.mark.spec('MM-65')
@pytest.mark.parametrize(
    'garbage',
    [
        b'',
        b'nonsense',
        b'\xc1',
        msgpack.packb([]),
        msgpack.packb(7),
        msgpack.packb({'a': 1}),
        msgpack.packb([2, 'ipc://x', '', b'm' * 16, b'i' * 16, 's', 'h', 1]),
        msgpack.packb(
            [1, 'ipc://x', '', b'm' * 16, b'short', 's', 'h', 1, '']
        ),
        msgpack.packb(
            [1, 'ipc://x', '', b'm' * 16, 'i' * 16, 's', 'h', 1, '']
        ),
        msgpack.packb([1, 'ipc://x', '', b'm' * 16]),
        b'\x91' * 5000,
    ],
)
def test_garbage_is_ignored(shared_redis, make_shared, caplog, garbage):
    matchmaker = make_shared()
    made = register(matchmaker)
    key = matchmaker.prefix + 'at::rpc:exchange:topic'
    shared_redis.command('ZADD', key, 9e12, garbage)
    shared_redis.command(
        'ZADD', matchmaker.prefix + 'index:', 9e12, 'no name of an address'
    )
    for _ in range(2):
        assert find(matchmaker) == (made.route,)
        assert len(records(matchmaker)) == 1
    assert len([r for r in caplog.records if 'Ignoring' in r.message]) == 1


@pytest.mark.spec('MM-65')
def test_a_record_may_have_more_fields_one_day():
    entry = record.Entry('a', 'b', b'm', b'i' * 16, 's', 'h', 1, 'now')
    later = msgpack.packb([record.VERSION, *entry, 'new'])
    assert record.decode(later) == entry
    assert record.decode(entry.encode()) == entry


@pytest.fixture
def elsewhere():
    """Give an ipc directory of another host."""
    path = pathlib.Path(tempfile.mkdtemp(prefix='zd'))
    yield ipc.IpcDirectory(str(path))
    shutil.rmtree(path)


@pytest.mark.spec('MM-66')
def test_ipc_for_the_same_directory_and_tcp_for_others(
    make_shared, elsewhere, caplog
):
    here, there = make_shared(), make_shared(directory=elsewhere)
    both = register(here, tcp_endpoint='tcp://10.0.0.1:9501', server='both')
    only = register(here, server='only')
    tcp = register(
        here, endpoint='', tcp_endpoint='tcp://[::1]:9502', server='tcp'
    )
    assert {r.endpoint for r in find(here)} == {
        both.route.endpoint,
        only.route.endpoint,
        'tcp://[::1]:9502',
    }
    for _ in range(2):
        assert {(r.server, r.endpoint) for r in find(there)} == {
            ('both', 'tcp://10.0.0.1:9501'),
            ('tcp', 'tcp://[::1]:9502'),
        }
    told = [r for r in caplog.records if 'not used' in r.message]
    assert len(told) == 1
    found = {r.registration.route.server: r for r in records(there)}
    assert found['both'].registration == both
    assert found['tcp'].registration == tcp


@pytest.mark.spec('MM-67')
def test_a_directory_that_cannot_be_used_is_an_outage(make_shared, path):
    matchmaker = make_shared()
    path.chmod(0o777)
    for call in (find, register):
        with pytest.raises(base.MatchmakerUnavailable, match=str(path)):
            call(matchmaker)
    path.chmod(0o700)
    register(matchmaker)


@pytest.mark.spec('MM-74')
def test_nothing_happens_before_it_must(directory):
    before = sorted(os.listdir('/proc/self/task'))
    settings = redis_samples.settings('zmq+redis://127.0.0.1:1/', directory)
    matchmaker = redis_samples.kind_of('zmq+redis')(settings)
    matchmaker.watch(print)
    assert sorted(os.listdir('/proc/self/task')) == before
    assert not (pathlib.Path(directory.path) / ipc.MARK_NAME).exists()
    matchmaker.close(samples.deadline())


@pytest.mark.spec('MM-74')
def test_a_forked_child_begins_anew(make_shared):
    """It also does when nobody calls forget."""
    matchmaker = make_shared()
    matchmaker.watch(lambda where: None)
    made = register(matchmaker)
    find(matchmaker)
    pid = os.fork()
    if not pid:
        try:
            register(matchmaker)
        except base.MatchmakerUnavailable as exc:
            inherited = 'inherited' in str(exc)
        idle = matchmaker._connections._idle
        matchmaker.close(samples.deadline())
        fresh = make_shared()
        register(fresh)
        ok = inherited and not idle and len(find(fresh)) == 2
        fresh.close(samples.deadline())
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert find(matchmaker) == (made.route,)
    assert matchmaker._renewal.is_alive()
    assert matchmaker._watch.is_alive()


def test_it_needs_the_options_of_the_driver(directory):
    settings = base.MatchmakerSettings(directory, '', samples.member())
    with pytest.raises(ValueError, match='options'):
        redis_samples.kind_of('zmq+redis')(settings)
