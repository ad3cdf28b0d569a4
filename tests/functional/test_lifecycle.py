# SPDX-License-Identifier: Apache-2.0
"""What is opened when, and how it ends."""

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback

from oslo_config import cfg
import oslo_messaging
import pytest
import zmq

from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import errors
from zmq_driver import ipc

#: Seconds after which something hangs, on a machine that is busy.
HANG = 30

#: What a store of notifications keeps.
STORE = {'notifications.sqlite', 'notifications.drain'}


class Endpoint:
    def __init__(self):
        self.entered = threading.Event()
        self.go = threading.Event()

    def echo(self, ctxt, value):
        return value

    def block(self, ctxt):
        self.entered.set()
        self.go.wait(HANG)
        return 'done'


class NotificationEndpoint:
    def __init__(self):
        self.seen = []

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        self.seen.append(payload)


def make_server(transport, topic, endpoint=None):
    return oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=topic, server='here'),
        [endpoint or Endpoint()],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )


def make_listener(transport, topic, endpoint=None):
    return oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(topic=topic)],
        [endpoint or NotificationEndpoint()],
        executor='threading',
    )


def make_client(transport, topic, timeout=10, **kwargs):
    return oslo_messaging.get_rpc_client(
        transport,
        oslo_messaging.Target(topic=topic),
        timeout=timeout,
        **kwargs,
    )


def notify(transport, topic, retry=None):
    """Send as the messaging driver of oslo.messaging does; it may raise."""
    transport._send_notification(
        oslo_messaging.Target(topic=f'{topic}.info'),
        {},
        {
            'event_type': 'e',
            'publisher_id': 'p',
            'payload': 1,
            'priority': 'INFO',
        },
        version=2.0,
        retry=retry,
    )


@pytest.fixture
def served(transport, topic):
    """Give a factory of servers in this process, stopped after the test."""
    started = []

    def start(query='', endpoint=None):
        one = transport(query)
        started.append(make_server(one, topic, endpoint))
        started[-1].start()
        return one, started[-1]

    yield start
    for server in started:
        server.stop()
        server.wait()


@pytest.fixture
def query():
    return ''


@pytest.fixture
def notifications(conf, url, query):
    one = oslo_messaging.get_notification_transport(conf, url + query)
    yield one
    one.cleanup()


class Background(threading.Thread):
    """Runs a function; keeps what it returned or raised."""

    def __init__(self, function, *args, **kwargs):
        super().__init__(daemon=True)
        self.error = None
        self._work = lambda: function(*args, **kwargs)
        self.start()

    def run(self):
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error

    def end(self):
        self.join(HANG)
        assert not self.is_alive()
        return self


@pytest.fixture
def contexts(monkeypatch):
    """Give the list of the zmq contexts that are made."""
    made = []
    original = zmq.Context

    def make(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(zmq, 'Context', make)
    return made


def descriptors():
    found = set()
    for entry in pathlib.Path('/proc/self/fd').iterdir():
        try:
            found.add((entry.name, str(entry.readlink())))
        except FileNotFoundError:
            continue
    return {one for one in found if '/proc/' not in one[1]}


@pytest.mark.spec('LC-01')
@pytest.mark.parametrize('usable', [True, False])
def test_making_a_driver_opens_nothing(conf, url, ipc_dir, contexts, usable):
    if not usable:
        url += '/missing/directory'
    before = descriptors()
    threads = set(threading.enumerate())
    transports = [
        oslo_messaging.get_rpc_transport(conf, url),
        oslo_messaging.get_notification_transport(conf, url),
    ]
    assert descriptors() <= before
    # What another test forgot to clean up may be collected just now, on a
    # thread that the threading module did not start.
    started = set(threading.enumerate()) - threads
    assert all(t.name.startswith('Dummy') for t in started), started
    assert not list(ipc_dir.iterdir())
    assert not contexts
    for one in transports:
        one.cleanup()
    assert not contexts


@pytest.mark.spec('LC-01')
def test_making_a_server_or_client_opens_nothing(
    transport, topic, ipc_dir, contexts
):
    one = transport()
    before = descriptors()
    make_server(one, topic)
    make_client(one, topic)
    assert descriptors() <= before
    assert not list(ipc_dir.iterdir())
    assert not contexts


@pytest.mark.spec('LC-02')
def test_one_context_is_made_on_first_use_by_many_threads(
    served, topic, contexts
):
    one, _ = served()
    client = make_client(one, topic)
    barrier = threading.Barrier(8)

    def call(n):
        barrier.wait(HANG)
        return client.call({}, 'echo', value=n)

    threads = [Background(call, n) for n in range(8)]
    assert [t.end().result for t in threads] == list(range(8))
    assert len(contexts) == 1


@pytest.mark.spec('LC-02')
def test_first_use_by_many_threads_at_once_makes_one_context(
    transport, topic, contexts, monkeypatch
):
    everybody = make_client(transport(), topic).prepare(fanout=True)
    barrier = threading.Barrier(16)
    prepare = ipc.IpcDirectory.prepare

    def prepare_slowly(directory):
        time.sleep(0.1)
        prepare(directory)

    monkeypatch.setattr(ipc.IpcDirectory, 'prepare', prepare_slowly)

    def cast():
        barrier.wait(HANG)
        everybody.cast({}, 'nothing')

    for thread in [Background(cast) for _ in range(16)]:
        assert thread.end().error is None
    assert len(contexts) == 1


@pytest.mark.spec('LC-02')
def test_two_drivers_have_two_contexts(served, transport, topic, contexts):
    served()
    other = make_client(transport(), topic)
    assert len(contexts) == 1
    assert other.call({}, 'echo', value=1) == 1
    assert len(contexts) == 2


@pytest.mark.spec('LC-05')
def test_cleanup_leaves_nothing(conf, url, ipc_dir, topic):
    before = descriptors()
    one = oslo_messaging.get_rpc_transport(conf, url)
    other = oslo_messaging.get_notification_transport(conf, url)
    endpoint = NotificationEndpoint()
    services = [
        make_server(one, topic),
        make_listener(other, topic, endpoint),
    ]
    for service in services:
        service.start()
    assert make_client(one, topic).call({}, 'echo', value=1) == 1
    notify(other, topic)
    waiting.until(lambda: endpoint.seen, 'notification')
    assert list(ipc_dir.iterdir())
    for service in services:
        service.stop()
        service.wait()
    one.cleanup()
    other.cleanup()
    assert {path.name for path in ipc_dir.iterdir()} <= STORE
    assert not [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith('zmq-')
    ]
    # libzmq closes its descriptors on a thread of its own.
    waiting.until(lambda: descriptors() <= before, 'end of descriptors')


@pytest.mark.spec('LC-05')
def test_cleanup_withdraws_the_registration_of_a_running_server(
    served, transport, topic
):
    one, _ = served()
    options = oslo_messaging.TransportOptions(at_least_once=True)
    other = make_client(transport(), topic, transport_options=options)
    assert other.call({}, 'echo', value=1) == 1
    one.cleanup()
    fresh = make_client(transport(), topic, transport_options=options)
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        fresh.call({}, 'echo', value=2)


@pytest.mark.spec('LC-05')
def test_cleanup_twice_and_before_use(transport):
    one = transport()
    one.cleanup()
    one.cleanup()


@pytest.mark.spec('LC-05')
def test_cleanup_from_several_threads(served, topic):
    one, _ = served()
    assert make_client(one, topic).call({}, 'echo', value=1) == 1
    barrier = threading.Barrier(8)

    def cleanup():
        barrier.wait(HANG)
        one.cleanup()

    for thread in [Background(cleanup) for _ in range(8)]:
        assert thread.end().error is None


@pytest.mark.spec('LC-05')
def test_server_can_be_stopped_after_cleanup(conf, url, topic):
    one = oslo_messaging.get_rpc_transport(conf, url)
    server = make_server(one, topic)
    server.start()
    one.cleanup()
    start = time.monotonic()
    server.stop()
    server.wait()
    assert time.monotonic() - start < HANG


@pytest.mark.spec('LC-05')
def test_listener_can_be_stopped_after_cleanup(notifications, topic):
    listener = make_listener(notifications, topic)
    listener.start()
    notifications.cleanup()
    start = time.monotonic()
    listener.stop()
    listener.wait()
    assert time.monotonic() - start < HANG


@pytest.mark.spec('LC-05')
def test_cleanup_ends_or_calms_the_thread_of_a_running_listener(
    notifications, topic
):
    listener = make_listener(notifications, topic)
    listener.start()
    thread = listener.listener._listen_thread
    polled = listener.listener._poll_style_listener
    polls = []
    original = polled.poll

    def poll(*args, **kwargs):
        polls.append(1)
        return original(*args, **kwargs)

    polled.poll = poll
    notifications.cleanup()
    thread.join(0.3)
    try:
        assert len(polls) < 50
    finally:
        listener.stop()
        listener.wait()


@pytest.mark.spec('LC-05')
@pytest.mark.spec('LC-07')
def test_cleanup_does_not_wait_for_ever_for_a_call(server, client):
    program = server()
    one = client('&cleanup_timeout=0.5&linger=0.1', timeout=HANG)
    caller = Background(one.call, {}, 'record', id='slow', delay=20)
    program.wait_for('ran')
    start = time.monotonic()
    one.transport.cleanup()
    took = time.monotonic() - start
    assert 0.5 <= took < 0.5 + 0.1 + 1 + 3
    error = caller.end().error
    assert isinstance(error, oslo_messaging.MessagingException)
    assert error.may_have_run is True
    assert time.monotonic() - start < 10


@pytest.mark.spec('LC-05')
def test_cleanup_lets_a_call_finish(served, topic, transport):
    endpoint = Endpoint()
    served(endpoint=endpoint)
    one = transport(f'&cleanup_timeout={HANG}')
    caller = Background(make_client(one, topic, HANG).call, {}, 'block')
    assert endpoint.entered.wait(HANG)
    cleaner = Background(one.cleanup)
    assert cleaner.is_alive()
    endpoint.go.set()
    assert caller.end().error is None
    assert caller.result == 'done'
    assert cleaner.end().error is None


@pytest.mark.spec('LC-07')
def test_call_that_waits_for_a_server_ends_with_cleanup(client):
    one = client(timeout=HANG)
    caller = Background(one.call, {}, 'who')
    driver = one.transport._driver
    waiting.until(lambda: driver._runtime, 'first use')
    start = time.monotonic()
    one.transport.cleanup()
    error = caller.end().error
    assert isinstance(error, errors.DriverClosed)
    assert error.may_have_run is False
    assert time.monotonic() - start < 10


@pytest.mark.spec('LC-07')
@pytest.mark.parametrize('query', ['&notification_store=none'])
def test_notifier_that_waits_ends_with_cleanup(notifications, topic):
    sender = Background(notify, notifications, topic)
    waiting.until(lambda: notifications._driver._runtime, 'first use')
    notifications.cleanup()
    assert isinstance(sender.end().error, errors.DriverClosed)


@pytest.mark.spec('LC-07')
@pytest.mark.parametrize('query', ['', '&notification_store=none'])
@pytest.mark.parametrize('used', [True, False])
def test_operations_after_cleanup(transport, notifications, topic, used):
    one = transport()
    client = make_client(one, topic)
    if used:
        client.prepare(fanout=True).cast({}, 'nothing')
        with contextlib.suppress(errors.DeliveryRefused):
            notify(notifications, topic, retry=0)
    one.cleanup()
    notifications.cleanup()
    operations = [
        lambda: client.call({}, 'echo', value=1),
        lambda: client.cast({}, 'echo', value=1),
        lambda: client.prepare(fanout=True).cast({}, 'echo', value=1),
        lambda: notify(notifications, topic),
        make_server(one, topic).start,
        make_listener(notifications, topic).start,
    ]
    for operation in operations:
        with pytest.raises(errors.DriverClosed):
            operation()


@pytest.mark.spec('LC-09')
def test_registration_goes_before_the_listener_stops(
    served, transport, topic, monkeypatch
):
    one, server = served()
    client = make_client(transport(), topic, timeout=1)
    matchmaker = one._driver._runtime.matchmaker
    withdrawing, go = threading.Event(), threading.Event()
    original = matchmaker.unregister

    def unregister(registration, deadline):
        withdrawing.set()
        assert go.wait(HANG)
        original(registration, deadline)

    monkeypatch.setattr(matchmaker, 'unregister', unregister)
    stopper = Background(server.stop)
    assert withdrawing.wait(HANG)
    # Whoever was led here in this moment is served.
    assert client.call({}, 'echo', value=1) == 1
    go.set()
    assert stopper.end().error is None
    with pytest.raises(errors.ServerNotFound):
        client.call({}, 'echo', value=2)


# -- the end of a process


@pytest.fixture
def ending(url, topic):
    """Give a factory of programs that end without cleanup."""
    started = []

    def start(how):
        program = process.Program(
            'ending', '--url', url, '--topic', topic, how
        )
        started.append(program)
        return program.start()

    yield start
    for program in started:
        program.close()


@pytest.mark.spec('LC-06')
@pytest.mark.spec('MM-31')
@pytest.mark.parametrize('how', ['return', 'exit'])
def test_process_ends_without_cleanup(ending, ipc_dir, how):
    program = ending(how)
    start = time.monotonic()
    assert program._process.wait(HANG) == 0
    assert time.monotonic() - start < 5
    program._join()
    assert program.errors() == ''
    assert program.all('cast') == [{'cast': True}]
    assert program.all('notified') == [{'notified': True}]
    # Who opens the store next goes on with its log.
    logs = {'notifications.sqlite-shm', 'notifications.sqlite-wal'}
    assert {path.name for path in ipc_dir.iterdir()} <= STORE | logs


@pytest.mark.spec('LC-04')
@pytest.mark.spec('LC-06')
def test_sigterm_ends_a_process(ending, client):
    program = ending('wait')
    options = oslo_messaging.TransportOptions(at_least_once=True)
    assert client().call({}, 'echo', value=1) == 1
    program._process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert program._process.wait(HANG) == -signal.SIGTERM
    assert time.monotonic() - start < 5
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        client(transport_options=options).call({}, 'echo', value=2)


@pytest.mark.spec('LC-06')
@pytest.mark.spec('LC-12')
def test_forgotten_transport_blocks_nobody(url, topic):
    ended = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', '-m', 'tests.programs.ending'),
            *('--url', url, '--topic', topic, 'forsake'),
        ],
        cwd=process.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        # The program gives up by itself.
        timeout=2 * HANG,
    )
    assert '"collected": true' in ended.stdout
    assert (ended.returncode, ended.stderr) == (0, '')


# -- configuration


OLD_NAMES = """
[DEFAULT]
rpc_zmq_ipc_dir = {directory}
rpc_zmq_matchmaker = local
rpc_cast_timeout = 17
rpc_zmq_topic_backlog = 77
rpc_zmq_contexts = 2
"""

READ_GLOBAL = """
import json, sys
from oslo_config import cfg
import oslo_messaging
cfg.CONF(['--config-file', sys.argv[1]])
transport = oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[2])
client = oslo_messaging.get_rpc_client(
    transport, oslo_messaging.Target(topic='t'))
client.prepare(fanout=True).cast({}, 'nothing')
settings = transport._driver._settings
print(json.dumps([settings.rpc_zmq_ipc_dir, settings.rpc_cast_timeout,
    settings.rpc_zmq_topic_backlog, settings.rpc_zmq_contexts]))
transport.cleanup()
"""


@pytest.fixture
def config_file(tmp_path, ipc_dir):
    """Give a factory of configuration files."""

    def write(text):
        path = tmp_path / 'service.conf'
        path.write_text(text.format(directory=ipc_dir / 'zmq'))
        return str(path)

    return write


@pytest.mark.spec('LC-10')
def test_process_with_global_and_one_with_private_configuration(
    server, client
):
    # The server program uses the global object, this process a private one.
    program = server()
    assert client().conf is not cfg.CONF
    assert client().call({}, 'who')['pid'] == program.pid


@pytest.mark.spec('LC-10')
def test_old_names_in_a_file_and_the_global_configuration(
    config_file, ipc_dir
):
    ended = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', '-c', READ_GLOBAL),
            *(config_file(OLD_NAMES), 'zmq:///?rpc_cast_timeout=3.5'),
        ],
        cwd=process.ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert ended.returncode == 0, ended.stderr
    directory = ipc_dir / 'zmq'
    assert json.loads(ended.stdout) == [str(directory), 3.5, 77, 2]
    assert directory.is_dir()


@pytest.mark.spec('LC-10')
def test_old_names_in_a_file_and_a_private_configuration(
    conf, config_file, ipc_dir
):
    conf(['--config-file', config_file(OLD_NAMES)])
    one = oslo_messaging.get_rpc_transport(conf, 'zmq://')
    everybody = make_client(one, 't').prepare(fanout=True)
    everybody.cast({}, 'nothing')
    assert (ipc_dir / 'zmq').is_dir()
    settings = one._driver._settings
    assert settings.rpc_cast_timeout == 17.0
    assert settings.rpc_zmq_topic_backlog == 77
    one.cleanup()


@pytest.mark.spec('LC-10')
def test_query_overrides_the_configuration(conf, config_file, ipc_dir, client):
    conf(['--config-file', config_file(OLD_NAMES)])
    # The fixture's URL names the directory of the test.
    one = client('&rpc_cast_timeout=0.2')
    start = time.monotonic()
    with pytest.raises(errors.DeliveryRefused):
        one.cast({}, 'nothing')
    assert time.monotonic() - start < 10
    assert not (ipc_dir / 'zmq').exists()


@pytest.mark.spec('LC-10')
def test_impossible_value_in_the_configuration(conf, config_file):
    text = '[oslo_messaging_zmq]\nlinger = -1\n'
    conf(['--config-file', config_file(text)])
    with pytest.raises(cfg.ConfigFileValueError, match='linger'):
        oslo_messaging.get_rpc_transport(conf, 'zmq://')


def report(error):
    """Return all that a log could show of an error."""
    lines = traceback.format_exception(error)
    return f'{"".join(lines)} {error!r} {vars(error)}'


@pytest.mark.spec('LC-11')
@pytest.mark.parametrize(
    ('query', 'named'),
    [
        ('nonsense=1', 'nonsense'),
        ('RPC_CAST_TIMEOUT=1', 'RPC_CAST_TIMEOUT'),
        ('linger=-1', 'linger'),
        ('linger=soon', 'soon'),
        ('linger=1&linger=2', 'linger'),
        ('rpc_cast_timeout=0', 'rpc_cast_timeout'),
        ('pool_max_size=0', 'pool_max_size'),
        ('pool_max_size=1.5', 'pool_max_size'),
        ('rpc_zmq_contexts=17', 'rpc_zmq_contexts'),
        ('rpc_zmq_matchmaker=oracle', 'oracle'),
        ('linger=nan', 'linger'),
        ('linger=inf', 'linger'),
    ],
)
def test_mistake_in_the_query(conf, query, named):
    url = f'zmq:///?{query}'
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        oslo_messaging.get_rpc_transport(conf, url)
    assert named in str(caught.value)


@pytest.mark.spec('LC-11')
@pytest.mark.parametrize('query', ['nonsense=1', 'linger=-1'])
def test_mistake_in_the_query_after_a_password(conf, query):
    url = f'zmq://user:sekrit@host/?{query}'
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        oslo_messaging.get_rpc_transport(conf, url)
    assert 'sekrit' not in report(caught.value)


@pytest.mark.spec('LC-11')
def test_unknown_matchmaker(conf):
    url = 'zmq+nonsense://user:sekrit@host:1234/v'
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        oslo_messaging.get_rpc_transport(conf, url)
    assert "'nonsense'; use one of: local" in str(caught.value)
    assert 'zmq+nonsense://host:1234/v' in str(caught.value)
    assert 'sekrit' not in report(caught.value)


@pytest.mark.spec('LC-11')
@pytest.mark.parametrize(
    'url', ['zmq://host:6379/', 'zmq://user:sekrit@host:6379/v']
)
def test_hosts_in_a_url_that_needs_none(conf, url):
    with pytest.raises(oslo_messaging.InvalidTransportURL) as caught:
        oslo_messaging.get_rpc_transport(conf, url)
    assert 'host:6379' in str(caught.value)
    assert 'sekrit' not in report(caught.value)


@pytest.mark.spec('LC-11')
def test_port_that_is_no_number(conf):
    # oslo.messaging parses the URL before it knows whose it is.
    with pytest.raises(ValueError, match='port') as caught:
        oslo_messaging.get_rpc_transport(conf, 'zmq://user:sekrit@h:port/')
    assert 'sekrit' not in str(caught.value)


# -- the directory


def a_file(path):
    path.write_text('')
    return path, 'is not a directory'


def below_a_file(path):
    path.write_text('')
    return path / 'zmq', 'make every component of the path a directory'


def world_writable(path):
    path.mkdir()
    path.chmod(0o777)
    return path, 'chmod o-w'


def without_parent(path):
    return path / 'missing' / 'zmq', 'create its parent directory'


def where_none_can_be_made(path):
    return pathlib.Path('/proc/zmq-driver'), 'rpc_zmq_ipc_dir'


UNUSABLE = [
    a_file,
    below_a_file,
    world_writable,
    without_parent,
    where_none_can_be_made,
]


@pytest.mark.spec('LC-01')
@pytest.mark.spec('MM-16')
@pytest.mark.parametrize('spoil', UNUSABLE)
def test_unusable_directory_is_explained_to_every_user(
    conf, ipc_dir, topic, spoil
):
    path, fix = spoil(ipc_dir / 'zmq')
    url = f'zmq:///?rpc_zmq_ipc_dir={path}'
    one = oslo_messaging.get_rpc_transport(conf, url)
    other = oslo_messaging.get_notification_transport(conf, url)
    client = make_client(one, topic, timeout=HANG)
    operations = [
        lambda: client.call({}, 'who'),
        lambda: client.cast({}, 'who'),
        lambda: client.prepare(fanout=True).cast({}, 'who'),
        lambda: notify(other, topic),
        make_server(one, topic).start,
        make_listener(other, topic).start,
    ]
    start = time.monotonic()
    for operation in operations:
        with pytest.raises(errors.IpcDirectoryUnusable) as caught:
            operation()
        assert str(path) in str(caught.value)
        assert fix in str(caught.value)
        assert caught.value.may_have_run is False
    assert time.monotonic() - start < HANG / 2
    one.cleanup()
    other.cleanup()


@pytest.mark.spec('MM-17')
def test_too_long_directory_is_explained_to_the_server(conf, ipc_dir, topic):
    path = ipc_dir / ('x' * 100)
    one = oslo_messaging.get_rpc_transport(
        conf, f'zmq:///?rpc_zmq_ipc_dir={path}'
    )
    try:
        with pytest.raises(oslo_messaging.MessagingException) as caught:
            make_server(one, topic).start()
    finally:
        one.cleanup()
    assert str(path) in str(caught.value)
    assert 'shorter' in str(caught.value)


@pytest.mark.spec('LC-01')
def test_directory_that_was_repaired_is_used(conf, ipc_dir, topic):
    path, _ = world_writable(ipc_dir / 'zmq')
    one = oslo_messaging.get_rpc_transport(
        conf, f'zmq:///?rpc_zmq_ipc_dir={path}'
    )
    server = make_server(one, topic)
    client = make_client(one, topic)
    with pytest.raises(errors.IpcDirectoryUnusable):
        client.call({}, 'echo', value=1)
    path.chmod(0o700)
    server.start()
    assert client.call({}, 'echo', value=1) == 1
    server.stop()
    server.wait()
    one.cleanup()


@pytest.mark.spec('LC-05')
def test_cleanup_does_not_wait_for_a_callback_that_blocks(conf, url, topic):
    entered, go_on = threading.Event(), threading.Event()

    def block(incoming):
        entered.set()
        go_on.wait(60)

    serving = oslo_messaging.get_rpc_transport(
        conf, f'{url}&cleanup_timeout=0.5&linger=0'
    )
    for n in range(3):
        target = oslo_messaging.Target(topic=topic, server=f's{n}')
        serving._driver.listen(target, 1, None).start(block)
    calling = oslo_messaging.get_rpc_transport(conf, url)
    client = make_client(calling, topic, timeout=60, retry=0)

    def call():
        with contextlib.suppress(oslo_messaging.MessagingException):
            client.call({}, 'anything')

    caller = threading.Thread(target=call)
    caller.start()
    assert entered.wait(30)
    start = time.monotonic()
    serving.cleanup()
    took = time.monotonic() - start
    go_on.set()
    caller.join(30)
    calling.cleanup()
    assert not caller.is_alive()
    # cleanup_timeout, linger and a second; the rest is for a busy machine.
    assert took < 5
