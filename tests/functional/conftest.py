# SPDX-License-Identifier: Apache-2.0
"""Transports, servers and directories that end with the test."""

import contextlib
import pathlib
import shutil
import tempfile
import uuid

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import conffixture
import pytest

from tests.fixtures import process
from tests.fixtures import redis_server


@pytest.fixture
def ipc_dir():
    # A short path: the names of ipc sockets have at most 107 bytes.
    path = pathlib.Path(tempfile.mkdtemp(prefix='zd'))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope='session')
def deployment(request):
    """Give the URL of what ``--matchmaker`` names, without a query."""
    with contextlib.ExitStack() as stack:
        match request.config.getoption('--matchmaker'):
            case 'redis':
                server = redis_server.RedisServer()
                stack.callback(server.close)
                yield f'zmq+redis://{server.start().address}/'
            case 'sentinel':
                servers = redis_server.SentinelDeployment()
                stack.callback(servers.close)
                yield f'zmq+sentinel://{servers.start().hosts}/mymaster'
            case _:
                yield 'zmq:///'


@pytest.fixture
def url(ipc_dir, deployment):
    url = f'{deployment}?rpc_zmq_ipc_dir={ipc_dir}'
    if deployment != 'zmq:///':
        # Tests do not see what others leave behind.
        url += f'&redis_key_prefix={uuid.uuid4().hex}:'
        url += '&rpc_zmq_bind_address=127.0.0.1'
    return url


@pytest.fixture
def conf():
    """Give a private configuration object."""
    conf = cfg.ConfigOpts()
    fixture = conffixture.ConfFixture(conf)
    fixture.setUp()
    conf([], project='zmq-driver-tests')
    yield conf
    fixture.cleanUp()


@pytest.fixture
def topic():
    return f'topic-{uuid.uuid4().hex[:8]}'


@pytest.fixture
def transport(conf, url):
    """Give a factory of RPC transports, cleaned up after the test."""
    made = []

    def make(query='', **kwargs):
        made.append(
            oslo_messaging.get_rpc_transport(conf, url + query, **kwargs)
        )
        return made[-1]

    yield make
    for one in made:
        one.cleanup()


@pytest.fixture
def client(transport, topic):
    """Give a factory of RPC clients."""

    def make(query='', timeout=10, allowed_remote_exmods=None, **kwargs):
        target = oslo_messaging.Target(topic=topic, **kwargs.pop('target', {}))
        return oslo_messaging.get_rpc_client(
            transport(query, allowed_remote_exmods=allowed_remote_exmods),
            target,
            timeout=timeout,
            **kwargs,
        )

    return make


@pytest.fixture
def notifier(conf, url, topic):
    """Give a factory of notifiers, cleaned up after the test."""
    made = []

    def make(query='', retry=None, driver='messagingv2'):
        made.append(
            oslo_messaging.get_notification_transport(conf, url + query)
        )
        return oslo_messaging.Notifier(
            made[-1],
            publisher_id='tests',
            driver=driver,
            topics=[topic],
            retry=retry,
        )

    yield make
    for one in made:
        one.cleanup()


@pytest.fixture
def server(url, topic):
    """Give a factory of server processes, ended after the test."""
    started = []

    def start(name='server', *arguments, query='', topic=topic, wait=True):
        program = process.Program(
            'server',
            '--url',
            url + query,
            '--topic',
            topic,
            '--server',
            name,
            *arguments,
        )
        started.append(program)
        return program.start(wait)

    yield start
    for program in started:
        program.close()
