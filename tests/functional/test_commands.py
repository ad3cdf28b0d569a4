# SPDX-License-Identifier: Apache-2.0
"""The operators' commands, as processes, against real servers."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import redis_server

#: Seconds after which a command hangs, on a machine that is busy.
HANG = 90


def run(*arguments):
    return subprocess.run(
        [
            *(sys.executable, '-W', 'ignore'),
            *('-m', 'zmq_driver.cmd.main', *arguments),
        ],
        env={**os.environ, 'PYTHONPATH': str(process.ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def table(*arguments):
    """Return the exit status, and what a command shows, as dictionaries."""
    found = run(*arguments, '-f', 'json')
    assert found.stdout, found.stderr
    return found.returncode, json.loads(found.stdout)


@pytest.fixture
def redis():
    server = redis_server.RedisServer(
        'requirepass tops3cret', password='tops3cret'
    )
    yield server.start()
    server.close()


@pytest.fixture(params=['local', 'redis'])
def url(request, ipc_dir):
    """Give both kinds of deployment."""
    query = f'rpc_zmq_ipc_dir={ipc_dir}'
    if request.param == 'local':
        return f'zmq:///?{query}'
    redis = request.getfixturevalue('redis')
    query += f'&rpc_zmq_port={ports.free(10)}&rpc_zmq_port_count=10'
    return f'zmq+redis://:tops3cret@{redis.address}/?{query}'


@pytest.mark.spec('CM-01', 'CM-05', 'CM-08')
def test_list(url, server, topic):
    assert table('targets', 'list', '--url', url) == (0, [])
    programs = {name: server(name) for name in ('one', 'two')}
    server('other', topic='other-topic')
    status, rows = table('targets', 'list', '--url', url, '--topic', topic)
    assert status == 0
    assert {row['Server']: row['PID'] for row in rows} == {
        name: program.pid for name, program in programs.items()
    }
    for row in rows:
        assert (row['Scope'], row['Topic']) == ('rpc', topic)
        assert row['Exchange'] == 'openstack'
        assert row['Endpoints'].startswith('ipc://')
        assert ('tcp://' in row['Endpoints']) is ('redis' in url)
        assert 0 <= row['Age'] < 3600
        assert (row['Expires in'] is None) is ('redis' not in url)
    found = run('targets', 'list', '--url', url, '-f', 'csv')
    assert len(list(csv.DictReader(io.StringIO(found.stdout)))) == 3


@pytest.mark.spec('CM-02', 'CM-05')
def test_check(url, server):
    well, frozen = server('well'), server('frozen')
    status, rows = table('targets', 'check', '--url', url)
    assert status == 0
    assert {row['State'] for row in rows} == {'alive'}
    frozen.freeze()
    status, rows = table('targets', 'check', '--url', url, '--timeout', '0.5')
    frozen.thaw()
    assert status == 1
    states = {row['Server']: row['State'] for row in rows}
    assert states == {'well': 'alive', 'frozen': 'mute'}
    assert not well.all('ran')


@pytest.mark.spec('CM-02')
def test_check_of_a_listener_that_was_killed(redis, server, ipc_dir):
    url = (
        f'zmq+redis://:tops3cret@{redis.address}/?rpc_zmq_ipc_dir={ipc_dir}'
        f'&rpc_zmq_port={ports.free(10)}&rpc_zmq_port_count=10'
    )
    killed = process.Program(
        'server', '--url', url, '--topic', 't', '--server', 'killed'
    ).start()
    killed.kill()
    killed.close()
    status, [row] = table('targets', 'check', '--url', url)
    assert (status, row['State']) == (1, 'dead')
    assert 'nobody listens' in row['Detail']


@pytest.mark.spec('CM-03', 'CM-05')
def test_ping(url, server, topic):
    one, two = server('one'), server('two')
    arguments = ('--url', url, '--interval', '0.01')
    status, rows = table('ping', topic, *arguments, '--count', '3')
    assert status == 0
    assert sorted(row['Server'] for row in rows) == ['one', 'two']
    for row in rows:
        assert (row['Sent'], row['Received'], row['Loss %']) == (3, 3, 0)
        assert 0 < row['Min ms'] <= row['Median ms'] <= row['Max ms']
    two.freeze()
    arguments = (*arguments, '--count', '1', '--timeout', '1')
    status, [row] = table('ping', topic, 'two', *arguments)
    two.thaw()
    assert (status, row['Received'], row['Loss %']) == (1, 0, 100)
    assert row['Last problem'].startswith('mute')
    assert not one.all('ran')


@pytest.mark.spec('CM-03')
def test_ping_of_nobody(url):
    found = run('ping', 'nobody', '--url', url)
    assert found.returncode == 1
    assert "nobody is registered for topic 'nobody'" in found.stderr
    assert 'Traceback' not in found.stderr


@pytest.mark.spec('CM-04', 'CM-05', 'CM-08')
def test_doctor(url, server):
    server('one')
    status, rows = table('doctor', '--url', url)
    assert status == 0, rows
    checks = {row['Check'] for row in rows}
    assert {'libraries', 'configuration', 'heartbeats'} <= checks
    assert {'descriptors', 'listeners here'} <= checks
    assert ({'ports', 'host name', 'clock'} <= checks) is ('redis' in url)
    assert 'all 1 answer' in {row['Finding'] for row in rows}
    for row in rows:
        assert (row['Result'] == 'ok') is (row['What to do'] == '')
    assert 'tops3cret' not in json.dumps(rows)
    assert len(table('targets', 'list', '--url', url)[1]) == 1


@pytest.mark.spec('CM-04')
def test_doctor_finds_what_is_wrong(ipc_dir):
    url = (
        f'zmq:///?rpc_zmq_ipc_dir={ipc_dir}&heartbeat_interval=5'
        f'&pool_max_size=1000000'
    )
    status, rows = table('doctor', '--url', url)
    assert status == 0
    warned = {row['Check'] for row in rows if row['Result'] == 'warning'}
    assert {'heartbeats', 'descriptors'} <= warned
    status, rows = table('doctor', '--url', 'zmq:///?linger=-1')
    assert status == 1
    assert "'linger'" in rows[-1]['Finding']
    status, rows = table(
        'doctor', '--url', f'zmq:///?rpc_zmq_ipc_dir={ipc_dir}/no/no'
    )
    assert status == 1
    assert rows[-1]['What to do']


@pytest.mark.spec('CM-07', 'CM-08')
@pytest.mark.parametrize(
    'command', [('targets', 'list'), ('targets', 'check'), ('ping', 't')]
)
def test_matchmaker_that_cannot_be_asked(ipc_dir, command):
    port = ports.free()
    url = (
        f'zmq+redis://u:tops3cret@127.0.0.1:{port}/?rpc_zmq_ipc_dir={ipc_dir}'
    )
    found = run(*command, '--url', url)
    assert found.returncode == 1
    assert f'127.0.0.1:{port}' in found.stderr
    assert 'tops3cret' not in found.stderr + found.stdout
    assert 'Traceback' not in found.stderr


@pytest.mark.spec('CM-04', 'CM-07')
def test_doctor_of_a_matchmaker_that_cannot_be_asked(ipc_dir):
    port = ports.free()
    url = (
        f'zmq+redis://u:tops3cret@127.0.0.1:{port}/?rpc_zmq_ipc_dir={ipc_dir}'
    )
    status, rows = table('doctor', '--url', url)
    assert status == 1
    assert rows[-1]['Result'] == 'error'
    assert 'tops3cret' not in json.dumps(rows)


@pytest.mark.spec('CM-06')
def test_url_of_the_configuration(ipc_dir, server, url, tmp_path):
    server('one')
    path = tmp_path / 'service.conf'
    path.write_text(f'[DEFAULT]\ntransport_url = {url}\n')
    status, rows = table('targets', 'list', '--config-file', str(path))
    assert (status, len(rows)) == (0, 1)
    found = run('targets', 'list', '--url', 'rabbit://u:tops3cret@host/')
    assert found.returncode == 1
    assert "another driver's" in found.stderr
    assert 'tops3cret' not in found.stderr
