# SPDX-License-Identifier: Apache-2.0
"""Whole drivers over TCP: each process has an ipc directory of its own."""

import collections
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket as posix
import tempfile
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import spanning
from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds after which something hangs, on a machine that is busy.
HANG = 60

PORTS = 16


class Host:
    """Starts programs that share nothing but the registry."""

    def __init__(self, topic):
        self.first_port = ports.free(PORTS)
        self._topic = topic
        self._directories = []
        self._programs = []

    def directory(self):
        self._directories.append(tempfile.mkdtemp(prefix='zd'))
        return self._directories[-1]

    def url(self, bind='127.0.0.1', port=None, count=PORTS, query=''):
        return (
            f'zmq+spanning:///?rpc_zmq_ipc_dir={self.directory()}'
            f'&rpc_zmq_bind_address={bind}'
            f'&rpc_zmq_port={port or self.first_port}'
            f'&rpc_zmq_port_count={count}{query}'
        )

    def start(self, name='server', *arguments, wait=True, **kwargs):
        program = process.Program(
            'spanning',
            '--url',
            self.url(**kwargs),
            '--topic',
            self._topic,
            '--server',
            name,
            *arguments,
        )
        self._programs.append(program)
        return program.start(wait)

    def close(self):
        for program in self._programs:
            program.close()
        for directory in self._directories:
            shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    path = tempfile.mkdtemp(prefix='zr')
    monkeypatch.setenv(spanning.VARIABLE, path)
    spanning.install(monkeypatch.setattr)
    yield pathlib.Path(path)
    shutil.rmtree(path)


@pytest.fixture
def host(topic):
    one = Host(topic)
    yield one
    one.close()


@pytest.fixture
def url(host):
    """Give the URL of the clients in this process."""
    return host.url()


def counted(client, name):
    runtime = client.transport._driver._runtime
    return runtime.counters.snapshot()[name]


@pytest.mark.spec('LI-01')
def test_call_and_cast_between_hosts(host, client, registry):
    program = host.start()
    one = client()
    assert one.call({}, 'who')['pid'] == program.pid
    value = {'text': 'ä' * 100000}
    assert one.call({}, 'echo', value=value) == value
    one.cast({}, 'record', id=7)
    assert program.wait_for('ran')['ran'] == 7
    with pytest.raises(ValueError, match='no such value'):
        one.call({}, 'fail', kind='value')
    assert spanning.endpoints(registry) == [
        f'tcp://127.0.0.1:{host.first_port}'
    ]
    # The client shares no ipc directory with the server, and needs none.
    assert one.transport._driver._runtime.reception.router is None


@pytest.mark.spec('LI-01')
@pytest.mark.spec('LI-05')
def test_servers_take_turns_each_on_a_port_of_its_own(host, client, registry):
    programs = [host.start(f's{n}') for n in range(3)]
    assert spanning.endpoints(registry) == [
        f'tcp://127.0.0.1:{host.first_port + n}' for n in range(3)
    ]
    one = client()
    answers = [one.call({}, 'who')['pid'] for _ in range(9)]
    assert collections.Counter(answers) == {p.pid: 3 for p in programs}
    assert one.prepare(server='s1').call({}, 'who')['server'] == 's1'


@pytest.mark.spec('LI-01')
def test_fanout_reaches_every_server_once(host, client):
    programs = [host.start(f's{n}') for n in range(3)]
    one = client()
    one.prepare(fanout=True).cast({}, 'record', id=1)
    for program in programs:
        program.wait_for('ran')
    one.call({}, 'who')
    assert [len(program.all('ran')) for program in programs] == [1, 1, 1]


@pytest.mark.spec('LI-01')
def test_notification_reaches_one_member_of_each_pool(host, notifier):
    programs = [
        host.start(f'l{n}', '--notifications', '--listener-pool', pool)
        for n, pool in enumerate(['a', 'a', 'b'])
    ]
    one = notifier()
    for n in range(4):
        one.info({}, 'event', n)

    def taken():
        return [len(program.all('notified')) for program in programs]

    waiting.until(lambda: sum(taken()) == 8, 'eight copies', HANG)
    assert taken()[2] == 4


@pytest.mark.spec('LI-01')
def test_process_that_calls_itself(host, transport, client, topic):
    class Endpoint:
        def who(self, ctxt):
            return os.getpid()

    served = transport()
    server = oslo_messaging.get_rpc_server(
        served,
        oslo_messaging.Target(topic=topic, server='here'),
        [Endpoint()],
        executor='threading',
    )
    server.start()
    try:
        assert client().call({}, 'who') == os.getpid()
        router = served._driver._runtime.reception.router
        assert router.endpoint.startswith('ipc://')
        assert router.tcp_endpoint == f'tcp://127.0.0.1:{host.first_port}'
    finally:
        server.stop()
        server.wait()


@pytest.mark.spec('DL-15')
def test_call_ends_when_its_server_is_killed(host, client):
    program = host.start()
    one = client(timeout=HANG)
    caught = []

    def call():
        try:
            one.call({}, 'record', id=1, delay=HANG)
        except Exception as error:
            caught.append((error, time.monotonic()))

    thread = threading.Thread(target=call)
    thread.start()
    program.wait_for('ran')
    killed_at = time.monotonic()
    program.kill()
    thread.join(HANG)
    [(error, ended_at)] = caught
    assert isinstance(error, errors.PeerLost)
    assert ended_at - killed_at < 3.0


@pytest.mark.spec('LI-10')
def test_stale_record_of_a_killed_server_costs_nothing(host, client):
    programs = [host.start(f's{n}') for n in range(2)]
    programs[0].kill()
    # The record is still there, and nothing was ever connected.
    one = client(query='&connect_timeout=50', timeout=HANG)
    begin = time.monotonic()
    for _ in range(6):
        assert one.call({}, 'who')['pid'] == programs[1].pid
    assert time.monotonic() - begin < HANG / 2
    assert counted(one, 'requests_not_sent') >= 1


@pytest.mark.spec('DL-15')
@pytest.mark.spec('LI-11')
def test_frozen_server_is_passed_over(host, client):
    programs = [host.start(f's{n}') for n in range(2)]
    one = client(query='&connect_timeout=0.5', timeout=HANG)
    assert {one.call({}, 'who')['pid'] for _ in range(4)} == {
        program.pid for program in programs
    }
    programs[0].freeze()
    begin = time.monotonic()
    with pytest.raises(errors.PeerLost):
        one.prepare(server='s0').call({}, 'record', id=1)
    assert time.monotonic() - begin < 5.0
    for _ in range(6):
        assert one.call({}, 'who')['pid'] == programs[1].pid
    programs[0].thaw()
    waiting.until(
        lambda: one.call({}, 'who')['pid'] == programs[0].pid,
        'return of the thawed server',
        HANG,
    )


@pytest.mark.spec('DL-43')
@pytest.mark.spec('DL-46')
def test_frozen_server_is_waited_for_seldom(host, client):
    programs = [host.start(f's{n}') for n in range(2)]
    programs[0].freeze()
    one = client(query='&connect_timeout=0.5', timeout=HANG)
    for _ in range(300):
        assert one.call({}, 'who')['pid'] == programs[1].pid
    # It would be half of them; the pauses make it the logarithm of the time.
    assert 1 <= counted(one, 'requests_not_sent') <= 15
    # By name it is tried at once, whatever is suspected.
    programs[0].thaw()
    assert one.prepare(server='s0').call({}, 'who')['pid'] == programs[0].pid
    answers = [one.call({}, 'who')['pid'] for _ in range(20)]
    assert collections.Counter(answers) == {p.pid: 10 for p in programs}


@pytest.mark.spec('LI-09')
def test_server_restarted_on_the_same_port(host, client, registry):
    first = host.start('one', count=1)
    one = client(query='&connect_timeout=50', timeout=HANG)
    assert one.call({}, 'who')['pid'] == first.pid
    first.kill()
    second = host.start('one', count=1)
    assert second.pid != first.pid
    assert len(spanning.endpoints(registry)) == 1
    # Both records lead to the port, and one of them to nobody any more.
    begin = time.monotonic()
    for n in range(20):
        assert one.call({}, 'record', id=n) == n
    assert time.monotonic() - begin < HANG / 2
    ran = collections.Counter(line['ran'] for line in second.all('ran'))
    assert ran == dict.fromkeys(range(20), 1)


@pytest.mark.spec('LI-09')
@pytest.mark.spec('DL-05')
def test_port_taken_over_by_another_service(host, client, topic):
    first = host.start('one', count=1)
    one = client(timeout=HANG)
    assert one.call({}, 'who')['pid'] == first.pid
    first.kill()
    other = process.Program(
        'spanning',
        '--url',
        host.url(count=1),
        '--topic',
        'other',
        '--server',
        'one',
    )
    beside = host.start('two', port=host.first_port + 1)
    try:
        other.start()
        for n in range(6):
            assert one.call({}, 'record', id=n) == n
        waiting.until(lambda: len(beside.all('ran')) == 6, 'lines', HANG)
        assert not other.all('ran')
    finally:
        other.close()


@pytest.mark.spec('LI-17')
def test_strangers_at_the_port_do_no_harm(host, client):
    program = host.start()
    one = client()
    assert one.call({}, 'who')['pid'] == program.pid
    opened = pathlib.Path('/proc', str(program.pid), 'fd')
    calm = len(list(opened.iterdir()))
    chance = random.Random(1)
    greeting = b'\xff' + bytes(8) + b'\x7f\x03\x00NULL' + bytes(48)
    sent = [
        b'',
        b'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
        # ZMTP 1.0: an empty identity, and two frames.
        b'\x01\x00' + b'\x05\x01head' + b'\x05\x00body',
        greeting[:20],
        greeting + b'\x04\xff\xff\xff',
        *(chance.randbytes(chance.randrange(1, 9000)) for _ in range(20)),
    ]
    for data in sent:
        with (
            posix.create_connection(('127.0.0.1', host.first_port), HANG) as s,
            contextlib.suppress(OSError),
        ):
            s.sendall(data)
        assert one.call({}, 'who')['pid'] == program.pid
    waiting.until(lambda: len(list(opened.iterdir())) <= calm, 'calm', HANG)
    assert not program.all('ran')
    assert 'Traceback' not in program.errors()


@pytest.mark.spec('LI-07')
def test_port_in_use_ends_a_server_with_a_clear_error(host):
    host.start('one', count=1)
    second = host.start('two', count=1, wait=False)
    with pytest.raises(AssertionError) as caught:
        second.wait_for('ready', HANG)
    assert 'ListenFailure' in str(caught.value)
    assert f'port {host.first_port} is in use' in str(caught.value)
    assert 'raise rpc_zmq_port_count' in str(caught.value)


@pytest.mark.slow
@pytest.mark.spec('LI-06')
def test_processes_that_start_together_have_a_port_each(
    host, client, registry
):
    programs = [host.start(f's{n}', bind='*', wait=False) for n in range(8)]
    for program in programs:
        program.wait_for('ready', HANG)
    found = spanning.endpoints(registry)
    assert len(found) == 8
    assert {int(endpoint.rpartition(':')[2]) for endpoint in found} == set(
        range(host.first_port, host.first_port + 8)
    )
    one = client()
    answers = [one.call({}, 'who')['pid'] for _ in range(16)]
    assert collections.Counter(answers) == {p.pid: 2 for p in programs}


@pytest.mark.spec('LI-02')
@pytest.mark.spec('LI-12')
def test_server_everywhere_is_reached_by_its_name(host, client, registry):
    program = host.start(bind='*', query='&rpc_zmq_host=localhost')
    assert spanning.endpoints(registry) == [
        f'tcp://localhost:{host.first_port}'
    ]
    waiting.until(
        lambda: 'set rpc_zmq_host' in program.errors(), 'the warning'
    )
    assert client().call({}, 'who')['pid'] == program.pid


@pytest.mark.spec('LI-03')
@pytest.mark.skipif(
    not ports.has_ipv6(), reason='this host has no address ::1'
)
def test_ipv6(host, client, registry):
    program = host.start(bind='::1')
    assert spanning.endpoints(registry) == [f'tcp://[::1]:{host.first_port}']
    assert client().call({}, 'who')['pid'] == program.pid


@pytest.mark.spec('LI-01')
def test_nothing_is_left_when_a_server_stops(host, client, registry):
    program = host.start()
    client().call({}, 'who')
    program.stop()
    assert program.wait_for('stopped')['threads'] == []
    assert not list(registry.iterdir())
    for directory in host._directories:
        assert not list(pathlib.Path(directory).rglob('*.ipc'))


@pytest.mark.spec('LI-01')
@pytest.mark.spec('LC-03')
def test_forked_child_listens_on_a_port_of_its_own(
    host, transport, client, registry, topic
):
    class Endpoint:
        def who(self, ctxt):
            return os.getpid()

    def serve(transport, name):
        server = oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic=topic, server=name),
            [Endpoint()],
            executor='threading',
        )
        server.start()
        return server

    one = transport()
    server = serve(one, 'parent')
    child = os.fork()
    if child == 0:
        serve(one, 'child')
        time.sleep(HANG)
        os._exit(1)
    try:
        found = waiting.until(
            lambda: (
                len(spanning.endpoints(registry)) == 2
                and spanning.endpoints(registry)
            ),
            'the child',
            HANG,
        )
        assert found == [
            f'tcp://127.0.0.1:{host.first_port + n}' for n in range(2)
        ]
        caller = client()
        for name, pid in (('parent', os.getpid()), ('child', child)):
            assert caller.prepare(server=name).call({}, 'who') == pid
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        server.stop()
        server.wait()
