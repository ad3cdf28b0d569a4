# SPDX-License-Identifier: Apache-2.0
"""The router thread."""

import errno
import itertools
import logging
import os
import threading
import time

import pytest
import zmq

from tests.fixtures import waiting
from zmq_driver import clock as clocks
from zmq_driver import context as contexts
from zmq_driver import counters
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import farewell
from zmq_driver import socket_options
from zmq_driver import sockets
from zmq_driver.server import leaving
from zmq_driver.server import router as routers

ENDPOINT = 'inproc://router'
ID = bytes(range(16))
BODY = b'[{}, {"method": "m"}]'
OPTIONS = socket_options.SocketOptions(
    heartbeat_interval=1.0,
    heartbeat_timeout=2.0,
    connect_timeout=2.0,
    linger=0.0,
    max_message_size=100000,
)


class Sink:
    """A listener for one topic."""

    def __init__(self, number=1, topic='topic'):
        self.incarnation = bytes([number]) * 16
        self.topic = topic
        self.got = []
        self.outcome = None

    def serves(self, header):
        return header.topic == self.topic

    def deliver(self, delivery):
        self.got.append(delivery)
        if callable(self.outcome):
            return self.outcome(delivery)
        return self.outcome


@pytest.fixture
def context():
    context = contexts.DriverContext('unit', 1, 10)
    yield context
    assert context.close(clocks.Deadline(30))


@pytest.fixture
def counts():
    return counters.Counters()


@pytest.fixture
def router(context, counts):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    yield router
    assert router.stop(clocks.Deadline(30))


@pytest.fixture
def client(context, router):
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.connect(ENDPOINT)
    yield socket
    socket.close()


_numbers = itertools.count()


def send(client, topic='topic', body=BODY, message_id=None, **fields):
    fields = {'flags': envelope.WANT_ACK, **fields}
    if message_id is None:
        message_id = next(_numbers).to_bytes(16, 'big')
    header = envelope.encode_request(message_id, 'exchange', topic, **fields)
    client.send_multipart([header, body])


def answer(client):
    assert client.poll(30000), 'no answer'
    return envelope.decode(client.recv_multipart()).header


def ask(client, *args, **kwargs):
    send(client, *args, **kwargs)
    return answer(client)


def detach(router, sink):
    router.detach(sink, clocks.Deadline(30))


def test_accepted_request_is_acknowledged(router, client, counts):
    sink = Sink()
    router.attach(sink)
    found = ask(client, message_id=ID)
    assert (found.kind, found.message_id) == (envelope.Kind.ACK, ID)
    [delivery] = sink.got
    assert delivery.message == {'method': 'm'}
    assert delivery.body == BODY
    waiting.until(lambda: counts.snapshot()['messages_received'], 'count')


@pytest.mark.spec('TO-03')
def test_answer_from_another_thread(router, client):
    sink = Sink()
    router.attach(sink)
    send(client, flags=envelope.WANT_REPLY)
    waiting.until(lambda: sink.got, 'request')
    detach(router, sink)
    router.reply(sink.got[0].record, envelope.encode_reply(ID), b'1')
    assert answer(client).kind is envelope.Kind.REPLY


def test_request_that_wants_no_answer_gets_none(router, client):
    sink = Sink()
    router.attach(sink)
    send(client, flags=envelope.FANOUT)
    assert ask(client, 'other').kind is envelope.Kind.NACK
    assert len(sink.got) == 1


@pytest.mark.spec('DL-05')
def test_incarnation_decides(router, client, counts):
    one, two = Sink(1), Sink(2)
    router.attach(one)
    router.attach(two)
    assert ask(client, incarnation=two.incarnation).kind is envelope.Kind.ACK
    unknown = ask(client, incarnation=bytes([3]) * 16)
    assert unknown.reason == envelope.NackReason.UNKNOWN_TARGET
    other = ask(client, 'other', incarnation=two.incarnation)
    assert other.reason == envelope.NackReason.UNKNOWN_TARGET
    assert (len(one.got), len(two.got)) == (0, 1)
    assert counts.snapshot()['messages_refused'] == 2


@pytest.mark.spec('DL-05')
def test_without_incarnation_the_address_decides(router, client):
    one, two = Sink(1, 'one'), Sink(2, 'two')
    router.attach(one)
    router.attach(two)
    assert ask(client, 'two').kind is envelope.Kind.ACK
    assert (len(one.got), len(two.got)) == (0, 1)


@pytest.mark.spec('WP-24')
def test_probe_is_answered_and_not_delivered(router, client, counts):
    sink = Sink(1)
    router.attach(sink)

    def probe(**kwargs):
        return ask(
            client,
            flags=envelope.WANT_ACK,
            codec=envelope.CODEC_NONE,
            body=b'',
            **kwargs,
        ).kind

    assert probe() is envelope.Kind.ACK
    assert probe(incarnation=sink.incarnation) is envelope.Kind.ACK
    assert probe(incarnation=bytes([7]) * 16) is envelope.Kind.NACK
    assert probe(topic='other') is envelope.Kind.NACK
    assert not sink.got
    assert counts.snapshot()['messages_received'] == 0


@pytest.mark.parametrize(
    'reason', [envelope.NackReason.BUSY, envelope.NackReason.STOPPED]
)
@pytest.mark.spec('DL-41')
def test_refusal_of_a_listener_is_told(router, client, reason):
    sink = Sink()
    sink.outcome = reason
    router.attach(sink)
    assert ask(client).reason == reason
    # Nobody asked for an answer, but a refusal is always told.
    assert ask(client, flags=0).reason == reason


@pytest.mark.spec('WP-17')
def test_body_that_does_not_parse(router, client):
    sink = Sink()
    router.attach(sink)
    found = ask(client, body=b'nonsense')
    assert found.reason == envelope.NackReason.UNDECODABLE
    assert not sink.got


@pytest.mark.spec('DL-70')
@pytest.mark.parametrize('all_done', [True, False])
def test_router_that_ends_takes_leave(router, client, all_done):
    router.attach(Sink())
    assert ask(client).kind is envelope.Kind.ACK
    ending = leaving.Ending(lambda: all_done)
    assert router.stop(clocks.Deadline(30), ending)
    if all_done:
        assert farewell.is_one(answer(client))
    assert not client.poll(0)


@pytest.mark.spec('LC-14')
def test_router_that_was_left_long_ago_does_not_wait(
    router, client, monkeypatch
):
    monkeypatch.setattr(routers.leaving, 'GRACE', 3600.0)
    sink = Sink()
    router.attach(sink)
    assert ask(client).kind is envelope.Kind.ACK
    detach(router, sink)
    router._detached_at -= 3601.0
    # As a listener is that is stopped again by the driver's cleanup.
    detach(router, sink)
    assert router.stop(clocks.Deadline(30))


@pytest.mark.spec('LC-14')
@pytest.mark.parametrize('left', [False, True])
def test_router_that_was_left_just_now_waits(
    router, client, monkeypatch, left
):
    monkeypatch.setattr(routers.leaving, 'GRACE', 1.5)
    sink = Sink()
    router.attach(sink)
    assert ask(client).kind is envelope.Kind.ACK
    router._detached_at -= 3600.0
    if left:
        detach(router, sink)
    router.begin_stop()
    assert not router.join(clocks.Deadline(0.1))
    assert ask(client).reason == envelope.NackReason.UNKNOWN_TARGET
    assert router.join(clocks.Deadline(30))


@pytest.mark.spec('DL-70')
def test_router_that_ends_hands_over_nothing_more(router, client, monkeypatch):
    sink = Sink()
    router.attach(sink)
    assert ask(client).kind is envelope.Kind.ACK
    refuse_rest = routers.leaving.refuse_rest
    found = []

    def refuse(channel, receive, alone):
        # A listener that is started late, and one that was not stopped.
        with pytest.raises(errors.DriverClosed):
            router.attach(Sink(2))
        for target in (sink.incarnation, envelope.ANY_INCARNATION):
            send(client, incarnation=target)
        refuse_rest(channel, receive, alone)
        found.append(len(sink.got))

    monkeypatch.setattr(routers.leaving, 'refuse_rest', refuse)
    monkeypatch.setattr(routers.leaving, 'GRACE', 0.5)
    # It is asked as late as that.
    ending = leaving.Ending(lambda: found == [1])
    assert router.stop(clocks.Deadline(30), ending)
    for _ in range(2):
        assert answer(client).reason == envelope.NackReason.UNKNOWN_TARGET
    assert farewell.is_one(answer(client))


@pytest.mark.spec('LC-05')
@pytest.mark.spec('TO-04')
def test_trouble_at_the_end_leaves_no_socket_and_nobody_waiting(
    context, counts, monkeypatch, caplog
):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    passed = threading.Event()

    def fail(*args):
        router._passing.append(passed)
        raise MemoryError

    monkeypatch.setattr(routers.leaving, 'refuse_rest', fail)
    closed = router._channel._socket
    assert router.stop(clocks.Deadline(30))
    assert passed.is_set()
    assert closed._socket.closed
    assert 'unexpected error' in caplog.text


@pytest.mark.spec('TO-07')
def test_router_survives_its_listeners(router, client, caplog):
    sink = Sink()

    def fail(delivery):
        raise KeyError('what nobody expects')

    sink.outcome = fail
    router.attach(sink)
    assert ask(client).reason == envelope.NackReason.FAILED
    assert 'what nobody expects' in caplog.text
    sink.outcome = None
    assert ask(client).kind is envelope.Kind.ACK


@pytest.mark.spec('TO-07')
def test_router_survives_what_nobody_expects(router, client, caplog):
    broken, sink = Sink(1, 'broken'), Sink(2)

    def fail(header):
        raise KeyError('what nobody expects')

    broken.serves = fail
    router.attach(broken)
    send(client)
    waiting.until(lambda: 'unexpected error' in caplog.text, 'log')
    detach(router, broken)
    router.attach(sink)
    assert ask(client).kind is envelope.Kind.ACK


@pytest.mark.spec('DL-42')
def test_garbage_is_counted_and_does_not_flood_the_log(
    router, client, counts, caplog
):
    caplog.set_level(logging.WARNING)
    for _ in range(300):
        client.send_multipart([b'x', b'y', b'z'])
        client.send_multipart([envelope.encode_ack(ID), b''])
    assert ask(client).kind is envelope.Kind.NACK
    lines = [r for r in caplog.records if 'dropped' in r.getMessage()]
    assert counts.snapshot()['messages_undecodable'] == 600
    assert len(lines) == 1


@pytest.mark.spec('WP-04')
def test_request_of_another_version_is_answered(router, client, counts):
    header = bytearray(envelope.encode_request(ID, 'exchange', 'topic'))
    header[2] = 2
    client.send_multipart([bytes(header)])
    found = answer(client)
    assert found.reason == envelope.NackReason.UNSUPPORTED_VERSION
    assert counts.snapshot()['messages_refused'] == 1
    assert counts.snapshot()['messages_undecodable'] == 1


@pytest.mark.spec('TO-04')
def test_detach_waits_for_the_delivery_that_is_going_on(router, client):
    sink = Sink()
    entered, go_on = threading.Event(), threading.Event()

    def slow(delivery):
        entered.set()
        assert go_on.wait(30)

    sink.outcome = slow
    router.attach(sink)
    send(client)
    assert entered.wait(30)
    ended = threading.Event()

    def stop():
        detach(router, sink)
        ended.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert not ended.wait(0.1)
    go_on.set()
    stopper.join(30)
    assert ended.is_set()
    assert answer(client).kind is envelope.Kind.ACK
    assert ask(client).reason == envelope.NackReason.UNKNOWN_TARGET
    assert len(sink.got) == 1


@pytest.mark.spec('TO-04')
def test_nothing_is_delivered_after_detach(router, client, hasty):
    stop = threading.Event()

    def load():
        while not stop.is_set():
            send(client, flags=0)
            while client.poll(0):
                client.recv_multipart()

    sender = threading.Thread(target=load)
    sender.start()
    late = 0
    try:
        for n in range(200):
            sink = Sink(n % 200 + 1)
            router.attach(sink)
            waiting.until(lambda s=sink: s.got, 'delivery')
            detach(router, sink)
            count = len(sink.got)
            waiting.until(
                lambda: router._counters.snapshot()['messages_refused'],
                'refusal',
            )
            late += len(sink.got) - count
    finally:
        stop.set()
        sender.join(30)
    assert late == 0


@pytest.mark.spec('TO-06')
def test_detach_from_an_idle_router_does_not_wait(router):
    start = time.monotonic()
    for n in range(100):
        sink = Sink(n)
        router.attach(sink)
        detach(router, sink)
    assert time.monotonic() - start < 4


def test_detach_on_the_router_thread_does_not_wait_for_itself(router, client):
    sink = Sink()
    sink.outcome = lambda delivery: detach(router, sink)
    router.attach(sink)
    start = time.monotonic()
    assert ask(client).kind is envelope.Kind.ACK
    assert time.monotonic() - start < 10


@pytest.mark.spec('TO-03')
def test_stop_sends_what_waits(context, counts):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    client = context.socket(zmq.DEALER)
    client.set(zmq.LINGER, 0)
    client.connect(ENDPOINT)
    sink = Sink()
    router.attach(sink)
    send(client, flags=envelope.WANT_REPLY)
    waiting.until(lambda: sink.got, 'request')
    for _ in range(50):
        routing_id = sink.got[0].record.routing_id
        router.send(routing_id, envelope.encode_heartbeat(ID))
    assert router.stop(clocks.Deadline(30))
    for _ in range(50):
        assert answer(client).kind is envelope.Kind.HEARTBEAT
    client.close()


def test_after_the_stop_nothing_is_sent_and_nothing_waits(context, counts):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    sink = Sink()
    router.attach(sink)
    assert router.stop(clocks.Deadline(30))
    assert router.stop(clocks.Deadline(30))
    router.send(b'client', envelope.encode_ack(ID))
    start = time.monotonic()
    detach(router, sink)
    assert time.monotonic() - start < 10


def test_endpoint_that_cannot_be_bound(router, context, counts):
    second = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    with pytest.raises(errors.ListenFailure, match='cannot listen'):
        second.start(clocks.Deadline(30))
    second.send(b'client', envelope.encode_ack(ID))
    assert second.stop(clocks.Deadline(30))


def test_bind_that_takes_too_long(context, counts, monkeypatch):
    go_on = threading.Event()

    def slow(*args):
        go_on.wait(30)
        raise zmq.ZMQError(zmq.EADDRINUSE)

    monkeypatch.setattr(sockets, 'RouterSocket', slow)
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    with pytest.raises(errors.ListenFailure, match='was not bound'):
        router.start(clocks.Deadline(0.05))
    go_on.set()
    assert router.stop(clocks.Deadline(30))


def test_end_of_the_context_ends_the_router(context, counts, monkeypatch):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)

    def receive(self):
        raise zmq.ContextTerminated

    monkeypatch.setattr(sockets.RouterSocket, 'receive', receive)
    monkeypatch.setattr(sockets.RouterSocket, 'readable', lambda self: True)
    router.start(clocks.Deadline(30))
    waiting.until(lambda: not router._thread.is_alive(), 'end')
    router.send(b'client', envelope.encode_ack(ID))


@pytest.mark.spec('DL-06')
def test_what_came_in_before_the_end_is_refused(router, client):
    entered, go_on = threading.Event(), threading.Event()
    sink = Sink()

    def slow(delivery):
        entered.set()
        assert go_on.wait(30)

    sink.outcome = slow
    router.attach(sink)
    send(client)
    assert entered.wait(30)
    send(client, topic='nobody')
    stopper = threading.Thread(target=router.stop, args=(clocks.Deadline(30),))
    stopper.start()
    waiting.until(router._stop_requested.is_set, 'request to stop')
    go_on.set()
    assert answer(client).kind is envelope.Kind.ACK
    assert answer(client).reason == envelope.NackReason.UNKNOWN_TARGET
    stopper.join(30)
    assert not stopper.is_alive()


@pytest.mark.spec('LC-03')
def test_child_of_a_method_does_not_use_the_socket(
    router, counts, monkeypatch
):
    sent = []
    monkeypatch.setattr(router._channel, 'send', sent.append)
    pid = os.getpid()
    monkeypatch.setattr(routers.os, 'getpid', lambda: pid + 1)
    router.send(b'client', b'header')
    assert not sent
    assert counts.snapshot()['replies_unroutable'] == 0


def test_lack_of_descriptors_is_told_at_once(context, counts, monkeypatch):
    def fail(*args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, 'eventfd', fail)
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    with pytest.raises(errors.ListenFailure, match='Too many open files'):
        router.start(clocks.Deadline(30))


@pytest.mark.spec('LC-07')
def test_nothing_is_attached_to_an_ended_router(context, counts):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    assert router.stop(clocks.Deadline(30))
    with pytest.raises(errors.DriverClosed):
        router.attach(Sink())


@pytest.mark.spec('DL-70')
def test_farewell_to_who_has_gone_is_not_counted(context, counts):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    for n in range(10):
        router._farewell.heard(bytes([n]))
    assert router.stop(clocks.Deadline(30), leaving.Ending(lambda: True))
    assert counts.snapshot()['replies_unroutable'] == 0


@pytest.mark.spec('DL-70')
@pytest.mark.spec('WP-26')
def test_farewell_to_who_has_not_said_anything(context, counts):
    router = routers.Router('unit', context, ENDPOINT, OPTIONS, counts)
    router.start(clocks.Deadline(30))
    client = context.socket(zmq.DEALER)
    client.set(zmq.PROBE_ROUTER, 1)
    client.connect(ENDPOINT)
    try:
        assert router.stop(clocks.Deadline(30), leaving.Ending(lambda: True))
        assert farewell.is_one(answer(client))
    finally:
        client.close(0)
    assert counts.snapshot()['messages_undecodable'] == 0
