# SPDX-License-Identifier: Apache-2.0
"""Processes that find each other through Redis."""

import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import redis_server
from tests.fixtures import waiting
from zmq_driver import address
from zmq_driver import clock

#: Nothing here may depend on a TTL of the cache, so it is long.
SLOW_CACHE = '&lookup_ttl=600&lookup_negative_ttl=600'
#: Records come and go quickly.
OFTEN = '&matchmaker_heartbeat_ttl=3&matchmaker_heartbeat_freq=0.5'


@pytest.fixture
def redis():
    server = redis_server.RedisServer()
    yield server.start()
    server.close()


@pytest.fixture
def url_of(redis):
    """Give the URL of processes that share an ipc directory."""

    def url_of(directory, host='127.0.0.1'):
        return (
            f'zmq+redis://{redis.address}/?rpc_zmq_ipc_dir={directory}'
            f'&rpc_zmq_bind_address={host}&rpc_zmq_port={ports.free(8)}'
        )

    return url_of


@pytest.fixture
def url(url_of, ipc_dir):
    return url_of(ipc_dir)


def matchmaker(user):
    return user.transport._driver.runtime().matchmaker


def records(user):
    return matchmaker(user).records(clock.Deadline(10))


class Load:
    """Calls all the time, and what failed."""

    def __init__(self, client):
        self.failed = []
        self.count = 0
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exc_info):
        self._stop.set()
        self._thread.join(60)

    def _run(self):
        while not self._stop.is_set():
            try:
                self._client.call({}, 'echo', value=1)
            except Exception as error:
                self.failed.append(error)
            self.count += 1
            time.sleep(0.002)

    def go_on(self, calls=50):
        """Wait until some more calls have ended."""
        until = self.count + calls
        waiting.until(lambda: self.count >= until, 'calls', 30)


@pytest.mark.spec('MM-66')
def test_two_processes_of_a_host_talk_over_ipc(server, client):
    program = server('one')
    one = client()
    assert one.call({}, 'who') == {'server': 'one', 'pid': program.pid}
    one.cast({}, 'record', id=1)
    program.wait_for('ran')
    (record,) = records(one)
    assert record.pid == program.pid
    assert record.registration.route.endpoint.startswith('ipc://')
    program.stop()
    assert records(one) == []


@pytest.mark.spec('MM-66')
def test_processes_that_share_no_directory_talk_over_tcp(
    url_of, client, topic, tmp_path
):
    (tmp_path / 'other').mkdir(0o700)
    program = process.Program(
        'server', '--url', url_of(tmp_path / 'other'), '--topic', topic
    )
    program.start()
    try:
        one = client()
        assert one.call({}, 'who')['pid'] == program.pid
        where = address.Address(address.Scope.RPC, 'openstack', topic)
        found = matchmaker(one).lookup(where, clock.Deadline(10))
        assert [r.endpoint.partition(':')[0] for r in found.routes] == ['tcp']
        (record,) = records(one)
        assert record.registration.tcp_endpoint == found.routes[0].endpoint
        program.stop()
    finally:
        program.close()


@pytest.mark.spec('MM-82')
def test_a_client_that_waits_sees_the_server_come(server, client):
    one = client(SLOW_CACHE)
    found = []

    def call():
        found.append(one.call({}, 'who')['server'])

    caller = threading.Thread(target=call)
    caller.start()
    waiting.until(
        lambda: matchmaker(one)._backend._watch.is_alive(), 'subscription'
    )
    server('late')
    caller.join(30)
    assert found == ['late']


@pytest.mark.spec('MM-82')
def test_a_killed_server_is_replaced_without_an_error(server, client):
    killed, lives = server('a', query=OFTEN), server('b', query=OFTEN)
    one = client(SLOW_CACHE)
    seen = {one.call({}, 'who')['pid'] for _ in range(10)}
    assert seen == {killed.pid, lives.pid}
    killed.kill()
    for _ in range(10):
        assert one.call({}, 'who')['pid'] == lives.pid
    waiting.until(
        lambda: {r.pid for r in records(one)} == {lives.pid}, 'expiry'
    )


@pytest.mark.spec('MM-82')
def test_a_server_that_was_restarted_is_called_at_once(server, client):
    one = client(SLOW_CACHE, timeout=5)
    named = one.prepare(server='same')
    for how in ('stop', 'stop', 'kill'):
        program = server('same')
        for caller in (one, named):
            assert caller.call({}, 'who')['pid'] == program.pid
        getattr(program, how)()
    program = server('same')
    for caller in (one, named):
        assert caller.call({}, 'who')['pid'] == program.pid


@pytest.mark.spec('MM-89')
def test_a_new_server_is_called_by_its_name_at_once(server, client):
    server('old')
    one = client(SLOW_CACHE, timeout=5)
    assert one.call({}, 'who')['server'] == 'old'
    for name in ('new', 'newer'):
        server(name)
        named = one.prepare(server=name)
        assert named.call({}, 'who')['server'] == name


@pytest.mark.spec('MM-82')
def test_a_fanout_reaches_who_has_come(server, client):
    one = client(SLOW_CACHE)
    first = server('first')
    one.call({}, 'who')
    second = server('second')
    waiting.until(
        lambda: (
            {one.call({}, 'who')['server'] for _ in range(4)}
            == {'first', 'second'}
        ),
        'the second server',
    )
    one.prepare(fanout=True).cast({}, 'record', id=1)
    for program in (first, second):
        program.wait_for('ran')


@pytest.mark.spec('MM-81', 'MM-84', 'MM-76')
@pytest.mark.parametrize('how', ['frozen', 'stopped', 'lost its data'])
def test_an_outage_is_not_noticed_by_peers_that_know_each_other(
    redis, server, client, topic, how
):
    """It lasts longer than the TTL of records and of answers."""
    query = OFTEN + '&lookup_ttl=0.4&redis_timeout=0.3'
    programs = [server(name, query=query) for name in 'ab']
    one = client(query, timeout=10)
    assert {one.call({}, 'who')['pid'] for _ in range(10)} == {
        program.pid for program in programs
    }
    with Load(one) as load:
        load.go_on()
        if how == 'frozen':
            redis.freeze()
        else:
            redis.stop(keep=how == 'stopped')
        other = one.prepare(topic='unknown', timeout=0.5)
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            with pytest.raises(oslo_messaging.MessagingTimeout) as caught:
                other.call({}, 'who')
            assert redis.address in str(caught.value)
            load.go_on(10)
        if how == 'frozen':
            redis.thaw()
        else:
            redis.start()
        waiting.until(
            lambda: registered(one) == {p.pid for p in programs},
            'registrations',
            10,
        )
        load.go_on(200)
    assert load.failed == []


def registered(user):
    try:
        return {record.pid for record in records(user)}
    except Exception:
        return None


@pytest.mark.spec('MM-01')
def test_notifications(server, notifier):
    program = server('l', '--notifications')
    notifier().info({}, 'event', {'id': 7})
    assert program.wait_for('notified')['notified'] == {'id': 7}
