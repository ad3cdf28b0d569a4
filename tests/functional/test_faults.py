# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed, frozen, restarted and stopped under load."""

import collections
import os
import pathlib
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds after which something that must end is taken for hung.
HANG = 60

#: Bounds of DL-15, with room for a busy machine.
SEEN_KILLED = 2.0
SEEN_FROZEN = 4.0


class Background:
    """A function on a thread of its own, and how it ended."""

    def __init__(self, function):
        self.result = None
        self.error = None
        self.ended_at = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self, timeout=HANG):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f'runs for more than {timeout} s'
        return self

    def _run(self):
        try:
            self.result = self._function()
        except Exception as error:
            self.error = error
        self.ended_at = time.monotonic()


class Endpoint:
    """Methods whose end a test decides."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def held(self, ctxt):
        self.begun.release()
        assert self.go_on.wait(HANG)
        return 'held'

    def echo(self, ctxt, value):
        return value


def runtime(user):
    return user.transport._driver._runtime


def counted(user, name):
    return runtime(user).counters.snapshot()[name]


def ran(programs):
    """Count how often each id was executed."""
    return collections.Counter(
        line['ran'] for program in programs for line in program.all('ran')
    )


def in_order_of_their_endpoints(server, ipc_dir, count):
    """Start servers; a sender goes through them in this order."""
    seen = set()
    found = []
    for n in range(count):
        program = server(f's{n}')
        endpoint = ({p.name for p in ipc_dir.glob('*.ipc')} - seen).pop()
        seen.add(endpoint)
        found.append((endpoint, program))
    return [program for _, program in sorted(found, key=lambda f: f[0])]


@pytest.fixture
def local_server(transport, topic):
    """Give a factory of servers in this process, stopped after the test."""
    made = []

    def start(endpoint, name='local'):
        server = oslo_messaging.get_rpc_server(
            transport(),
            oslo_messaging.Target(topic=topic, server=name),
            [endpoint],
            executor='threading',
            access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        )
        made.append(server)
        server.start()
        return server

    yield start
    for server in made:
        server.stop()
        server.wait()


@pytest.mark.spec('DL-15')
@pytest.mark.spec('DL-02')
def test_call_ends_when_its_server_is_killed(server, client):
    programs = [server('a'), server('b')]
    one = client(timeout=HANG)
    call = Background(
        lambda: one.prepare(server='a').call({}, 'record', id=1, delay=HANG)
    )
    programs[0].wait_for('ran')
    killed_at = time.monotonic()
    programs[0].kill()
    call.join()
    assert isinstance(call.error, errors.PeerLost)
    assert isinstance(call.error, oslo_messaging.MessagingTimeout)
    assert call.error.may_have_run is True
    assert call.ended_at - killed_at < SEEN_KILLED
    assert ran(programs) == {1: 1}


@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-15')
def test_call_to_a_topic_is_not_repeated_when_its_server_dies(server, client):
    programs = {program.pid: program for program in (server('a'), server('b'))}
    one = client(timeout=HANG)
    call = Background(lambda: one.call({}, 'record', id=1, delay=HANG))
    waiting.until(lambda: ran(programs.values()), 'call')
    next(p for p in programs.values() if p.all('ran')).kill()
    assert isinstance(call.join().error, errors.PeerLost)
    assert one.call({}, 'who')['pid'] in programs
    assert ran(programs.values()) == {1: 1}


@pytest.mark.spec('DL-06')
def test_idle_server_that_was_killed_is_passed_over(server, client):
    programs = [server(f's{n}') for n in range(2)]
    one = client(timeout=HANG)
    assert {one.call({}, 'who')['pid'] for _ in range(4)} == {
        program.pid for program in programs
    }
    programs[0].kill()
    start = time.monotonic()
    answers = [one.call({}, 'who')['pid'] for _ in range(6)]
    assert set(answers) == {programs[1].pid}
    assert time.monotonic() - start < SEEN_KILLED


@pytest.mark.slow
@pytest.mark.spec('DL-06')
@pytest.mark.spec('DL-12')
def test_restarted_server_is_used_at_once_and_nothing_is_left(server, client):
    one = client(timeout=HANG)

    def descriptors():
        return len(list(pathlib.Path('/proc/self/fd').iterdir()))

    def threads():
        return len(list(pathlib.Path('/proc/self/task').iterdir()))

    before = None
    for n in range(20):
        program = server('restarted')
        start = time.monotonic()
        assert one.call({}, 'who')['pid'] == program.pid
        assert time.monotonic() - start < 1.0
        program.close()
        if n == 0:
            before = descriptors(), threads(), runtime(one).pool.stats().idle
    # One more call notices that the last one is gone.
    program = server('restarted')
    assert one.call({}, 'who')['pid'] == program.pid
    program.close()
    after = descriptors(), threads(), runtime(one).pool.stats().idle
    assert all(
        now <= then + 4 for now, then in zip(after, before, strict=True)
    ), f'{before} descriptors, threads and sockets became {after}'


@pytest.mark.spec('DL-15')
@pytest.mark.spec('DL-11')
def test_call_ends_when_its_server_freezes(server, client):
    program = server()
    one = client(timeout=HANG)
    call = Background(lambda: one.call({}, 'record', id='old', delay=1.0))
    program.wait_for('ran')
    frozen_at = time.monotonic()
    program.freeze()
    call.join()
    assert isinstance(call.error, errors.PeerLost)
    assert call.error.may_have_run is True
    assert call.ended_at - frozen_at < SEEN_FROZEN
    program.thaw()
    for n in range(100):
        assert one.call({}, 'echo', value=n, delay=0.02) == n
    assert ran([program]) == {'old': 1}


@pytest.mark.parametrize('kind', ['call', 'cast'])
@pytest.mark.spec('DL-01')
@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-15')
def test_idle_server_that_froze_is_told_truthfully(server, client, kind):
    programs = [server('frozen'), server('well')]
    one = client('&rpc_cast_timeout=20', timeout=HANG)
    for _ in range(4):
        one.call({}, 'who')
    programs[0].freeze()
    send = getattr(one, kind)
    finished, doubtful, refused = [], [], []
    for n in range(6):
        start = time.monotonic()
        try:
            send({}, 'record', id=n)
        except oslo_messaging.MessagingException as error:
            (doubtful if error.may_have_run else refused).append(n)
        else:
            finished.append(n)
        assert time.monotonic() - start < SEEN_FROZEN + 1
    assert len(doubtful) <= 1
    assert not refused
    programs[0].thaw()
    waiting.until(lambda: set(finished) <= set(ran(programs)), 'executions')
    # What the thawed process has got is executed before this.
    for name in ('frozen', 'well'):
        one.prepare(server=name).call({}, 'who')
    counts = ran(programs)
    assert set(finished) <= set(counts) <= set(finished) | set(doubtful)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize('connected', [True, False])
@pytest.mark.parametrize('place', [0, 2])
@pytest.mark.spec('DL-23')
@pytest.mark.spec('DL-24')
def test_fanout_is_not_held_up_by_a_frozen_server(
    server, client, ipc_dir, connected, place
):
    programs = in_order_of_their_endpoints(server, ipc_dir, 3)
    everybody = client('&rpc_cast_timeout=3').prepare(fanout=True)
    if connected:
        everybody.cast({}, 'record', id='first')
        waiting.until(lambda: ran(programs)['first'] == 3, 'first copies')
    frozen = programs.pop(place)
    frozen.freeze()
    start = time.monotonic()
    cast = Background(lambda: everybody.cast({}, 'record', id='second'))
    waiting.until(lambda: ran(programs)['second'] == 2, 'copies', HANG)
    assert time.monotonic() - start < 1.0
    cast.join()
    assert cast.error is None
    assert cast.ended_at - start < 6
    assert counted(everybody, 'fanout_copies_failed') == 1
    frozen.thaw()
    everybody.cast({}, 'record', id='third')
    waiting.until(lambda: ran([frozen])['third'], 'third copy')
    assert ran([*programs, frozen])['second'] <= 3


@pytest.mark.spec('DL-20')
@pytest.mark.spec('DL-02')
def test_cast_to_a_server_that_dies_is_unconfirmed(server, client):
    programs = [server('a'), server('b')]
    one = client()
    to_a = one.prepare(server='a')
    to_a.call({}, 'who')
    programs[0].freeze()
    sent = counted(one, 'requests_sent')
    cast = Background(lambda: to_a.cast({}, 'record', id=1))
    waiting.until(
        lambda: counted(one, 'requests_sent') > sent, 'request on its way'
    )
    killed_at = time.monotonic()
    programs[0].kill()
    cast.join()
    assert isinstance(cast.error, errors.DeliveryUnconfirmed)
    assert cast.error.may_have_run is True
    assert cast.ended_at - killed_at < SEEN_KILLED
    assert not ran(programs)


@pytest.mark.spec('DL-16')
def test_monitored_call_ends_when_its_server_freezes(server, client):
    program = server()
    one = client(timeout=HANG, call_monitor_timeout=10)
    call = Background(lambda: one.call({}, 'record', id=1, delay=HANG))
    program.wait_for('ran')
    frozen_at = time.monotonic()
    program.freeze()
    call.join()
    assert isinstance(call.error, oslo_messaging.MessagingTimeout)
    assert call.error.may_have_run is True
    assert call.ended_at - frozen_at < SEEN_FROZEN


@pytest.mark.spec('DL-16')
def test_monitored_call_ends_without_heartbeats(server, client):
    # oslo.messaging's server beats at half the time-out, but not more often
    # than once a second: here it does not beat at all.
    server()
    one = client(timeout=HANG, call_monitor_timeout=1)
    start = time.monotonic()
    with pytest.raises(errors.ReplyTimeout, match='heartbeat') as caught:
        one.call({}, 'echo', value=1, delay=5)
    assert 1.0 <= time.monotonic() - start < 4
    assert caught.value.may_have_run is True


@pytest.mark.spec('TO-03')
def test_reply_of_a_method_that_outlives_stop(local_server, client):
    endpoint = Endpoint()
    server = local_server(endpoint)
    one = client(timeout=HANG)
    call = Background(lambda: one.call({}, 'held'))
    assert endpoint.begun.acquire(timeout=HANG)
    server.stop()
    assert call.ended_at is None
    endpoint.go_on.set()
    assert call.join().result == 'held'
    server.wait()
    server.transport.cleanup()


@pytest.mark.spec('TO-04')
@pytest.mark.spec('LC-09')
def test_stopped_server_gets_nothing_more(local_server, client):
    endpoint = Endpoint()
    endpoint.go_on.set()
    server = local_server(endpoint)
    one = client(timeout=HANG)
    assert one.call({}, 'held') == 'held'
    server.stop()
    while endpoint.begun.acquire(blocking=False):
        pass
    with pytest.raises(errors.ServerNotFound):
        one.prepare(timeout=0.3).call({}, 'held')
    assert not endpoint.begun.acquire(blocking=False)


@pytest.mark.spec('TO-04')
@pytest.mark.spec('TO-06')
def test_stop_under_load_ends(local_server, client):
    one = client(timeout=HANG)
    enough = threading.Event()
    unexpected = []

    def load():
        while not enough.is_set():
            try:
                assert one.call({}, 'echo', value=7) == 7
            except errors.DriverClosed:
                return
            except Exception as error:
                unexpected.append(repr(error))

    server = local_server(Endpoint(), 'first')
    callers = [Background(load) for _ in range(6)]
    for n in range(10):
        following = local_server(Endpoint(), f'next-{n}')
        waiting.until(
            lambda f=following: counted(f, 'messages_received') > 5, 'load'
        )
        stop = Background(server.stop)
        stop.join(4)
        assert stop.error is None
        wait = Background(server.wait)
        wait.join(4)
        assert wait.error is None
        server = following
    enough.set()
    for caller in callers:
        assert caller.join().error is None
    assert not unexpected, unexpected[:5]


@pytest.mark.slow
@pytest.mark.spec('LC-05')
def test_cleanup_under_load_loses_no_call(local_server, client):
    one = client(timeout=HANG)
    enough = threading.Event()
    unexpected = []

    def load():
        while not enough.is_set():
            try:
                assert one.call({}, 'echo', value=7) == 7
            except Exception as error:
                unexpected.append(repr(error))

    server = local_server(Endpoint(), 'first')
    callers = [Background(load) for _ in range(4)]
    for n in range(20):
        following = local_server(Endpoint(), f'next-{n}')
        waiting.until(
            lambda f=following: counted(f, 'messages_received') > 5, 'load'
        )
        server.stop()
        server.wait()
        server.transport.cleanup()
        server = following
    enough.set()
    for caller in callers:
        assert caller.join().error is None
    assert not unexpected, f'{len(unexpected)}: {unexpected[:3]}'


@pytest.mark.parametrize('end', ['kill', 'freeze'])
@pytest.mark.spec('DL-33')
def test_notification_of_a_lost_listener_goes_to_another(
    server, notifier, end
):
    programs = [
        server(name, '--notifications', '--listener-pool', 'pool')
        for name in 'ab'
    ]
    one = notifier()

    def noted(members):
        return collections.Counter(
            line['notified'] for p in members for line in p.all('notified')
        )

    for n in range(4):
        one.info({}, 'event', f'before-{n}')
    waiting.until(lambda: sum(noted(programs).values()) == 4, 'notifications')
    lost, well = programs
    lost.freeze()
    senders = [
        Background(lambda n=n: one.info({}, 'event', f'after-{n}'))
        for n in range(4)
    ]
    waiting.until(
        lambda: (
            counted(one, 'requests_sent')
            + counted(one, 'notifications_stored')
            >= 8
        ),
        'notifications on the way',
    )
    if end == 'kill':
        lost.kill()
    for sender in senders:
        assert sender.join().error is None
    waiting.until(
        lambda: {f'after-{n}' for n in range(4)} <= set(noted([well])),
        'notifications of the lost listener',
    )
    # The lost one had its turn.
    assert counted(one, 'notifications_stored') > 0
    assert set(noted([well]).values()) == {1}


@pytest.mark.spec('LC-04')
def test_killed_process_leaves_nothing_that_is_found(server, client, ipc_dir):
    program = server()
    one = client(timeout=HANG)
    one.call({}, 'who')
    program.kill()
    with pytest.raises(errors.ServerNotFound):
        one.prepare(timeout=0.3).call({}, 'who')
    assert os.getpid() != program.pid
    assert not list(ipc_dir.glob('*/*'))
