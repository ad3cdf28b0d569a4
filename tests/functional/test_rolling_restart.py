# SPDX-License-Identifier: Apache-2.0
"""Services that are restarted one process after the other, under load."""

import collections
import contextlib
import itertools
import threading
import uuid

import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import redis_server
from tests.fixtures import waiting

#: Seconds after which something that must end is taken for hung.
HANG = 60


@pytest.fixture(scope='module')
def redis():
    with contextlib.closing(redis_server.RedisServer()) as server:
        yield server.start()


@pytest.fixture(params=['ipc', 'tcp'])
def url(request, ipc_dir):
    """Give the URL of a deployment over ipc, or over TCP."""
    if request.param == 'ipc':
        return f'zmq:///?rpc_zmq_ipc_dir={ipc_dir}'
    address = request.getfixturevalue('redis').address
    first = ports.free(20)
    return (
        f'zmq+redis://{address}/?redis_key_prefix={uuid.uuid4().hex}:'
        f'&rpc_zmq_bind_address=127.0.0.1&rpc_zmq_host=127.0.0.1'
        f'&rpc_zmq_port={first}&rpc_zmq_port_count=20'
    )


@pytest.fixture
def apart(url, ipc_dir):
    """Give what a process adds to the URL so that others use TCP to it."""
    if url.startswith('zmq:///'):
        return lambda: ''
    numbers = itertools.count()

    def own_directory():
        path = ipc_dir / str(next(numbers))
        path.mkdir(mode=0o700)
        return f'&rpc_zmq_ipc_dir={path}'

    return own_directory


class Load:
    """Threads that send all the time, and what became of it."""

    def __init__(self, client, notifications, topic):
        self.answered = []
        self.fanned_out = []
        self.notified = []
        self.failed = []
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=[work], daemon=True)
            for work in [
                *[
                    lambda n, t=t: self._call(client, f'{t}-{n}')
                    for t in range(3)
                ],
                lambda n: self._cast(client, f'cast-{n}'),
                lambda n: self._fan_out(client, f'all-{n}'),
                lambda n: self._notify(notifications, topic, f'note-{n}'),
            ]
        ]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._enough.set()
        for thread in self._threads:
            thread.join(HANG)
            assert not thread.is_alive()
        assert not self.failed, (
            f'{len(self.failed)} of {len(self.answered)}: {self.failed[:5]}'
        )

    def _send(self, work):
        for number in itertools.count():
            if self._enough.is_set():
                return
            try:
                work(number)
            except Exception as error:
                self.failed.append(repr(error))

    def _call(self, client, identity):
        assert client.call({}, 'record', id=identity) == identity
        self.answered.append(identity)

    def _cast(self, client, identity):
        client.cast({}, 'record', id=identity)
        self.answered.append(identity)

    def _fan_out(self, client, identity):
        client.prepare(fanout=True).cast({}, 'record', id=identity)
        self.fanned_out.append(identity)
        self._enough.wait(0.01)

    def _notify(self, transport, topic, identity):
        transport._send_notification(
            oslo_messaging.Target(topic=f'{topic}.info'),
            {},
            {
                'event_type': 'e',
                'publisher_id': 'p',
                'payload': identity,
                'priority': 'INFO',
            },
            version=2.0,
        )
        self.notified.append(identity)


def of(key, programs):
    return [line[key] for program in programs for line in program.all(key)]


def ran_of(programs, fanout):
    """Count the executions of fanouts, or of the others."""
    return collections.Counter(
        one for one in of('ran', programs) if one.startswith('all-') is fanout
    )


@pytest.mark.slow
@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-06')
@pytest.mark.spec('DL-70')
@pytest.mark.spec('LC-09')
@pytest.mark.spec('LC-18')
@pytest.mark.parametrize('how', ['stop', 'terminate'])
def test_rolling_restart_loses_and_repeats_nothing(
    server, transport, conf, url, topic, apart, how
):
    def listener():
        return server('', '--notifications', query=apart())

    servers = [server(f's{n}', query=apart()) for n in range(3)]
    listeners = [listener() for _ in range(2)]
    all_servers, all_listeners = list(servers), list(listeners)
    client = oslo_messaging.get_rpc_client(
        transport(apart()), oslo_messaging.Target(topic=topic), timeout=HANG
    )
    notifications = oslo_messaging.get_notification_transport(
        conf, url + apart()
    )
    load = Load(client, notifications, topic)
    try:
        for turn in range(6):
            getattr(servers.pop(0), how)()
            servers.append(server(f's{turn % 3}', query=apart()))
            all_servers.append(servers[-1])
            if turn % 2:
                getattr(listeners.pop(0), how)()
                listeners.append(listener())
                all_listeners.append(listeners[-1])
            servers[-1].wait_for('ran')
    finally:
        load.end()
        notifications.cleanup()
    waiting.until(
        lambda: (
            len(ran_of(all_servers, False)) >= len(load.answered)
            and len(of('notified', all_listeners)) >= len(load.notified)
        ),
        'records',
    )
    assert ran_of(all_servers, False) == collections.Counter(load.answered)
    assert collections.Counter(of('notified', all_listeners)) == (
        collections.Counter(load.notified)
    )
    assert set(load.fanned_out) == set(ran_of(all_servers, True))
    for program in all_servers:
        assert set(ran_of([program], True).values()) <= {1}
