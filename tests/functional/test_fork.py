# SPDX-License-Identifier: Apache-2.0
"""Processes that fork round a transport."""

import os
import signal
import time

import oslo_messaging
import pytest

from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds that a family of processes may take, on a machine that is busy.
FAMILY_TIMEOUT = 90


@pytest.fixture
def family(url, topic):
    """Give a factory of forking programs, ended after the test."""
    started = []

    def start(*arguments):
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
        one = notifier(retry=0)
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


@pytest.mark.spec('LC-04')
def test_child_of_a_killed_parent_does_not_hold_up_its_clients(family, client):
    program = family('orphan')
    child = program.wait_for('child')['child']
    try:
        options = oslo_messaging.TransportOptions(at_least_once=True)
        one = client(timeout=60, transport_options=options)
        one.call({}, 'who')
        program.kill()
        start = time.monotonic()
        # The child keeps the endpoint open, and nobody answers there.
        with pytest.raises(
            (oslo_messaging.MessageUndeliverable, errors.PeerLost)
        ):
            one.call({}, 'who')
        assert time.monotonic() - start < 20
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.spec('LC-04')
def test_killed_process_is_registered_no_more(family, nobody, ipc_dir):
    program = family('departure', 'sys.exit')
    program.kill()
    assert nobody('parent')
    # The look removed what the process could not.
    waiting.until(lambda: not list(ipc_dir.iterdir()), 'empty directory')
