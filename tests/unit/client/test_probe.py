# SPDX-License-Identifier: Apache-2.0
"""What a probe concludes from what happens to it."""

import pytest

from zmq_driver import address
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import probe

WHERE = address.Address(address.Scope.NOTIFICATION, 'exchange', 'topic.info')
ROUTE = address.Route('ipc:///nowhere/x.ipc', b'i' * 16, 'server')
REGISTRATION = address.Registration(WHERE, ROUTE)

Condition = probe.Condition


class Socket:
    """What stands for a PeerSocket."""

    def __init__(self, answers=(), connects=True, stands=True):
        self.answers = list(answers)
        self.connects = connects
        self.stands = stands
        self.sent = []
        self.closed = 0

    def hand_over(self, owner):
        pass

    def wait_connected(self, timeout):
        if isinstance(self.connects, Exception):
            raise self.connects
        return self.connects

    def connected(self):
        return self.stands

    def send(self, frames):
        if not self.stands:
            raise errors.PeerNotReady('it is gone')
        self.sent.append(envelope.decode(frames))

    def receive(self, timeout):
        if not self.answers:
            return None
        return self.answers.pop(0)(self.sent[-1].header.message_id)

    def close(self):
        self.closed += 1


def ack(message_id):
    return [envelope.encode_ack(message_id), b'']


def nack(message_id):
    reason = envelope.NackReason.UNKNOWN_TARGET
    return [envelope.encode_nack(message_id, reason), b'']


def late(message_id):
    return ack(bytes(16))


def garbage(message_id):
    return [b'HTTP/1.1 400 Bad Request']


def reply(message_id):
    return [envelope.encode_reply(message_id), b'1']


def ask(socket, timeout=0.05):
    opened = []

    def open_socket(endpoint):
        opened.append(endpoint)
        return socket

    prober = probe.Prober(open_socket, REGISTRATION)
    finding = prober.probe(timeout)
    prober.close()
    assert opened == [ROUTE.endpoint]
    assert socket.closed == 1
    return finding


@pytest.mark.spec('CM-02', 'WP-24')
def test_it_asks_for_the_listener_and_nothing_else():
    socket = Socket([ack])
    finding = ask(socket)
    assert finding.condition is Condition.ALIVE
    assert 0 < finding.seconds < 30
    [message] = socket.sent
    assert message.body == b''
    header = message.header
    assert (header.exchange, header.topic) == ('exchange', 'topic.info')
    assert (header.server, header.incarnation) == ('server', b'i' * 16)
    assert header.flags == envelope.WANT_ACK | envelope.NOTIFICATION


@pytest.mark.spec('CM-02')
@pytest.mark.parametrize(
    ('socket', 'condition', 'detail'),
    [
        (Socket([late, ack]), Condition.ALIVE, ''),
        (Socket([nack]), Condition.WRONG, 'it refuses: UNKNOWN_TARGET'),
        (Socket([garbage]), Condition.WRONG, 'it answers: '),
        (Socket([reply]), Condition.WRONG, 'it answers REPLY'),
        (Socket(), Condition.MUTE, 'no answer in 0.05 s'),
        (Socket(stands=False), Condition.DEAD, 'it is gone'),
        (Socket(connects=False), Condition.DEAD, 'no connection in 0.05 s'),
        (
            Socket(connects=errors.PeerNotReady('refused')),
            Condition.DEAD,
            'refused',
        ),
    ],
)
def test_conclusions(socket, condition, detail):
    finding = ask(socket)
    assert finding.condition is condition
    assert finding.detail.startswith(detail)
    answered = condition in (Condition.ALIVE, Condition.WRONG)
    assert (finding.seconds is not None) is answered


@pytest.mark.spec('CM-02')
def test_connection_that_goes_after_the_question():
    socket = Socket()

    def receive(timeout):
        socket.stands = False

    socket.receive = receive
    finding = ask(socket)
    assert finding.condition is Condition.DEAD
    assert 'gone' in finding.detail


@pytest.mark.spec('CM-03')
def test_one_connection_serves_many_probes():
    socket = Socket([ack, ack])
    opened = []
    prober = probe.Prober(
        lambda endpoint: opened.append(endpoint) or socket, REGISTRATION
    )
    assert prober.probe(1).condition is Condition.ALIVE
    assert prober.probe(1).condition is Condition.ALIVE
    assert len(opened) == 1
    assert prober.probe(0.01).condition is Condition.MUTE
    assert socket.closed == 1
    socket.answers = [ack]
    assert prober.probe(1).condition is Condition.ALIVE
    assert len(opened) == 2
