# SPDX-License-Identifier: Apache-2.0
"""RPC between processes."""

import collections
import datetime
import os
import threading
import time
import uuid

import oslo_messaging
from oslo_messaging.rpc import client as rpc_client
import pytest

from tests.fixtures import waiting
from zmq_driver import errors


def servers_of(programs):
    return {program.pid for program in programs}


@pytest.mark.spec('DL-10')
def test_call_returns_what_the_method_returned(server, client):
    program = server('one')
    assert client().call({}, 'who') == {'server': 'one', 'pid': program.pid}
    assert program.pid != os.getpid()


@pytest.mark.spec('DL-10')
def test_values_and_context_travel(server, client):
    server()
    one = client()
    value = {'a': [1, 2.5, None, True, 'ä'], 'b': {'c': 'x' * 100000}}
    assert one.call({}, 'echo', value=value) == value
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert one.call({}, 'echo', value=moment).startswith('2026-01-02T03:04:05')
    identity = uuid.uuid4()
    assert one.call({}, 'echo', value=identity) == str(identity)
    context = {'user': 'u', 'roles': ['a']}
    assert one.call(context, 'context') == context


@pytest.mark.spec('DL-10')
def test_builtin_exception_comes_back_as_itself(server, client):
    server()
    with pytest.raises(ValueError, match='no such value'):
        client().call({}, 'fail', kind='value')


@pytest.mark.spec('DL-10')
def test_exception_of_another_module_needs_to_be_allowed(server, client):
    server()
    with pytest.raises(rpc_client.RemoteError, match='MessagingTimeout'):
        client().call({}, 'fail', kind='timeout')
    allowed = client(allowed_remote_exmods=['oslo_messaging.exceptions'])
    with pytest.raises(oslo_messaging.MessagingTimeout, match='from the ser'):
        allowed.call({}, 'fail', kind='timeout')


@pytest.mark.spec('DL-18')
def test_exception_with_unserializable_arguments(server, client):
    server()
    with pytest.raises(rpc_client.RemoteError) as caught:
        client(timeout=5).call({}, 'fail', kind='unserializable')
    assert caught.value.exc_type == 'Unpicklable'
    assert 'text' in caught.value.value


@pytest.mark.spec('DL-17')
def test_unserializable_result_fails_at_once(server, client):
    server()
    with pytest.raises(rpc_client.RemoteError) as caught:
        client(timeout=30).call({}, 'unserializable')
    assert 'deep' in caught.value.value


@pytest.mark.spec('DL-17')
def test_too_large_result_fails_at_once(server, client):
    server(query='&max_message_size=100000')
    one = client(timeout=30)
    with pytest.raises(rpc_client.RemoteError, match='max_message_size'):
        one.call({}, 'large', size=200000)
    assert len(one.call({}, 'large', size=90000)) == 90000


def test_namespace_and_version(server, client):
    server('one')
    one = client()
    assert (
        one.prepare(namespace='other', version='2.1').call({}, 'who')
        == 'other'
    )
    assert one.prepare(version='1.5').call({}, 'who')['server'] == 'one'
    with pytest.raises(rpc_client.RemoteError, match='UnsupportedVersion'):
        one.prepare(version='1.6').call({}, 'who')
    with pytest.raises(rpc_client.RemoteError, match='NoSuchMethod'):
        one.call({}, 'nothing')


@pytest.mark.spec('DL-07')
def test_servers_of_a_topic_take_turns(server, client):
    programs = [server(f's{n}') for n in range(3)]
    one = client()
    answers = [one.call({}, 'who')['pid'] for _ in range(9)]
    assert set(collections.Counter(answers).values()) == {3}
    assert set(answers) == servers_of(programs)


@pytest.mark.spec('DL-07')
def test_threads_of_a_client_share_the_turns(server, client):
    programs = [server(f's{n}') for n in range(3)]
    one = client()
    answers = []

    def call():
        for _ in range(30):
            answers.append(one.call({}, 'who')['pid'])

    threads = [threading.Thread(target=call) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    counts = collections.Counter(answers)
    assert sum(counts.values()) == 300
    assert set(counts) == servers_of(programs)
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.spec('DL-08')
def test_directed_call_reaches_its_server_only(server, client):
    for n in range(3):
        server(f's{n}')
    directed = client().prepare(server='s1')
    assert {directed.call({}, 'who')['server'] for _ in range(6)} == {'s1'}


@pytest.mark.spec('DL-08')
def test_directed_call_does_not_fall_back(server, client):
    server('s0')
    with pytest.raises(errors.ServerNotFound, match='s9'):
        client(timeout=0.3).prepare(server='s9').call({}, 'who')


@pytest.mark.spec('DL-08')
def test_server_names_are_opaque(server, client):
    server('host@backend1')
    server('host@backend2')
    one = client()
    for name in ('host@backend1', 'host@backend2'):
        assert one.prepare(server=name).call({}, 'who')['server'] == name


@pytest.mark.spec('DL-09')
def test_exchanges_are_apart(server, client):
    server('in-a', '--exchange', 'a')
    server('in-b', '--exchange', 'b')
    one = client()
    assert {
        one.prepare(exchange='a').call({}, 'who')['server'] for _ in range(4)
    } == {'in-a'}
    assert one.prepare(exchange='b').call({}, 'who')['server'] == 'in-b'
    with pytest.raises(errors.ServerNotFound):
        client(timeout=0.2).prepare(exchange='c').call({}, 'who')


@pytest.mark.spec('DL-09')
def test_virtual_hosts_are_apart(conf, ipc_dir, server, client, topic):
    server('root')
    query = f'?rpc_zmq_ipc_dir={ipc_dir}'
    transport = oslo_messaging.get_rpc_transport(conf, f'zmq:///v1{query}')
    other = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=0.3
    )
    with pytest.raises(errors.ServerNotFound):
        other.call({}, 'who')
    transport.cleanup()


@pytest.mark.spec('DL-04')
@pytest.mark.spec('DL-12')
def test_call_to_nobody_takes_exactly_its_time(client):
    start = time.monotonic()
    with pytest.raises(oslo_messaging.MessagingTimeout) as caught:
        client(timeout=0.5).call({}, 'who')
    assert 0.5 <= time.monotonic() - start < 5
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-04')
@pytest.mark.spec('DL-12')
def test_no_call_to_nobody_ends_before_its_time(client):
    one = client()
    ended = []

    def call(number):
        timeout = 0.02 * (number + 1)
        mine = one.prepare(timeout=timeout, topic=f'nobody-{number % 4}')
        for _ in range(3):
            start = time.monotonic()
            with pytest.raises(errors.ServerNotFound):
                mine.call({}, 'who')
            ended.append((timeout, time.monotonic() - start))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 96
    assert not [(t, took) for t, took in ended if not t <= took < t + 10]


@pytest.mark.spec('DL-12')
def test_waiting_call_reaches_a_server_that_appears(server, client):
    one = client(timeout=30)
    answer = []
    caller = threading.Thread(
        target=lambda: answer.append(one.call({}, 'who'))
    )
    caller.start()
    server('late')
    caller.join(5)
    assert answer
    assert answer[0]['server'] == 'late'


@pytest.mark.spec('DL-04')
@pytest.mark.spec('DL-11')
def test_late_reply_reaches_nobody(server, client):
    server()
    one = client()
    slow = one.prepare(timeout=0.3)
    start = time.monotonic()
    with pytest.raises(errors.ReplyTimeout) as caught:
        slow.call({}, 'echo', value='late', delay=0.6)
    assert time.monotonic() - start >= 0.3
    assert caught.value.may_have_run is True
    for n in range(200):
        assert one.call({}, 'echo', value=n, delay=0.005) == n


@pytest.mark.spec('DL-13')
def test_mandatory_message_to_nobody_fails_at_once(client):
    options = oslo_messaging.TransportOptions(at_least_once=True)
    one = client(timeout=60, transport_options=options)
    start = time.monotonic()
    with pytest.raises(oslo_messaging.MessageUndeliverable) as caught:
        one.call({}, 'who')
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        one.cast({}, 'who')
    assert time.monotonic() - start < 10
    assert caught.value.routing_key.startswith('topic-')


@pytest.mark.spec('DL-14')
def test_no_retry_fails_at_once(client):
    one = client(timeout=60, retry=0)
    start = time.monotonic()
    with pytest.raises(oslo_messaging.MessageDeliveryFailure) as caught:
        one.call({}, 'who')
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        one.cast({}, 'who')
    assert time.monotonic() - start < 10
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-14')
def test_limited_retries_wait_for_a_server(client):
    one = client('&retry_interval=0.2', timeout=60, retry=2)
    start = time.monotonic()
    with pytest.raises(errors.DeliveryRefused):
        one.call({}, 'who')
    assert 0.4 <= time.monotonic() - start < 10


@pytest.mark.spec('DL-16')
def test_monitored_call_outlives_the_monitor_timeout(server, client):
    server()
    one = client(timeout=60, call_monitor_timeout=2)
    assert one.call({}, 'echo', value=1, delay=4) == 1


@pytest.mark.spec('DL-20')
@pytest.mark.spec('DL-21')
def test_cast_returns_before_the_method_ran(server, client):
    program = server()
    start = time.monotonic()
    client().cast({}, 'record', id='c', delay=3)
    assert time.monotonic() - start < 2
    assert program.wait_for('ran')['ran'] == 'c'


@pytest.mark.spec('DL-20')
def test_cast_to_nobody_fails_in_time(client):
    start = time.monotonic()
    with pytest.raises(errors.DeliveryRefused) as caught:
        client('&rpc_cast_timeout=0.4').cast({}, 'record', id=1)
    assert 0.4 <= time.monotonic() - start < 5
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-22')
def test_fanout_brings_one_copy_to_each(server, client):
    programs = [server(f's{n}') for n in range(3)]
    everybody = client().prepare(fanout=True)
    for n in range(20):
        everybody.cast({}, 'record', id=n)
    for program in programs:
        waiting.until(lambda p=program: len(p.all('ran')) >= 20, 'copies')
        ran = [line['ran'] for line in program.all('ran')]
        assert sorted(ran) == list(range(20))


@pytest.mark.spec('DL-22')
def test_fanout_reaches_a_server_that_has_just_started(server, client):
    everybody = client().prepare(fanout=True)
    first = server('first')
    everybody.cast({}, 'record', id='a')
    first.wait_for('ran')
    second = server('second')
    # The cached answer is checked against the registry every 10 ms.
    time.sleep(0.05)
    everybody.cast({}, 'record', id='b')
    assert second.wait_for('ran')['ran'] == 'b'


@pytest.mark.spec('DL-23')
def test_fanout_to_nobody_succeeds(client):
    client().prepare(fanout=True).cast({}, 'record', id=1)


@pytest.mark.spec('DL-24')
def test_fanouts_do_not_lock_each_other_with_few_sockets(server, client):
    programs = [server(f's{n}') for n in range(4)]
    everybody = client('&pool_max_size=3').prepare(fanout=True)
    threads = [
        threading.Thread(
            target=lambda n=n: [
                everybody.cast({}, 'record', id=f'{n}-{m}') for m in range(5)
            ]
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for program in programs:
        waiting.until(lambda p=program: len(p.all('ran')) >= 30, 'copies')
        assert len({line['ran'] for line in program.all('ran')}) == 30
        assert len(program.all('ran')) == 30


@pytest.mark.spec('DL-41')
def test_busy_server_lets_another_one_serve(server, client):
    busy = server(
        'busy', '--executor-threads', 1, query='&rpc_zmq_topic_backlog=1'
    )
    free = server('free')
    one = client()
    one.prepare(server='busy').cast({}, 'record', id='long', delay=3)
    busy.wait_for('ran')
    for n in range(4):
        one.cast({}, 'record', id=n)
    waiting.until(lambda: len(free.all('ran')) == 4, 'casts at the free one')
    assert len(busy.all('ran')) == 1


@pytest.mark.spec('DL-41')
def test_busy_server_is_waited_for(server, client):
    server('busy', '--executor-threads', 1, query='&rpc_zmq_topic_backlog=1')
    one = client()
    one.cast({}, 'record', id='long', delay=0.5)
    assert one.call({}, 'who')['server'] == 'busy'


@pytest.mark.spec('DL-40')
def test_too_large_argument(server, client):
    server()
    one = client('&max_message_size=100000')
    with pytest.raises(
        oslo_messaging.MessageDeliveryFailure, match='max_message_size'
    ):
        one.call({}, 'echo', value='x' * 200000)
    assert one.call({}, 'echo', value='x' * 90000) == 'x' * 90000


def test_unserializable_argument_names_its_place(client):
    with pytest.raises(ValueError, match=r'args\.value\.inner'):
        client().call({}, 'echo', value={'inner': object()})


def test_target_without_topic(transport):
    one = oslo_messaging.get_rpc_client(
        transport(), oslo_messaging.Target(exchange='e')
    )
    with pytest.raises(oslo_messaging.InvalidTarget):
        one.call({}, 'who')


def test_malformed_version(client):
    with pytest.raises(oslo_messaging.MessagingException, match='nonsense'):
        client().prepare(version='nonsense')


@pytest.mark.slow
@pytest.mark.spec('DL-11')
def test_concurrent_calls_of_many_sizes(server, client):
    # The long form of this is tools/soak_replies.py.
    server()
    one = client(timeout=30)
    wrong = []

    def call(thread):
        for n in range(40):
            value = f'{thread}-{n}-' + 'x' * (7 ** (n % 8))
            if (
                one.call({}, 'echo', value=value, delay=0.001 * (n % 5))
                != value
            ):
                wrong.append((thread, n))

    threads = [threading.Thread(target=call, args=(t,)) for t in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not wrong


def test_the_matchmaker_is_the_one_that_was_asked_for(request, transport):
    kinds = {
        'local': 'LocalMatchmaker',
        'redis': 'RedisMatchmaker',
        'sentinel': 'SentinelMatchmaker',
    }
    cache = transport()._driver.runtime().matchmaker
    assert (
        type(cache._backend).__name__
        == kinds[request.config.getoption('--matchmaker')]
    )
