# SPDX-License-Identifier: Apache-2.0
"""Faults that drivers before this one had, where no other test is near."""

import collections
import json
import logging
import pathlib
import subprocess
import sys
import threading
import time

from oslo_config import cfg
import oslo_messaging
import pytest

from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds after which something hangs, on a machine that is busy.
HANG = 60

#: Part of everything that a message carries in a test of the log.
SECRET = 'hunter2'


class Unusual(Exception):
    """Has an argument that JSON cannot carry."""


class Endpoint:
    def __init__(self, name):
        self.seen = []
        self._name = name

    def who(self, ctxt):
        return self._name

    def echo(self, ctxt, value):
        self.seen.append(value)
        return value

    def fail(self, ctxt, value):
        raise Unusual(value, object())

    def unserializable(self, ctxt, value):
        return {'deep': [value, object()]}


@pytest.fixture
def serve():
    """Give a factory of servers in this process, stopped after the test."""
    started = []

    def start(transport, topic, name):
        endpoint = Endpoint(name)
        server = oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic=topic, server=name),
            [endpoint],
            executor='threading',
            access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        )
        server.start()
        started.append(server)
        return endpoint

    yield start
    for server in started:
        server.stop()
        server.wait()


@pytest.fixture
def casting(url, topic):
    """Give a factory of processes that cast and end without cleanup."""
    started = []

    def start(how, *arguments):
        program = process.Program(
            'casting', '--url', url, '--topic', topic, *arguments, how
        )
        started.append(program)
        return program.start()

    yield start
    for program in started:
        program.close()


# -- the end of a process


@pytest.mark.spec('DL-20')
@pytest.mark.spec('DL-22')
@pytest.mark.parametrize('how', ['return', 'exit', '_exit', 'kill'])
def test_accepted_casts_survive_the_process_that_sent_them(
    server, casting, how
):
    programs = [server(f's{n}') for n in range(2)]
    program = casting(how)
    program._process.wait(HANG)
    expected = {f'cast-{t}-{n}': 1 for t in range(4) for n in range(50)}
    expected |= {f'fanout-{t}': len(programs) for t in range(4)}
    expected['last'] = 1

    def ran():
        return collections.Counter(
            line['ran'] for one in programs for line in one.all('ran')
        )

    waiting.until(lambda: ran() == expected, 'executions', HANG)


# -- whom a message reaches


@pytest.mark.spec('DL-07')
@pytest.mark.spec('DL-20')
def test_a_cast_runs_at_one_server(server, client):
    programs = [server(f's{n}') for n in range(3)]
    one = client()
    for n in range(30):
        one.cast({}, 'record', id=n)

    def ran():
        return [line['ran'] for p in programs for line in p.all('ran')]

    waiting.until(lambda: set(ran()) == set(range(30)), 'executions')
    # What was sent to a server before is executed before this.
    for n in range(3):
        one.prepare(server=f's{n}').call({}, 'who')
    assert sorted(ran()) == list(range(30))
    assert [len(p.all('ran')) for p in programs] == [10, 10, 10]


@pytest.mark.spec('DL-08')
@pytest.mark.spec('DL-09')
@pytest.mark.spec('DL-22')
def test_servers_of_one_transport_are_apart(transport, serve, topic):
    # A topic that begins like another, that is long, that is not ASCII.
    topics = [topic, f'{topic}_x', f'{topic}.a/b', topic * 20, f'{topic}-ä✓']
    shared = transport()
    endpoints = {
        (t, name): serve(shared, t, name)
        for t in topics
        for name in ('one@lvm', 'one@ceph')
    }
    sender = transport()
    for t in topics:
        client = oslo_messaging.get_rpc_client(
            sender, oslo_messaging.Target(topic=t), timeout=HANG
        )
        for name in ('one@lvm', 'one@ceph'):
            to_one = client.prepare(server=name)
            assert to_one.call({}, 'who') == name
            to_one.call({}, 'echo', value=name)
        client.prepare(fanout=True).cast({}, 'echo', value=t)
    waiting.until(
        lambda: all(len(e.seen) == 2 for e in endpoints.values()), 'copies'
    )
    for (t, name), endpoint in endpoints.items():
        assert sorted(endpoint.seen) == sorted([name, t])


def test_a_call_to_nobody_holds_up_no_other(server, client):
    server()
    one = client(timeout=HANG)
    one.call({}, 'who')
    enough = threading.Event()

    def call_nobody():
        nobody = one.prepare(topic='nobody', timeout=0.5)
        while not enough.is_set():
            with pytest.raises(errors.ServerNotFound):
                nobody.call({}, 'who')

    callers = [threading.Thread(target=call_nobody) for _ in range(8)]
    for caller in callers:
        caller.start()
    # One that was held up each time would take 50 s.
    start = time.monotonic()
    for n in range(100):
        assert one.call({}, 'echo', value=n) == n
    assert time.monotonic() - start < 20
    enough.set()
    for caller in callers:
        caller.join(HANG)
        assert not caller.is_alive()


# -- the log


@pytest.fixture
def all_logged(caplog):
    """Log everything that the driver can tell."""
    logger = logging.getLogger('zmq_driver')
    before = logger.level
    logger.setLevel(logging.DEBUG)

    def logged(level=logging.DEBUG):
        formatter = logging.Formatter()
        return [
            formatter.format(record)
            for record in caplog.records
            if record.name.startswith('zmq_driver') and record.levelno >= level
        ]

    yield logged
    logger.setLevel(before)


def test_no_line_of_the_log_holds_what_a_message_says(
    transport, serve, topic, notifier, all_logged
):
    serve(transport(), topic, 'one')
    client = oslo_messaging.get_rpc_client(
        transport('&max_message_size=10000'),
        oslo_messaging.Target(topic=topic),
        timeout=HANG,
    )
    context = {'auth_token': SECRET}
    assert client.call(context, 'echo', value=SECRET) == SECRET
    client.cast(context, 'echo', value=SECRET)
    client.prepare(fanout=True).cast(context, 'echo', value=SECRET)
    for method in ('fail', 'unserializable', 'no-such-method'):
        with pytest.raises(oslo_messaging.RemoteError):
            client.call(context, method, value=SECRET)
    with pytest.raises(errors.MessageTooLarge) as too_large:
        client.call(context, 'echo', value=SECRET * 2000)
    with pytest.raises(ValueError, match='value') as unserializable:
        client.call(context, 'echo', value=[SECRET, object()])
    with pytest.raises(errors.ServerNotFound) as nobody:
        client.prepare(server='nobody', timeout=0.1).call(
            context, 'echo', value=SECRET
        )
    notifier('&notify_timeout=0.1').info(context, SECRET, {'password': SECRET})
    for caught in (too_large, unserializable, nobody):
        assert SECRET not in str(caught.value)
    lines = all_logged()
    assert any('cannot be sent' in line for line in lines)
    assert not [line for line in lines if SECRET in line]


def test_a_message_is_not_worth_a_line(
    transport, serve, topic, notifier, all_logged
):
    serve(transport(), topic, 'one')
    client = oslo_messaging.get_rpc_client(
        transport(), oslo_messaging.Target(topic=topic), timeout=HANG
    )
    for n in range(50):
        assert client.call({}, 'echo', value=n) == n
        client.cast({}, 'echo', value=n)
    client.prepare(fanout=True).cast({}, 'echo', value=50)
    # Nor at DEBUG: formatting a line would cost more than the message.
    assert len(all_logged()) < 50
    assert not all_logged(logging.INFO)


# -- processor time


def _seconds_of(pid):
    """Return the seconds of processor time that a process has used."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
    return sum(map(int, fields.split()[11:13])) / 100


@pytest.mark.slow
def test_waiting_is_not_working(server, client):
    program = server()
    one = client(timeout=HANG)
    one.call({}, 'who')
    spent = _seconds_of(program.pid), time.process_time()
    start = time.monotonic()
    one.call({}, 'echo', value=1, delay=2.0)
    with pytest.raises(errors.ServerNotFound):
        one.prepare(server='nobody', timeout=2.0).call({}, 'who')
    elapsed = time.monotonic() - start
    assert _seconds_of(program.pid) - spent[0] < 0.2 * elapsed
    assert time.process_time() - spent[1] < 0.2 * elapsed


# -- what else is installed and configured


WITHOUT_REDIS = """
import json, sys
sys.modules['redis'] = None
from oslo_config import cfg
import oslo_messaging
cfg.CONF([], project='zmq-driver-tests')
transport = oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1])
client = oslo_messaging.get_rpc_client(
    transport, oslo_messaging.Target(topic='t'))
client.prepare(fanout=True).cast({}, 'nothing')
transport.cleanup()
try:
    oslo_messaging.get_rpc_transport(cfg.CONF, 'zmq+redis://127.0.0.1/')
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def test_redis_is_needed_by_who_asks_for_it_only(ipc_dir):
    ended = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', '-c', WITHOUT_REDIS),
            f'zmq:///?rpc_zmq_ipc_dir={ipc_dir}',
        ],
        cwd=process.ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout, 'made a transport that needs redis'
    _, text = json.loads(ended.stdout)
    assert 'redis' in text


@pytest.mark.spec('LC-10')
def test_options_of_other_components_are_not_needed(url, topic):
    conf = cfg.ConfigOpts()
    conf([], project='zmq-driver-tests')
    transport = oslo_messaging.get_notification_transport(conf, url)
    driver = transport._driver
    target = oslo_messaging.Target(topic=f'{topic}.info', exchange='e')
    # Nobody listens: it is stored.
    driver.send_notification(target, {}, {'n': 1}, 2.0, retry=0)
    driver.send(target(topic=topic, fanout=True), {}, {'method': 'm'})
    with pytest.raises(errors.DeliveryRefused):
        driver.send(
            target(topic=topic), {}, {'method': 'm'}, True, 1.5, retry=0
        )
    transport.cleanup()
