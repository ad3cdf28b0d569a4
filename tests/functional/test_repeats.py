# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for a stopped process, or are sent twice."""

import json
import pathlib
import time

import oslo_messaging
import pytest
import zmq

from tests.fixtures import waiting
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope

#: Seconds after which something that must end is taken for hung.
HANG = 30
STALLED = envelope.NackReason.STALLED
Kind = envelope.Kind


class Sender:
    """Sends what a test wants, over raw connections.

    A sender of the driver would not send twice, and would see at once that
    its server was stopped.
    """

    def __init__(self, route, topic):
        self._route = route
        self._topic = topic
        self._context = zmq.Context()
        self._sockets = []

    def connect(self):
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        socket.connect(self._route.endpoint)
        self._sockets.append(socket)
        return socket

    def send(self, socket, number, method, flags=0, ttl=60.0, **args):
        header = envelope.encode_request(
            b'maker---' + number.to_bytes(8, 'big'),
            'openstack',
            self._topic,
            self._route.server,
            self._route.incarnation,
            ttl,
            flags=flags or envelope.WANT_REPLY,
        )
        content = [{}, {'method': method, 'args': args, 'version': '1.5'}]
        socket.send_multipart([header, json.dumps(content).encode()])

    def close(self):
        for socket in self._sockets:
            socket.close(0)
        self._context.term()


def answer(socket):
    assert socket.poll(HANG * 1000), 'no answer'
    return envelope.decode(socket.recv_multipart())


def is_stopped(program):
    """Return whether the signal has reached every thread."""
    tasks = pathlib.Path(f'/proc/{program.pid}/task').glob('*/stat')
    return all(
        task.read_text().rpartition(')')[2].split()[0] == 'T' for task in tasks
    )


def runs(program):
    return [line['ran'] for line in program.all('ran')]


@pytest.fixture
def sender(client, topic):
    """Give a factory of senders to a server that has been started."""
    made = []

    def make(server):
        one = client()
        one.prepare(server=server).call({}, 'who')
        runtime = one.transport._driver._runtime
        [route] = runtime.matchmaker.lookup(
            address.Address(address.Scope.RPC, 'openstack', topic),
            clock.Deadline(HANG),
        ).routes
        made.append(Sender(route, topic))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.spec('DL-53')
def test_nothing_runs_whose_sender_gave_up(server, sender):
    program = server('server')
    raw = sender('server')
    connections = [raw.connect() for _ in range(6)]
    for socket in connections:
        raw.send(socket, 0, 'who')
        assert answer(socket).header.kind is Kind.REPLY
    program.freeze()
    waiting.until(lambda: is_stopped(program), 'stop')
    frozen_at = time.monotonic()
    for number, socket in enumerate(connections, 1):
        for copy in range(20):
            raw.send(socket, 100 * number + copy, 'record', id=number)
    gone, waits = connections[:3], connections[3:]
    # What was handed to the kernel stays there when its sender goes.
    time.sleep(0.5)
    for socket in gone:
        socket.close()
    waiting.until(lambda: time.monotonic() > frozen_at + 3, 'time', HANG)
    program.thaw()
    for number, socket in enumerate(waits, 4):
        for _ in range(20):
            assert answer(socket).header.reason == STALLED
        raw.send(socket, 100 * number, 'record', id=number)
        assert answer(socket).header.kind is Kind.REPLY
    assert sorted(runs(program)) == [4, 5, 6]
    assert 'did not run for' in waiting.until(program.errors, 'log')


@pytest.mark.spec('DL-50')
def test_call_that_is_resent_runs_once(server, sender):
    program = server('server')
    raw = sender('server')
    old, new = raw.connect(), raw.connect()
    raw.send(old, 1, 'record', id=1, delay=1.0)
    program.wait_for('ran')
    old.close()
    resent = envelope.WANT_REPLY | envelope.RESENT
    for _ in range(2):
        raw.send(new, 1, 'record', resent, id=1)
        assert answer(new).body == b'1'
    assert runs(program) == [1]


@pytest.mark.spec('DL-55')
def test_call_that_waits_for_the_executor_expires(server, client, sender):
    program = server('server', '--executor-threads', 1)
    raw = sender('server')
    busy, waits = raw.connect(), raw.connect()
    raw.send(busy, 1, 'record', id='busy', delay=1.5)
    program.wait_for('ran')
    raw.send(waits, 2, 'record', ttl=0.5, id='call')
    raw.send(waits, 3, 'record', envelope.WANT_ACK, ttl=0.5, id='cast')
    assert answer(waits).header.kind is Kind.ACK
    refused = answer(waits).header
    assert refused.reason == envelope.NackReason.EXPIRED
    waiting.until(lambda: runs(program) == ['busy', 'cast'], 'cast')
    assert 'Traceback' not in program.errors()
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client().prepare(timeout=0.5).call({}, 'echo', value=1, delay=2)
