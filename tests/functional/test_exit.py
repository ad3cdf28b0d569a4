# SPDX-License-Identifier: Apache-2.0
"""Processes that exit without ``cleanup()``, and what is left of them."""

import collections
import contextlib
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import process
from tests.fixtures import redis_server
from tests.fixtures import waiting
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import errors

#: Seconds after which something hangs, on a machine that is busy.
HANG = 30

#: For clients: libzmq takes a peer for dead if a large message of it takes
#: longer than the heartbeats allow, which is none of the server's business.
PATIENT = f'&heartbeat_interval=5&heartbeat_timeout={HANG}'

#: How a process exits, and its exit status.
ENDS = {
    'return': 0,
    'exit': 0,
    'error': 1,
    'interrupt': -2,
    'terminate': 0,
}


#: Bytes of a reply that is more than the kernel takes at once.
SIZE = 30 * 2**20


class Caller(threading.Thread):
    """A call on a thread of its own."""

    def __init__(self, client, number, delay):
        super().__init__(daemon=True)
        self.answer = None
        self._call = lambda: client.call({}, 'record', id=number, delay=delay)
        self.start()

    def run(self):
        try:
            self.answer = self._call()
        except Exception as error:
            self.answer = error

    def end(self):
        self.join(HANG)
        assert not self.is_alive()
        return self.answer


@pytest.fixture
def exiting(url, topic):
    """Give a factory of programs that exit without cleanup."""
    started = []

    def start(*arguments, query=''):
        program = process.Program(
            'exiting', '--url', url + query, '--topic', topic, *arguments
        )
        started.append(program)
        return program.start()

    yield start
    for program in started:
        program.close()


def ran(program):
    return collections.Counter(line['ran'] for line in program.all('ran'))


def nobody_is_registered(client):
    options = oslo_messaging.TransportOptions(at_least_once=True)
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        client.prepare(transport_options=options, timeout=5).call({}, 'who')
    return True


@pytest.mark.spec('LC-13')
@pytest.mark.spec('LC-14')
@pytest.mark.parametrize('how', ENDS)
def test_what_a_server_has_accepted_runs_before_it_exits(exiting, client, how):
    program = exiting('--server', 'one', '--how', how)
    one = client(timeout=HANG)
    for number in range(10):
        one.cast({}, 'record', id=number, delay=0.05)
    callers = [Caller(one, f'call-{n}', 0.05) for n in range(5)]
    waiting.until(
        lambda: (
            one.transport._driver._runtime.counters.snapshot()['requests_sent']
            == 15
        ),
        'requests',
    )
    time.sleep(0.1)
    program.write('end')
    assert program.wait(HANG) == ENDS[how]
    assert [caller.end() for caller in callers] == [
        f'call-{n}' for n in range(5)
    ]
    assert ran(program) == collections.Counter(
        [*range(10), *(f'call-{n}' for n in range(5))]
    )
    assert nobody_is_registered(one)


@pytest.mark.spec('LC-13')
def test_exit_withdraws_the_registrations_first(exiting, client):
    program = exiting('--server', 'leaving')
    one = client(timeout=HANG)
    one.cast({}, 'record', id=1, delay=2.0)
    program.wait_for('ran')
    program.write('end')
    waiting.until(lambda: _is_gone(one), 'withdrawal')
    # It still runs what it has accepted.
    assert program.poll() is None
    with pytest.raises(errors.ServerNotFound):
        one.prepare(timeout=0.2).call({}, 'who')
    assert program.wait(HANG) == 0


def _is_gone(client):
    driver = client.transport._driver
    where = driver._address(
        address.Scope.RPC, client.target, client.target.topic
    )
    matchmaker = driver.runtime().matchmaker
    return not matchmaker.lookup(where, clock.Deadline(5)).routes


@pytest.mark.spec('LC-13')
def test_messages_that_come_during_the_exit_go_elsewhere(exiting, client):
    leaving = exiting('--server', 'leaving')
    staying = exiting('--server', 'staying', '--executor-threads', '8')
    one = client(timeout=HANG)
    enough = threading.Event()
    failed, answered = [], []

    def load(thread):
        number = 0
        while not enough.is_set():
            number += 1
            identity = f'{thread}-{number}'
            try:
                answered.append(one.call({}, 'record', id=identity))
                one.cast({}, 'record', id=f'cast-{identity}')
                answered.append(f'cast-{identity}')
            except Exception as error:
                failed.append(error)

    threads = [
        threading.Thread(target=load, args=[n], daemon=True) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    leaving.wait_for('ran')
    leaving.write('end')
    assert leaving.wait(HANG) == 0
    before = len(answered)
    waiting.until(lambda: len(answered) > before + 20, 'more answers', HANG)
    enough.set()
    for thread in threads:
        thread.join(HANG)
    assert not failed, failed[:3]
    waiting.until(
        lambda: len(ran(leaving) + ran(staying)) >= len(answered), 'records'
    )
    assert ran(leaving) + ran(staying) == collections.Counter(answered)


@pytest.mark.spec('LC-15')
@pytest.mark.parametrize('how', ENDS)
def test_what_a_client_has_sent_runs_after_it_exits(exiting, server, how):
    receiver = server('receiver')
    program = exiting('--casts', '50', '--how', how)
    program.write('end')
    assert program.wait(HANG) == ENDS[how]
    expected = collections.Counter(
        [*range(50), *(f'all-{n}' for n in range(0, 50, 10))]
    )
    waiting.until(lambda: len(ran(receiver)) >= 55, 'casts')
    assert ran(receiver) == expected


@pytest.mark.spec('LC-06')
@pytest.mark.spec('LC-14')
def test_exit_without_anything_under_way_takes_no_time(exiting, client):
    program = exiting('--server', 'one', '--notifications')
    assert client().call({}, 'echo', value=1) == 1
    program.write('end')
    start = time.monotonic()
    assert program.wait(HANG) == 0
    # A bound on hangs; two routers refuse for a tenth of a second each.
    assert time.monotonic() - start < 3


@pytest.mark.spec('LC-14')
def test_exit_does_not_wait_for_ever_for_what_waits(exiting, client):
    program = exiting('--server', 'one', query='&cleanup_timeout=0.5')
    one = client(timeout=HANG)
    for number in range(50):
        one.cast({}, 'record', id=number, delay=1.0)
    program.wait_for('ran')
    program.write('end')
    assert program.wait(HANG) == 0
    assert len(ran(program)) < 10
    assert 'accepted messages are not finished' in program.errors()


@pytest.mark.spec('LC-14')
def test_reply_of_a_method_that_outlives_the_wait_is_sent(exiting, client):
    program = exiting('--server', 'one', query='&cleanup_timeout=0.5')
    caller = Caller(client(timeout=HANG), 1, 2.0)
    program.wait_for('ran')
    program.write('end')
    assert caller.end() == 1
    assert program.wait(HANG) == 0


@pytest.mark.spec('LC-14')
def test_large_reply_at_the_end_arrives_whole(exiting, client):
    # How long it takes depends on how busy the machine is.
    program = exiting('--server', 'one', query=f'&cleanup_timeout={HANG}')
    one = client(PATIENT, timeout=HANG)
    one.cast({}, 'record', id=1, delay=0.5)
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(one.call({}, 'large', size=SIZE)),
        daemon=True,
    )
    thread.start()
    program.wait_for('ran')
    time.sleep(0.1)
    program.write('end')
    assert program.wait(HANG) == 0
    thread.join(HANG)
    assert [len(answer) for answer in answers] == [SIZE]


@pytest.fixture
def slow_reader(exiting):
    """Give a caller that was frozen when it had sent a large call."""

    def start(program):
        caller = exiting('--size', SIZE, query=PATIENT)
        caller.write('call')
        program.wait_for('large')
        caller.freeze()
        return caller

    return start


@pytest.mark.spec('LC-14')
@pytest.mark.spec('LC-30')
@pytest.mark.parametrize('line', ['end', 'cleanup'])
def test_reply_that_is_read_slowly_arrives_whole(exiting, slow_reader, line):
    program = exiting(
        '--server', 'one', query=f'&cleanup_timeout={HANG}&linger=0.1'
    )
    caller = slow_reader(program)
    program.write('go on')
    program.write(line)
    # Much longer than it lingers.
    time.sleep(2.0)
    assert program.poll() is None
    caller.thaw()
    assert caller.wait_for('answer', HANG)['answer'] == SIZE
    assert program.wait(HANG) == 0


@pytest.mark.spec('LC-14')
@pytest.mark.spec('LC-30')
@pytest.mark.parametrize('line', ['end', 'cleanup'])
def test_reply_that_nobody_reads_holds_up_no_end(exiting, slow_reader, line):
    program = exiting('--server', 'one', query='&cleanup_timeout=1&linger=0.1')
    caller = slow_reader(program)
    program.write('go on')
    program.write(line)
    assert program.wait(HANG) == 0
    caller.thaw()
    assert 'PeerLost' in caller.wait_for('failed', HANG)['failed']


@pytest.mark.spec('LC-14')
def test_notification_that_was_requeued_goes_to_another(
    exiting, server, notifier, topic
):
    program = exiting('--notifications')
    notifier().info({}, 'event', 7)
    program.wait_for('asked_again')
    other = server('other', '--notifications')
    program.write('end')
    assert program.wait(HANG) == 0
    assert other.wait_for('notified')['notified'] == 7


@pytest.mark.spec('LC-06')
@pytest.mark.parametrize('kind', ['daemon', 'thread'])
def test_exit_while_a_call_is_under_way(exiting, server, kind):
    receiver = server('receiver')
    program = exiting('--call', kind, '--how', 'exit')
    program.write('end')
    assert program.wait(HANG) == 0
    # The interpreter waits for threads that are not daemons.
    assert len(program.all('answer')) == (kind == 'thread')
    assert not program.all('failed')
    assert 'Traceback' not in program.errors()
    assert not receiver.all('failed')


@pytest.mark.spec('LC-16')
@pytest.mark.parametrize('child', ['exit', 'os-exit'])
def test_exit_of_a_forked_child_ends_nothing_of_its_parent(
    exiting, client, child
):
    program = exiting('--server', 'parent', '--child', child)
    one = client(timeout=HANG)
    assert one.call({}, 'who')['pid'] == program.pid
    program.write('fork')
    assert program.wait_for('child_ended')['child_ended'] == 0
    assert one.call({}, 'who')['pid'] == program.pid
    assert client().call({}, 'who')['pid'] == program.pid
    program.write('end')
    assert program.wait(HANG) == 0
    assert nobody_is_registered(one)


@pytest.mark.spec('LC-17')
def test_what_waits_for_a_thread_runs_before_wait_returns(server, client):
    program = server('one', '--executor-threads', '1')
    one = client(timeout=HANG)
    for number in range(20):
        one.cast({}, 'record', id=number, delay=0.05)
    callers = [Caller(one, f'call-{n}', 0.05) for n in range(5)]
    program.wait_for('ran')
    program.terminate()
    answers = [caller.end() for caller in callers]
    # The last calls may have come too late, and are told so.
    told = [isinstance(a, errors.ServerNotFound) for a in answers]
    assert ran(program) == collections.Counter(
        [
            *range(20),
            *(a for a, late in zip(answers, told, strict=True) if not late),
        ]
    )


@pytest.fixture
def redis():
    with contextlib.closing(redis_server.RedisServer()) as server:
        yield server.start()


@pytest.fixture
def redis_url(redis, ipc_dir):
    return (
        f'zmq+redis://{redis.address}/?rpc_zmq_ipc_dir={ipc_dir}'
        f'&rpc_zmq_bind_address=127.0.0.1'
    )


def records(redis):
    return [
        member
        for key in redis.command('KEYS', '*:at:*')
        for member in redis.command('ZRANGE', key, 0, -1)
    ]


@pytest.mark.spec('LC-13')
@pytest.mark.parametrize('how', ['return', 'terminate'])
def test_exit_withdraws_what_is_in_redis(redis, redis_url, topic, how):
    program = process.Program(
        'exiting',
        '--url',
        redis_url,
        '--topic',
        topic,
        '--server',
        'one',
        '--notifications',
        '--how',
        how,
    )
    with contextlib.closing(program.start()):
        assert len(records(redis)) == 2
        program.write('end')
        assert program.wait(HANG) == 0
        assert records(redis) == []


@pytest.mark.spec('LC-13')
def test_redis_that_hangs_holds_up_no_exit(redis, redis_url, topic):
    program = process.Program(
        'exiting',
        '--url',
        redis_url,
        '--topic',
        topic,
        '--server',
        'one',
        '--notifications',
    )
    with contextlib.closing(program.start()):
        redis.freeze()
        program.write('end')
        start = time.monotonic()
        assert program.wait(HANG) == 0
        # One second for Redis; the rest is a bound on hangs.
        assert time.monotonic() - start < 5
        assert 'could not be withdrawn' in program.errors()
