# SPDX-License-Identifier: Apache-2.0
"""Strangers at the ROUTER, and a stranger that claims to be a server."""

import contextlib
import json
import os
import pathlib
import random
import socket as posix
import threading
import time

import oslo_messaging
import pytest
import zmq

from tests.fixtures import waiting
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import local

ID = bytes(range(16))
BODY = json.dumps([{}, {'method': 'record', 'args': {'id': 'raw'}}]).encode()
EXCHANGE = 'openstack'

#: Seconds that a stranger may stay without finishing its handshake.
HANDSHAKE = 2.0


class Victim:
    """A server, and what an attack did to it."""

    def __init__(self, program, client, ipc_dir, topic):
        self.program = program
        self.client = client
        self.topic = topic
        [path] = ipc_dir.glob('*.ipc')
        self.path = str(path)
        [record] = [
            p for p in ipc_dir.glob('*/*') if not p.name.startswith('.')
        ]
        self.incarnation = bytes.fromhex(record.name.rpartition('-')[2])
        # The first call starts threads and opens connections.
        self._call()
        self._calm = self._figures()

    def request(self, **changes):
        """Return the header of a request that the server takes."""
        fields = {
            'exchange': EXCHANGE,
            'topic': self.topic,
            'server': 'victim',
            'incarnation': self.incarnation,
            'flags': envelope.WANT_ACK,
        }
        return envelope.encode_request(ID, **{**fields, **changes})

    def check(self, ran=()):
        """Fail if the attack did anything but what it should."""
        for _ in range(5):
            self._call()
        waiting.until(self._is_calm, 'calm after the attack', 30)
        found = [line['ran'] for line in self.program.all('ran')]
        assert found == list(ran)
        assert 'Traceback' not in self.program.errors()
        dropped = self.program.errors().count('dropped a message')
        assert dropped <= 3, 'the log is flooded'

    def _call(self):
        value = os.urandom(8).hex()
        assert self.client.call({}, 'echo', value=value) == value

    def _figures(self):
        process = pathlib.Path('/proc', str(self.program.pid))
        return [
            len(list((process / name).iterdir())) for name in ('fd', 'task')
        ]

    def _is_calm(self):
        # Workers of the executor come as they are needed.
        descriptors, threads = self._figures()
        return (
            descriptors <= self._calm[0] + 1 and threads <= self._calm[1] + 8
        )


@pytest.fixture
def victim(server, client, ipc_dir, topic):
    return Victim(server('victim'), client(timeout=10), ipc_dir, topic)


@pytest.fixture
def stranger(victim):
    """Give a raw DEALER that is connected to the victim."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDTIMEO, 10000)
    socket.connect(f'ipc://{victim.path}')
    yield socket
    socket.close()
    context.term()


@contextlib.contextmanager
def raw(victim):
    with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as one:
        one.settimeout(30)
        one.connect(victim.path)
        yield one


def answer(socket, timeout=10.0):
    """Return the next message to a stranger; fail if there is none."""
    assert socket.poll(timeout * 1000), 'no answer'
    return envelope.decode(socket.recv_multipart()).header


def passed(victim, socket):
    """Return when the router has seen all that *socket* has sent."""
    mark = bytes([255] * 16)
    header = envelope.encode_request(
        mark, EXCHANGE, 'nobody-has-this', flags=envelope.WANT_ACK
    )
    socket.send_multipart([header, BODY])
    got = []
    while True:
        found = answer(socket)
        if found.message_id == mark:
            return got
        got.append(found)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.spec('DL-42')
@pytest.mark.spec('WP-14')
def test_random_frames(victim, stranger, seed):
    chance = random.Random(seed)
    for _ in range(400):
        size = chance.choice([0, 1, 8, 24, 54, 60, 1000, 100000])
        frames = [
            chance.randbytes(chance.randint(0, size))
            for _ in range(chance.randint(1, 20))
        ]
        if chance.random() < 0.3:
            frames[0] = b'ZO\1' + frames[0]
        stranger.send_multipart(frames)
    passed(victim, stranger)
    victim.check()


@pytest.mark.spec('DL-42')
@pytest.mark.spec('WP-14')
def test_valid_message_with_changed_bytes(victim, stranger):
    chance = random.Random(7)
    good = victim.request(incarnation=os.urandom(16)) + BODY
    for _ in range(1000):
        changed = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(40)] = chance.randrange(256)
        at = chance.randrange(len(changed))
        stranger.send_multipart([bytes(changed[:at]), bytes(changed[at:])])
    passed(victim, stranger)
    victim.check()


@pytest.mark.spec('DL-42')
def test_message_of_many_frames(victim, stranger):
    stranger.send_multipart([victim.request()] + [b'x'] * 20000)
    passed(victim, stranger)
    victim.check()


@pytest.mark.parametrize(
    'text',
    [
        b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n',
        b'\0' * 1000,
        b'\xff' * 1000,
        b'\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL' + b'\0' * 1000,
    ],
)
@pytest.mark.spec('DL-42')
def test_what_is_not_zmtp(victim, text):
    with raw(victim) as one:
        one.sendall(text)
        one.shutdown(posix.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while one.recv(4096):
                pass
    victim.check()


@pytest.mark.parametrize('size', [0, 1, 10, 12, 63])
@pytest.mark.spec('DL-42')
def test_greeting_that_goes_no_further_is_hung_up(victim, size):
    greeting = b'\xff' + bytes(8) + b'\x7f\3\0NULL' + bytes(48)
    start = time.monotonic()
    with raw(victim) as one:
        one.sendall(greeting[:size])
        victim._call()
        with contextlib.suppress(ConnectionResetError):
            while one.recv(4096):
                pass
    assert time.monotonic() - start < HANDSHAKE + 8
    victim.check()


@pytest.mark.slow
@pytest.mark.spec('DL-40')
@pytest.mark.spec('DL-42')
def test_message_over_the_limit_ends_the_connection(victim, stranger):
    stranger.send_multipart([victim.request(), bytes(100 * 2**20)])
    header = victim.request(topic='nobody-has-this')
    # A DEALER reconnects; what it had sent before is gone.
    waiting.until(
        lambda: stranger.send_multipart([header, BODY]) or stranger.poll(100),
        'answer over a new connection',
        30,
    )
    found = answer(stranger)
    assert found.reason == envelope.NackReason.UNKNOWN_TARGET
    victim.check()


@pytest.mark.spec('DL-42')
def test_connections_that_come_and_go(victim):
    for _ in range(500):
        with raw(victim):
            pass
    victim.check()


@pytest.mark.spec('DL-42')
def test_connections_that_stay(victim):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(raw(victim))
        victim._call()
    victim.check()


@pytest.mark.parametrize(
    'changes',
    [
        {'incarnation': os.urandom(16)},
        {'exchange': 'other'},
        {'topic': 'other'},
        {'server': 'other'},
        {'server': ''},
        {'incarnation': bytes(16), 'topic': 'other'},
        {'incarnation': bytes(16), 'server': 'other'},
        {'flags': envelope.WANT_ACK | envelope.NOTIFICATION},
    ],
)
@pytest.mark.spec('DL-05')
@pytest.mark.spec('DL-09')
def test_request_for_somebody_else_is_refused(victim, stranger, changes):
    stranger.send_multipart([victim.request(**changes), BODY])
    found = answer(stranger)
    assert found.kind is envelope.Kind.NACK
    assert found.message_id == ID
    assert found.reason == envelope.NackReason.UNKNOWN_TARGET
    victim.check()


@pytest.mark.parametrize('incarnation', ['right', 'any'])
@pytest.mark.spec('DL-05')
@pytest.mark.spec('DL-21')
def test_request_with_the_right_address_is_taken(
    victim, stranger, incarnation
):
    any_one = {'incarnation': bytes(16)} if incarnation == 'any' else {}
    stranger.send_multipart([victim.request(**any_one), BODY])
    found = answer(stranger)
    assert (found.kind, found.message_id) == (envelope.Kind.ACK, ID)
    victim.program.wait_for('ran')
    victim.check(ran=['raw'])


@pytest.mark.parametrize('version', [0, 2, 255])
@pytest.mark.spec('WP-04')
@pytest.mark.spec('WP-05')
def test_unknown_version_is_refused(victim, stranger, version):
    header = bytearray(victim.request())
    header[2] = version
    stranger.send_multipart([bytes(header[:24]), b'whatever', b'follows'])
    found = answer(stranger)
    assert found.message_id == ID
    assert found.reason == envelope.NackReason.UNSUPPORTED_VERSION
    victim.check()


@pytest.mark.parametrize('kind', [2, 3, 4, 5, 77])
@pytest.mark.spec('WP-04')
def test_answer_of_an_unknown_version_is_not_answered(victim, stranger, kind):
    header = bytearray(victim.request())
    header[2:4] = bytes([2, kind])
    stranger.send_multipart([bytes(header), BODY])
    assert passed(victim, stranger) == []
    victim.check()


@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'\xff\xfe',
        b'nonsense',
        b'{}',
        b'[]',
        b'[{}]',
        b'[{}, {}, {}]',
        b'[1, {}]',
        b'[{}, null]',
        b'[{}, []]',
        b'[' * 200000,
        b'[{}, {"a": ' + b'9' * 10000 + b'}]',
    ],
    ids=range(12),
)
@pytest.mark.spec('WP-17')
@pytest.mark.spec('WP-18')
def test_body_that_does_not_parse_is_refused(victim, stranger, body):
    stranger.send_multipart([victim.request(), body])
    found = answer(stranger)
    assert found.reason == envelope.NackReason.UNDECODABLE
    victim.check()


@pytest.mark.parametrize(
    'message',
    [
        {},
        {'method': None},
        {'method': 5, 'args': {}},
        {'method': 'record', 'args': None},
        {'method': 'record', 'args': [1]},
        {'method': 'record', 'args': {'no': 'such'}},
        {'method': '__init__', 'args': {'server': 'x'}},
        {'method': '_server'},
        {'method': 'record', 'namespace': {}, 'version': []},
        {'method': 'record', 'version': 'nonsense'},
    ],
    ids=range(10),
)
@pytest.mark.spec('DL-42')
def test_message_that_makes_no_sense_does_not_run(victim, stranger, message):
    body = json.dumps([{}, message]).encode()
    stranger.send_multipart([victim.request(flags=envelope.WANT_REPLY), body])
    found = answer(stranger)
    assert found.kind is envelope.Kind.REPLY
    assert found.flags == envelope.FAILURE
    for _ in range(5):
        victim._call()
    assert not victim.program.all('ran')


@pytest.mark.spec('DL-42')
@pytest.mark.spec('WP-04')
def test_answers_are_nothing_for_a_server(victim, stranger):
    for header, body in (
        (envelope.encode_reply(ID), b'1'),
        (envelope.encode_reply(ID, True), b'{}'),
        (envelope.encode_ack(ID), b''),
        (envelope.encode_nack(ID, envelope.NackReason.BUSY), b''),
        (envelope.encode_heartbeat(ID), b''),
    ):
        stranger.send_multipart([header, body])
    assert passed(victim, stranger) == []
    victim.check()


@pytest.mark.spec('DL-42')
@pytest.mark.spec('TO-06')
def test_stranger_that_never_reads_holds_up_nobody(victim, stranger):
    header = victim.request(topic='other')
    stranger.set(zmq.RCVHWM, 1)
    for _ in range(20000):
        try:
            stranger.send_multipart([header, BODY], zmq.NOBLOCK)
        except zmq.Again:
            break
    victim.check()


# A process that claims to be a server.


def say(*messages):
    def respond(header):
        return [m(header) if callable(m) else m for m in messages]

    return respond


def reply(body, failure=False):
    return lambda header: [
        envelope.encode_reply(header.message_id, failure),
        body,
    ]


def heartbeat(header):
    return [envelope.encode_heartbeat(header.message_id), b'']


def ack(header):
    return [envelope.encode_ack(header.message_id), b'']


def echo(header):
    """Send the request back."""
    return [
        envelope.encode_request(header.message_id, 'e', 't'),
        b'[{}, {}]',
    ]


class Impostor:
    """A ROUTER that is registered, and answers what it likes."""

    def __init__(self, ipc_dir, topic):
        self.respond = say()
        self.got = 0
        directory = ipc.IpcDirectory(str(ipc_dir))
        member = os.urandom(8).hex()
        endpoint = directory.endpoint(member)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(endpoint)
        self._matchmaker = local.LocalMatchmaker(
            base.MatchmakerSettings(directory, '', member)
        )
        where = address.Address(address.Scope.RPC, EXCHANGE, topic)
        route = address.Route(endpoint, os.urandom(16), 'impostor')
        self._matchmaker.register(
            address.Registration(where, route), clock.Deadline(10)
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            if not self._socket.poll(20):
                continue
            client, *frames = self._socket.recv_multipart()
            if frames == [b'']:
                # That there is a connection (WP-26).
                continue
            self.got += 1
            header = envelope.decode(frames).header
            for message in self.respond(header):
                self._socket.send_multipart([client, *message])

    def close(self):
        self._matchmaker.close(clock.Deadline(10))
        self._stop.set()
        self._thread.join(30)
        self._socket.close()
        self._context.term()


@pytest.fixture
def impostor(ipc_dir, topic):
    one = Impostor(ipc_dir, topic)
    yield one
    one.close()


@pytest.mark.parametrize(
    'respond',
    [
        say(),
        say([b'']),
        say([b'x'] * 20),
        say([os.urandom(54), os.urandom(1000)]),
        say(*[[b'garbage']] * 1000),
        say([envelope.encode_reply(bytes(16)), b'"wrong id"']),
        say(*[[envelope.encode_reply(bytes(16)), b'1']] * 1000),
        say(ack),
        say(ack, ack, ack),
        say(*[heartbeat] * 1000),
        say(echo),
    ],
    ids=range(11),
)
@pytest.mark.spec('DL-04')
@pytest.mark.spec('DL-11')
@pytest.mark.spec('DL-42')
def test_no_answer_is_no_answer(impostor, client, respond):
    impostor.respond = respond
    one = client(timeout=1.5)
    start = time.monotonic()
    with pytest.raises(errors.ReplyTimeout):
        one.call({}, 'who')
    assert 1.5 <= time.monotonic() - start < 6
    # What is left over reaches nobody.
    impostor.respond = say(reply(b'"right"'))
    assert one.call({}, 'who') == 'right'


@pytest.mark.parametrize(
    ('respond', 'expected'),
    [
        (say(reply(b'{"broken')), errors.ReplyUndecodable),
        (say(reply(b'')), errors.ReplyUndecodable),
        (say(reply(b'[' * 200000)), errors.ReplyUndecodable),
        (say(reply(b'{}', True)), errors.ReplyUndecodable),
        (say(reply(b'7', True)), errors.ReplyUndecodable),
    ],
    ids=range(5),
)
@pytest.mark.spec('DL-01')
@pytest.mark.spec('DL-42')
@pytest.mark.spec('WP-19')
def test_reply_that_does_not_parse_is_told_at_once(
    impostor, client, respond, expected
):
    impostor.respond = respond
    start = time.monotonic()
    with pytest.raises(expected) as caught:
        client(timeout=60).call({}, 'who')
    assert time.monotonic() - start < 10
    assert caught.value.may_have_run is True


@pytest.mark.spec('DL-16')
def test_heartbeats_alone_do_not_keep_a_call_beyond_its_time(impostor, client):
    impostor.respond = say(*[heartbeat] * 1000)
    one = client(timeout=2, call_monitor_timeout=1)
    start = time.monotonic()
    with pytest.raises(errors.ReplyTimeout):
        one.call({}, 'who')
    assert time.monotonic() - start < 6


@pytest.mark.spec('DL-06')
@pytest.mark.spec('DL-02')
def test_server_that_refuses_for_ever(impostor, client):
    impostor.respond = say(
        lambda header: [
            envelope.encode_nack(header.message_id, envelope.NackReason.BUSY),
            b'',
        ]
    )
    one = client('&rpc_cast_timeout=1.5', timeout=1.5)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        one.call({}, 'who')
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        one.cast({}, 'who')
    # With a pause that grows, this is a few dozen attempts.
    assert impostor.got < 100


@pytest.mark.spec('WP-05')
def test_server_of_another_version_is_named(impostor, client):
    reason = envelope.NackReason.UNSUPPORTED_VERSION

    def refuse(header):
        # As a version that nobody knows yet would write it.
        nack = bytearray(envelope.encode_nack(header.message_id, reason))
        nack[2] = 9
        return [bytes(nack[:24]), b'whatever']

    impostor.respond = say(refuse)
    start = time.monotonic()
    with pytest.raises(errors.DeliveryRefused, match='version'):
        client(timeout=60).call({}, 'who')
    assert time.monotonic() - start < 10
