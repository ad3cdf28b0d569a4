# SPDX-License-Identifier: Apache-2.0
"""Processes that fork round a transport."""

from concurrent import futures
import json
import os
import signal
import time

import oslo_messaging
import pytest

from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds that a family of processes may take, on a machine that is busy.
FAMILY_TIMEOUT = 90


#: For connections that nothing but their end ends.
PATIENT = '&heartbeat_interval=60&heartbeat_timeout=60&connect_timeout=60'


@pytest.fixture
def family(url, topic):
    """Give a factory of forking programs, ended after the test."""
    started = []

    def start(*arguments, url=url):
        program = process.Program(
            'forks', '--url', url, '--topic', topic, *arguments
        )
        started.append(program)
        program.start(wait=False)
        program.wait_for('ready', FAMILY_TIMEOUT)
        return program

    yield start
    for program in started:
        program.close()


@pytest.fixture
def nobody(client):
    """Give a function that tells whether a server is registered no more.

    Each look is that of a new client, which knows nothing from before.
    """

    def look(name):
        options = oslo_messaging.TransportOptions(at_least_once=True)
        one = client(target={'server': name}, transport_options=options)
        try:
            one.call({}, 'who')
        except oslo_messaging.MessageUndeliverable:
            return True
        return False

    return look


def wrong(program):
    return [line for line in program.all('wrong') if line['wrong']]


def speakers(program):
    return {line['by'] for line in program.all('wrong')}


def statuses(program):
    return [s for line in program.all('statuses') for s in line['statuses']]


@pytest.mark.slow
@pytest.mark.spec('LC-03')
@pytest.mark.parametrize('used', ['used', 'unused'])
def test_children_and_parent_all_serve_and_call(family, client, used):
    program = family('siblings', used)
    assert not wrong(program)
    assert speakers(program) >= {'parent', 'child-0', 'child-1'}
    assert statuses(program) == [0, 0]
    one = client(target={'server': 'parent'})
    assert one.call({}, 'who') == ['parent', program.pid]
    program.stop()


@pytest.mark.spec('LC-03')
def test_child_that_forks_again(family):
    program = family('generations')
    assert not wrong(program)
    assert {'child again', 'grandchild'} <= speakers(program)
    assert statuses(program) == [0, 0]
    program.stop()


@pytest.mark.slow
@pytest.mark.spec('LC-03')
def test_fork_while_other_threads_are_in_their_calls(family):
    program = family('storm', 50)
    assert not wrong(program)
    assert statuses(program) == [0] * 50
    assert program.wait_for('made')['made'] > 50
    program.stop()


@pytest.mark.spec('LC-03')
def test_child_that_ends_what_it_inherited_harms_nobody(
    family, client, notifier
):
    program = family('vandal')
    assert program.wait_for('after_cleanup')['after_cleanup'] == 'DriverClosed'
    assert statuses(program) == [0]
    assert not wrong(program)
    for n in range(10):
        assert client().call({}, 'echo', value=n) == n
    notifier().info({}, 'event', 'still there')
    assert program.wait_for('notified')['notified'] == 'still there'
    program.stop()


@pytest.mark.spec('LC-03')
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_processes_of_multiprocessing(family, method):
    program = family('processes', method)
    assert not wrong(program)
    assert {'process-0', 'process-1'} <= speakers(program)
    assert statuses(program) == [0, 0]
    program.stop()


@pytest.mark.spec('LC-04')
@pytest.mark.parametrize('how', ['os._exit', 'sys.exit'])
def test_child_that_ended_is_registered_no_more(family, nobody, how):
    program = family('departure', how)
    assert not wrong(program)
    assert statuses(program) == [0]
    assert nobody('child')
    assert not nobody('parent')
    program.stop()


@pytest.mark.spec('LC-04')
def test_killed_parent_is_registered_no_more_while_its_child_lives(
    family, nobody, notifier
):
    program = family('orphan')
    child = program.wait_for('child')['child']
    try:
        assert not nobody('parent')
        program.kill()
        assert nobody('parent')
        one = notifier('&notification_store=none', retry=0)
        with pytest.raises(errors.DeliveryRefused, match='nobody listens'):
            one.transport._send_notification(
                oslo_messaging.Target(topic=f'{one._topics[0]}.info'),
                {},
                {},
                version=2.0,
                retry=0,
            )
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.fixture
def ring(tmp_path, topic, ipc_dir):
    """Give the URL of a ring, with a port for a server "parent"."""
    path = tmp_path / 'ring.json'
    place = {'host': '127.0.0.1', 'port': ports.free(), 'server': 'parent'}
    path.write_text(json.dumps({topic: [place]}))
    return (
        f'zmq+ring://{path}?rpc_zmq_ipc_dir={ipc_dir}'
        f'&rpc_zmq_bind_address=127.0.0.1'
    )


@pytest.mark.spec('LC-21')
@pytest.mark.parametrize('over', ['url', 'ring'])
def test_call_to_a_killed_parent_ends_at_once_while_its_child_lives(
    family, conf, topic, over, request
):
    url = request.getfixturevalue(over) + PATIENT
    program = family('heir', url=url)
    transport = oslo_messaging.get_rpc_transport(conf, url)
    one = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=60
    )
    with futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(one.call, {}, 'block')
        program.wait_for('blocked')
        program.write('fork')
        child = program.wait_for('child')['child']
        try:
            start = time.monotonic()
            program.kill()
            with pytest.raises(errors.PeerLost):
                call.result()
            assert time.monotonic() - start < 20
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
            transport.cleanup()


@pytest.mark.spec('LC-21')
def test_port_of_a_killed_parent_is_free_while_its_child_lives(
    family, conf, topic, ring
):
    program = family('orphan', url=ring)
    child = program.wait_for('child')['child']
    try:
        program.kill()
        other = family('orphan', url=ring)
        os.kill(other.wait_for('child')['child'], signal.SIGKILL)
        transport = oslo_messaging.get_rpc_transport(conf, ring)
        one = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic=topic), timeout=60
        )
        assert one.call({}, 'who') == ['parent', other.pid]
        transport.cleanup()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.spec('LC-22')
def test_children_that_python_was_not_told_of(family, client):
    program = family('unknowing')
    assert not wrong(program)
    assert {'cleaner', 'user'} <= speakers(program)
    assert statuses(program) == [0, 0]
    one = client(target={'server': 'parent'})
    assert one.call({}, 'who') == ['parent', program.pid]
    program.stop()


@pytest.mark.spec('LC-04')
def test_killed_process_is_registered_no_more(family, nobody, ipc_dir):
    program = family('departure', 'sys.exit')
    program.kill()
    assert nobody('parent')
    # The look removed what the process could not.
    waiting.until(lambda: not list(ipc_dir.iterdir()), 'empty directory')
