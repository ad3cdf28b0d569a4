# SPDX-License-Identifier: Apache-2.0
"""Messages in the hands of oslo.messaging's servers."""

import asyncio
import contextlib
import gc
import json
import logging
import sys
import uuid

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import conffixture
import pytest

from tests.fixtures import clock as fake_clock
from tests.unit.server import fakes
from zmq_driver import _oslo
from zmq_driver import envelope
from zmq_driver.server import incoming

LIMIT = 4096


class Rude(Exception):
    def __str__(self):
        raise KeyError('no text')


class Stubborn(Exception):
    @property
    def kwargs(self):
        raise RuntimeError('no arguments')


class Explosive:
    def __iter__(self):
        raise ZeroDivisionError('boom')


@pytest.fixture
def router():
    return fakes.Router()


@pytest.fixture
def clock():
    return fake_clock.FakeClock()


@pytest.fixture
def done():
    return []


@pytest.fixture
def message(router, done, clock):
    def make(max_size=LIMIT, **kwargs):
        return incoming.RpcIncoming(
            router,
            fakes.delivery(**kwargs),
            max_size,
            lambda: done.append(True),
            clock,
        )

    return make


def caught(error):
    try:
        raise error
    except Exception:
        return sys.exc_info()


@pytest.mark.spec('PF-01')
def test_no_random_id_is_made_for_what_comes_in(message, monkeypatch):
    def random_id():
        raise AssertionError('a random number for nothing')

    monkeypatch.setattr(uuid, 'uuid4', random_id)
    assert message(number=7).msg_id == (7).to_bytes(16, 'big').hex()


def failure_of(router):
    [(_, message)] = router.sent
    assert message.header.flags == envelope.FAILURE
    return json.loads(message.body)


@pytest.mark.spec('DL-10')
def test_reply_goes_where_the_request_came_from(message, router, done):
    message(number=7).reply({'a': 1})
    [(routing_id, answer)] = router.sent
    assert routing_id == b'client'
    assert answer.header.kind is envelope.Kind.REPLY
    assert answer.header.message_id == (7).to_bytes(16, 'big')
    assert json.loads(answer.body) == {'a': 1}
    assert done == [True]


def test_second_reply_is_dropped(message, router, done, caplog):
    one = message()
    one.reply(1)
    one.reply(2)
    assert len(router.sent) == 1
    assert done == [True]
    assert 'twice' in caplog.text


@pytest.mark.parametrize('flags', [0, envelope.WANT_ACK, envelope.FANOUT])
def test_cast_gets_no_reply_and_no_heartbeat(message, router, done, flags):
    one = message(flags=flags)
    one.acknowledge()
    one.heartbeat()
    one.requeue()
    one.reply('nobody waits')
    assert not router.sent
    assert done == [True]


@pytest.mark.spec('DL-16')
def test_heartbeat_names_the_call(message, router):
    one = message(monitor_timeout=5.0, number=3)
    assert one.client_timeout == 5.0
    one.heartbeat()
    [(_, answer)] = router.sent
    assert answer.header.kind is envelope.Kind.HEARTBEAT
    assert answer.header.message_id == (3).to_bytes(16, 'big')


def test_call_without_monitor_has_no_watchdog(message):
    assert not message().client_timeout


@pytest.mark.parametrize('result', [object(), {'a': {1: object()}}, {(): 1}])
@pytest.mark.spec('DL-17')
def test_result_that_is_no_json_becomes_a_failure(
    message, router, done, result
):
    message().reply(result)
    assert failure_of(router)['class'] == 'UnserializableBody'
    assert done == [True]


@pytest.mark.spec('DL-17')
@pytest.mark.parametrize('error', [MemoryError, RecursionError])
def test_result_that_is_too_much_for_the_encoder(
    message, router, done, monkeypatch, error
):
    def fail(*args):
        raise error

    monkeypatch.setattr(incoming.body, 'encode_reply', fail)
    message().reply('what there is no memory for')
    assert failure_of(router)['class'] == error.__name__
    assert done == [True]


@pytest.mark.spec('LC-03')
def test_child_of_a_method_deals_with_nothing(router, done, message):
    back = []
    note = incoming.NotificationIncoming(
        router, fakes.delivery(), lambda: done.append(True), back.append
    )
    call = message()
    for one in (note, call):
        one._pid = 0
    note.acknowledge()
    note.requeue()
    call.reply(1)
    assert (done, back, router.sent) == ([], [], [])


@pytest.mark.spec('DL-17')
def test_result_that_is_too_large_becomes_a_failure(message, router):
    message().reply('x' * LIMIT)
    assert failure_of(router)['class'] == 'BodyTooLarge'


@pytest.mark.spec('DL-10')
def test_exception_travels_with_its_arguments(message, router):
    message().reply(failure=caught(ValueError('no', 1)))
    failure = failure_of(router)
    assert failure['class'] == 'ValueError'
    assert failure['args'] == ['no', 1]
    assert any('Traceback' in line for line in failure['tb'])


@pytest.mark.parametrize(
    ('error', 'name', 'text'),
    [
        (ValueError('text', object()), 'ValueError', 'text'),
        (ValueError(Explosive()), 'ValueError', ''),
        (ValueError('\udc80', b'\xff'), 'ValueError', ''),
        (Rude(), 'Rude', 'Rude'),
        (Stubborn('text'), 'Stubborn', 'text'),
    ],
)
@pytest.mark.spec('DL-18')
def test_exception_that_cannot_be_serialized(
    message, router, done, error, name, text
):
    message().reply(failure=caught(error))
    failure = failure_of(router)
    assert failure['class'] == name
    assert text in failure['message']
    assert done == [True]


@pytest.mark.parametrize('letter', ['x', 'ä', '✓', '\U0001f600', '\udc80'])
@pytest.mark.spec('DL-17')
def test_exception_that_is_too_large_is_cut_down_to_fit(
    message, router, letter
):
    message().reply(failure=caught(ValueError(letter * LIMIT)))
    [(_, answer)] = router.sent
    assert len(answer.body) <= LIMIT
    assert failure_of(router)['message'].startswith(letter)


@pytest.mark.spec('DL-18')
def test_failure_can_be_rebuilt_by_the_caller(message, router):
    message().reply(failure=caught(ValueError('text', object())))
    [(_, answer)] = router.sent
    error = _oslo.deserialize_remote_exception(answer.body.decode(), [])
    assert isinstance(error, (ValueError, oslo_messaging.RemoteError))


def test_router_that_fails_does_not_reach_the_worker(
    message, router, done, caplog, monkeypatch
):
    def send(*args):
        raise OSError('broken')

    monkeypatch.setattr(router, 'send', send)
    message().reply(1)
    assert done == [True]
    assert 'cannot reply' in caplog.text


class Counting:
    """An endpoint that counts."""

    def __init__(self):
        self.runs = 0

    def method(self, ctxt, **kwargs):
        self.runs += 1
        return 'ran'


class Ending:
    """An endpoint that ends its thread."""

    def __init__(self, error):
        self._error = error

    def method(self, ctxt, **kwargs):
        raise self._error


@contextlib.contextmanager
def serving(endpoint):
    """Give oslo.messaging's own handling of a message."""
    conf = cfg.ConfigOpts()
    fixture = conffixture.ConfFixture(conf)
    fixture.setUp()
    conf([], project='zmq-driver-tests')
    server = oslo_messaging.get_rpc_server(
        oslo_messaging.get_rpc_transport(conf, 'fake:///'),
        oslo_messaging.Target(topic='topic', server='server'),
        [endpoint],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    try:
        yield lambda message: server._process_incoming([message])
    finally:
        fixture.cleanUp()


@pytest.fixture
def serve():
    """Give what handles a message, and tells how many ran."""
    endpoint = Counting()
    with serving(endpoint) as handle:

        def run(message):
            handle(message)
            return endpoint.runs

        yield run


METHOD = {'method': 'method', 'args': {}}


@pytest.mark.spec('DL-55')
@pytest.mark.parametrize(
    'limits',
    [
        {'ttl': 5.0},
        {'ttl': 5.0, 'monitor_timeout': 60.0},
        {'ttl': 60.0, 'monitor_timeout': 5.0},
        {'monitor_timeout': 5.0},
    ],
)
def test_call_that_waited_too_long_is_not_started(
    message, router, done, clock, caplog, serve, limits
):
    caplog.set_level(logging.INFO)
    late, in_time = (message(message=METHOD, **limits) for _ in range(2))
    clock.tick(4.9)
    assert serve(in_time) == 1
    assert router.sent.pop()[1].header.kind is envelope.Kind.REPLY
    clock.tick(0.1)
    assert serve(late) == 1
    [(_, answer)] = router.sent
    assert answer.header.kind is envelope.Kind.NACK
    assert answer.header.reason == envelope.NackReason.EXPIRED
    assert done == [True, True]
    assert not caplog.records


@pytest.mark.spec('DL-55')
@pytest.mark.parametrize(
    'request_',
    [
        {'flags': envelope.WANT_ACK, 'ttl': 5.0},
        {'flags': envelope.FANOUT, 'ttl': 5.0},
        {'flags': envelope.WANT_REPLY},
    ],
)
def test_what_has_no_limit_is_started_however_late(
    message, done, clock, serve, request_
):
    late = message(message=METHOD, **request_)
    clock.tick(1e6)
    assert serve(late) == 1
    assert done == [True]


@pytest.mark.spec('NS-30')
def test_notification_is_acknowledged_when_it_is_handled(done):
    back = []
    router = fakes.Router()
    one = incoming.NotificationIncoming(
        router,
        fakes.delivery(flags=envelope.NOTIFICATION),
        lambda: done.append(True),
        back.append,
    )
    one.requeue()
    one.requeue()
    assert (one.requeued, back, done) == (2, [one, one], [])
    assert not router.sent
    one.acknowledge()
    assert done == [True]
    [(_, answer)] = router.sent
    assert answer.header.kind is envelope.Kind.ACK


@pytest.mark.spec('DL-76')
@pytest.mark.parametrize('error', [SystemExit, asyncio.CancelledError])
def test_call_whose_method_ends_without_a_reply(router, done, error):
    endpoint = Ending(error)
    with serving(endpoint) as handle:
        for flags in (envelope.WANT_REPLY, envelope.WANT_ACK):
            one = incoming.RpcIncoming(
                router,
                fakes.delivery(message=METHOD, flags=flags),
                LIMIT,
                lambda: done.append(True),
            )
            with pytest.raises(error):
                handle(one)
            assert not done
            del one
            gc.collect()
            # Nothing is done by the thread that collects it.
            assert not done
            router.abandoned.settle()
            assert done.pop()
    failure = failure_of(router)
    assert failure['class'] == 'RuntimeError'
    assert 'without a reply' in failure['message']


@pytest.mark.spec('DL-76')
@pytest.mark.spec('NS-33')
def test_place_of_a_notification_that_was_dropped(router, done):
    def make():
        return incoming.NotificationIncoming(
            router,
            fakes.delivery(flags=envelope.NOTIFICATION),
            lambda: done.append(True),
            lambda message: None,
        )

    make()
    gc.collect()
    assert not done
    router.abandoned.settle()
    assert done == [True]
    [(_, answer)] = router.sent
    assert answer.header.reason is envelope.NackReason.FAILED
    make().acknowledge()
    gc.collect()
    router.abandoned.settle()
    assert done == [True, True]


@pytest.mark.spec('DL-76')
def test_dropped_message_that_makes_trouble(router, done, caplog):
    def fail():
        raise KeyError('what nobody expects')

    router.abandoned.add(fail)
    router.abandoned.add(lambda: done.append(True))
    router.abandoned.settle()
    assert done == [True]
    assert 'not dealt with' in caplog.text


@pytest.mark.spec('DL-76')
def test_what_was_answered_or_refused_is_not_dropped(message, router, done):
    message().reply(1)
    message().refuse()
    late = message()
    late.reply(1)
    late.refuse()
    del late
    gc.collect()
    router.abandoned.settle()
    assert done == [True] * 3
    assert len(router.sent) == 2
