# SPDX-License-Identifier: Apache-2.0
"""Processes that find each other by a file."""

import json

import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import waiting


class Ring:
    def __init__(self, path, topic):
        self.path = path
        self._topic = topic

    def write(self, **listeners):
        """Let the topic have these servers, by name and port."""
        entries = [
            {'host': '127.0.0.1', 'port': port, 'server': name}
            for name, places in listeners.items()
            for port in places
        ]
        new = self.path.with_suffix('.new')
        new.write_text(json.dumps({self._topic: entries}))
        new.replace(self.path)


@pytest.fixture
def ring(tmp_path, topic):
    return Ring(tmp_path / 'ring.json', topic)


@pytest.fixture
def url(ring, ipc_dir):
    return (
        f'zmq+ring://{ring.path}?rpc_zmq_ipc_dir={ipc_dir}'
        f'&rpc_zmq_bind_address=127.0.0.1'
    )


@pytest.mark.spec('RG-01', 'RG-02', 'RG-03')
def test_servers_listen_where_the_file_says(ring, server, client):
    first = ports.free(3)
    ring.write(one=[first, first + 1], two=[first + 2])
    programs = [server('one'), server('one'), server('two')]
    found = {client().call({}, 'who')['pid'] for _ in range(12)}
    assert found == {program.pid for program in programs}
    only_two = client(target={'server': 'two'})
    assert only_two.call({}, 'who')['server'] == 'two'


@pytest.mark.spec('RG-03')
def test_more_processes_than_the_file_has_ports(ring, server, client):
    ring.write(one=[ports.free()])
    server('one')
    late = server('one', wait=False)
    waiting.until(lambda: 'none is free' in late.errors(), 'an error', 30)
    assert client().call({}, 'who')['server'] == 'one'


@pytest.mark.spec('RG-05')
def test_a_server_that_is_added_is_found(ring, server, client):
    first = ports.free(2)
    ring.write(one=[first])
    server('one')
    caller = client()
    caller.call({}, 'who')
    ring.write(one=[first], two=[first + 1])
    server('two')
    waiting.until(
        lambda: caller.call({}, 'who')['server'] == 'two', 'the other', 30
    )
    ring.write(two=[first + 1])
    waiting.until(
        lambda: all(
            caller.call({}, 'who')['server'] == 'two' for _ in range(4)
        ),
        'the other alone',
        30,
    )


@pytest.mark.spec('RG-01')
def test_a_server_that_does_not_run_is_passed_over(ring, server, client):
    first = ports.free(2)
    ring.write(one=[first], gone=[first + 1])
    server('one')
    caller = client()
    assert {caller.call({}, 'who')['server'] for _ in range(8)} == {'one'}


@pytest.mark.spec('RG-07')
def test_without_a_file(client):
    caller = client(timeout=1)
    with pytest.raises(oslo_messaging.MessagingTimeout, match='ring'):
        caller.call({}, 'who')
