# SPDX-License-Identifier: Apache-2.0
"""Requests that come again, over real sockets."""

import contextlib
import threading

import pytest
import zmq

from tests.fixtures import waiting
from tests.unit.server import test_router
from zmq_driver import clock as clocks
from zmq_driver import duplicate_options
from zmq_driver import envelope
from zmq_driver.server import incoming
from zmq_driver.server import recent
from zmq_driver.server import router as routers

ID = b'maker---' + bytes(8)
CALL = envelope.WANT_REPLY
RESENT = CALL | envelope.RESENT
CAST = envelope.WANT_ACK
NOTE = envelope.WANT_ACK | envelope.NOTIFICATION
ACK, NACK = envelope.Kind.ACK, envelope.Kind.NACK
REPLY, HEARTBEAT = envelope.Kind.REPLY, envelope.Kind.HEARTBEAT
FORGOTTEN = envelope.NackReason.FORGOTTEN

context = test_router.context
counts = test_router.counts


@pytest.fixture
def settings():
    return duplicate_options.DuplicateSettings()


@pytest.fixture
def router(context, counts, settings):
    router = routers.Router(
        'unit',
        context,
        test_router.ENDPOINT,
        test_router.OPTIONS,
        counts,
        recent=recent.Recent(settings),
    )
    router.start(clocks.Deadline(30))
    yield router
    assert router.stop(clocks.Deadline(30))


@pytest.fixture
def connect(context, router):
    """Give a factory of connections to the router."""
    made = []

    def make():
        socket = context.socket(zmq.DEALER)
        made.append(socket)
        socket.set(zmq.LINGER, 0)
        socket.connect(test_router.ENDPOINT)
        return socket

    yield make
    for socket in made:
        socket.close()


@pytest.fixture
def sink(router):
    sink = test_router.Sink()
    router.attach(sink)
    return sink


@pytest.fixture
def handle(router, sink):
    """Give what oslo.messaging has of the n-th message handed over."""

    def message(number=0):
        waiting.until(lambda: len(sink.got) > number, 'request')
        return incoming.RpcIncoming(
            router, sink.got[number], 10000, lambda: None
        )

    return message


@pytest.fixture
def send(sink):
    def send(client, flags=CALL, message_id=ID, **fields):
        fields = {'incarnation': sink.incarnation, **fields}
        test_router.send(client, message_id=message_id, flags=flags, **fields)

    return send


def answer(client, kind=None):
    assert client.poll(30000), 'no answer'
    message = envelope.decode(client.recv_multipart())
    assert message.header.message_id == ID
    if kind is not None:
        assert message.header.kind is kind
    return message


def nothing_more(client, send):
    """Check that nothing is on its way to a client."""
    send(client, CAST, bytes(16), topic='nobody')
    assert client.poll(30000)
    assert envelope.decode(client.recv_multipart()).header.kind is NACK


@pytest.mark.spec('DL-50')
@pytest.mark.parametrize('flags', [CALL, RESENT])
def test_call_under_way_is_answered_over_the_new_connection(
    connect, send, handle, sink, counts, flags
):
    old, new = connect(), connect()
    send(old, monitor_timeout=5.0)
    call = handle()
    send(new, flags | envelope.WANT_ACK, monitor_timeout=5.0)
    answer(new, ACK)
    call.heartbeat()
    answer(new, HEARTBEAT)
    call.reply('done')
    assert answer(new, REPLY).body == b'"done"'
    nothing_more(new, send)
    nothing_more(old, send)
    assert len(sink.got) == 1
    assert counts.snapshot()['messages_duplicate'] == 1
    assert counts.snapshot()['messages_received'] == 1


@pytest.mark.spec('DL-50')
@pytest.mark.parametrize('gone', [False, True])
def test_answered_call_is_answered_again(connect, send, handle, sink, gone):
    old, new = connect(), connect()
    send(old)
    answered = handle()
    if gone:
        old.close()
    answered.reply({'a': 1})
    if not gone:
        answer(old, REPLY)
    for _ in range(3):
        send(new, RESENT)
        assert answer(new, REPLY).body == b'{"a":1}'
    nothing_more(new, send)
    assert len(sink.got) == 1


@pytest.mark.spec('DL-50')
@pytest.mark.parametrize('flags', [CAST, CAST | envelope.FANOUT])
def test_what_was_acknowledged_is_acknowledged_again(
    connect, send, sink, flags
):
    old, new = connect(), connect()
    send(old, flags)
    answer(old, ACK)
    send(new, flags | envelope.RESENT)
    answer(new, ACK)
    send(new, flags)
    answer(new, ACK)
    assert len(sink.got) == 1


@pytest.fixture
def handle_note(router, sink):
    """Give what a listener has of the n-th message handed over."""

    def message(number=0):
        waiting.until(lambda: len(sink.got) > number, 'request')
        return incoming.NotificationIncoming(
            router, sink.got[number], lambda: None, lambda message: None
        )

    return message


@pytest.mark.spec('NS-30')
@pytest.mark.spec('NS-31')
def test_notification_is_acknowledged_where_it_was_asked_last(
    connect, send, handle_note, sink
):
    old, new = connect(), connect()
    send(old, NOTE)
    message = handle_note()
    nothing_more(old, send)
    send(new, NOTE | envelope.RESENT)
    nothing_more(new, send)
    message.acknowledge()
    answer(new, ACK)
    nothing_more(old, send)
    for flags in (NOTE, NOTE | envelope.RESENT):
        send(old, flags)
        answer(old, ACK)
    assert len(sink.got) == 1


@pytest.mark.spec('NS-34')
def test_notification_that_is_given_back_can_be_sent_again(
    connect, send, handle_note, sink
):
    client = connect()
    send(client, NOTE)
    handle_note().turn_away()
    assert answer(client, NACK).header.reason is envelope.NackReason.STOPPED
    send(client, NOTE)
    handle_note(1).acknowledge()
    answer(client, ACK)
    assert len(sink.got) == 2


@pytest.mark.spec('DL-50')
@pytest.mark.parametrize('answered', [False, True])
def test_listener_that_has_stopped_does_not_matter(
    connect, send, handle, router, sink, answered
):
    old, new = connect(), connect()
    send(old)
    call = handle()
    if answered:
        call.reply(1)
    test_router.detach(router, sink)
    send(new, RESENT | envelope.WANT_ACK)
    if not answered:
        # The repeat is known before the worker is done.
        answer(new, ACK)
        call.reply(1)
        answer(new, REPLY)
    else:
        kinds = {answer(new).header.kind for _ in range(2)}
        assert kinds == {ACK, REPLY}
    send(new, CAST | envelope.RESENT, b'maker---' + b'\1' * 8)
    message = envelope.decode(new.recv_multipart())
    assert message.header.reason == envelope.NackReason.UNKNOWN_TARGET


@pytest.mark.spec('DL-50')
def test_repeat_that_comes_while_the_first_is_handed_over(connect, send, sink):
    old, new = connect(), connect()
    entered, go_on = threading.Event(), threading.Event()

    def slow(delivery):
        entered.set()
        assert go_on.wait(30)

    sink.outcome = slow
    send(old, CAST)
    assert entered.wait(30)
    send(new, CAST | envelope.RESENT)
    go_on.set()
    answer(old, ACK)
    answer(new, ACK)
    assert len(sink.got) == 1


@pytest.mark.spec('DL-50')
def test_worker_that_answers_before_the_listener_has_returned(
    connect, send, router, sink
):
    old, new = connect(), connect()

    def at_once(delivery):
        incoming.RpcIncoming(router, delivery, 10000, lambda: None).reply(1)

    sink.outcome = at_once
    send(old)
    answer(old, REPLY)
    send(new, RESENT)
    answer(new, REPLY)
    assert len(sink.got) == 1


@pytest.mark.spec('DL-51')
def test_what_was_never_seen_runs_once(connect, send, handle, sink):
    old, new = connect(), connect()
    send(new, RESENT)
    call = handle()
    # What the lost connection had is delivered late.
    send(old)
    nothing_more(old, send)
    call.reply(1)
    answer(new, REPLY)
    nothing_more(old, send)
    assert len(sink.got) == 1


@pytest.mark.spec('DL-50')
@pytest.mark.parametrize('outcome', ['reason', 'error'])
def test_refused_request_may_come_again(connect, send, sink, outcome):
    client = connect()

    def refuse(delivery):
        if outcome == 'error':
            raise KeyError('what nobody expects')
        return envelope.NackReason.BUSY

    sink.outcome = refuse
    send(client, CAST | envelope.RESENT)
    answer(client, NACK)
    sink.outcome = None
    send(client, CAST | envelope.RESENT)
    answer(client, ACK)
    assert len(sink.got) == 2


class TestSmallMemory:
    @pytest.fixture
    def settings(self):
        return duplicate_options.DuplicateSettings(
            duplicate_max=1, duplicate_max_bytes=0
        )

    @pytest.mark.spec('DL-50')
    @pytest.mark.spec('DL-52')
    def test_reply_that_was_dropped(self, connect, send, handle, counts, sink):
        client = connect()
        send(client)
        handle().reply(1)
        answer(client, REPLY)
        for flags in (RESENT, CALL):
            send(client, flags)
            assert answer(client, NACK).header.reason == FORGOTTEN
        assert len(sink.got) == 1
        waiting.until(
            lambda: counts.snapshot()['messages_forgotten'] == 2, 'count'
        )

    @pytest.mark.spec('DL-51')
    @pytest.mark.spec('DL-52')
    def test_ids_that_were_dropped(self, connect, send, sink):
        client = connect()
        send(client, CAST)
        answer(client, ACK)
        other = b'maker---' + (7).to_bytes(8, 'big')
        send(client, CAST, other)
        assert envelope.decode(client.recv_multipart()).header.kind is ACK
        send(client, CAST | envelope.RESENT)
        assert answer(client, NACK).header.reason == FORGOTTEN
        assert len(sink.got) == 2


@pytest.mark.spec('DL-52')
def test_old_requests_are_dropped_when_no_message_comes(
    connect, send, router, sink, monkeypatch
):
    client = connect()
    send(client, CAST)
    answer(client, ACK)
    monkeypatch.setattr(router._recent, '_ttl', 0.0)
    waiting.until(lambda: router._recent.counts()[0] == 0, 'periodic look')


@pytest.mark.spec('DL-50')
def test_child_of_a_method_does_not_touch_the_memory(
    connect, send, handle, router, monkeypatch
):
    client = connect()
    send(client)
    call = handle()
    locks = [router._recent._lock, router._counters._lock, router._lock]
    with monkeypatch.context() as patch, contextlib.ExitStack() as held:
        patch.setattr(router, '_pid', 0)
        patch.setattr(router.settlement, '_pid', 0)
        patch.setattr(call, '_pid', 0)
        # Some other thread of the parent had them, and is not here.
        for lock in locks:
            held.enter_context(lock)
        call.reply('from the child')
        call.heartbeat()
        router.send(b'client', b'header')
        router.reply(call._record, b'header', b'body')
        router.settlement.expire(call._record, ID)
    send(client, CALL | envelope.WANT_ACK)
    answer(client, ACK)


@pytest.mark.spec('DL-50')
@pytest.mark.spec('DL-55')
@pytest.mark.parametrize('overtaken', [False, True])
def test_expired_call_may_come_again(
    connect, send, handle, sink, counts, caplog, overtaken
):
    old, new = connect(), connect()
    send(old, ttl=0.001)
    call = handle()
    if overtaken:
        # The connection was lost meanwhile.
        send(new, RESENT | envelope.WANT_ACK)
        answer(new, ACK)
    waiting.until(lambda: call.acknowledge() or call._expired, 'expiry')
    call.reply(failure=(None, None, None))
    told = new if overtaken else old
    reason = answer(told, NACK).header.reason
    assert reason == envelope.NackReason.EXPIRED
    assert counts.snapshot()['messages_expired'] == 1
    assert counts.snapshot()['messages_refused'] == 1
    assert 'A call was not started' in caplog.text
    send(new, RESENT)
    handle(1).reply('ran')
    assert answer(new, REPLY).body == b'"ran"'
    assert len(sink.got) == 2


@pytest.mark.spec('DL-58')
def test_original_that_arrives_after_the_refusal(connect, send, sink):
    old, new = connect(), connect()
    sink.outcome = envelope.NackReason.BUSY
    send(new, RESENT)
    assert answer(new, NACK).header.reason == envelope.NackReason.BUSY
    sink.outcome = None
    before = len(sink.got)
    send(old)
    assert answer(old, NACK).header.reason == envelope.NackReason.EXPIRED
    assert len(sink.got) == before
    send(new, RESENT)
    waiting.until(lambda: len(sink.got) > before, 'request')
