# SPDX-License-Identifier: Apache-2.0
"""Floods of every kind, and what they cost the others."""

import contextlib
import itertools
import json
import os
import pathlib
import statistics
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
from zmq_driver import socket_options

#: Seconds after which something hangs, on a machine that is busy.
HANG = 60

#: Bytes that a flooded server may gain. Most floods below are much larger.
MOST_GROWTH = 150 * 2**20

#: Seconds for which a flood lasts.
FLOOD = 3.0

QUERY = (
    '&rpc_zmq_topic_backlog=100&max_backlog_size=4000000'
    '&max_message_size=2000000'
)


def resident(pid):
    """Return the bytes of memory that a process has, and ever had."""
    lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
    found = dict(line.split(':', 1) for line in lines)
    return tuple(
        int(found[name].split()[0]) * 1024 for name in ('VmRSS', 'VmHWM')
    )


class Strangers:
    """Raw DEALER sockets that send to a server and never read."""

    def __init__(self, endpoint, count):
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self.sockets = []
        for _ in range(count):
            socket = self._context.socket(zmq.DEALER)
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 10)
            socket.set(zmq.RCVHWM, 1)
            socket.connect(endpoint)
            self.sockets.append(socket)

    def flood(self, make, seconds=FLOOD):
        """Send what *make* makes for as long; return messages and bytes."""
        end = time.monotonic() + seconds
        messages = size = 0
        while time.monotonic() < end:
            sent = False
            for socket in self.sockets:
                frames = make()
                with contextlib.suppress(zmq.Again):
                    socket.send_multipart(frames, zmq.NOBLOCK)
                    messages += 1
                    size += sum(map(len, frames))
                    sent = True
            if not sent:
                time.sleep(0.001)
        return messages, size

    def close(self):
        for socket in self.sockets:
            socket.close(0)
        self._context.term()


class Flooded:
    """A server process, and how to reach it without a driver."""

    def __init__(self, program, client, flags=0, scope=address.Scope.RPC):
        self.program = program
        self.client = client
        topic = client.target.topic
        if scope is address.Scope.NOTIFICATION:
            topic += '.info'
        driver = client.transport._driver
        where = driver._address(scope, client.target, topic)
        [self.route] = (
            driver.runtime().matchmaker.lookup(where, clock.Deadline(5)).routes
        )
        self._where = where
        self._flags = flags
        self._before = resident(program.pid)[0]
        self._numbers = itertools.count()

    def request(self, body, flags=envelope.WANT_ACK):
        header = envelope.encode_request(
            os.urandom(8) + next(self._numbers).to_bytes(8, 'big'),
            self._where.exchange,
            self._where.topic,
            self.route.server,
            self.route.incarnation,
            flags=flags | self._flags,
        )
        return header, body

    def check(self, what, messages, size, most=MOST_GROWTH):
        """Fail if the flood has cost too much; print what it has cost."""
        assert self.program.poll() is None, self.program.errors()
        growth = resident(self.program.pid)[1] - self._before
        print(
            f'{what}: {messages} messages, {size / 2**20:.0f} MiB; '
            f'grew by {growth / 2**20:.0f} MiB'
        )
        assert growth < most
        assert 'Traceback' not in self.program.errors()


@pytest.fixture
def flooded(server, client):
    program = server('victim', '--executor-threads', '4', query=QUERY)
    one = client(timeout=HANG)
    assert one.call({}, 'echo', value=1) == 1
    return Flooded(program, one)


@pytest.fixture
def strangers(flooded):
    with contextlib.closing(Strangers(flooded.route.endpoint, 20)) as made:
        yield made


@pytest.mark.slow
@pytest.mark.spec('DL-72')
@pytest.mark.parametrize('size', [100, 1_900_000])
def test_flood_of_garbage(flooded, strangers, size):
    noise = os.urandom(size)
    told = strangers.flood(lambda: [noise, noise, noise])
    # What libzmq holds for each connection, and one that is coming in.
    pipes = 20 * (socket_options.PIPE_RECEIVED + 1) * 3 * size
    flooded.check(f'garbage of {size} bytes', *told, max(pipes, MOST_GROWTH))
    assert flooded.client.call({}, 'echo', value=2) == 2


@pytest.mark.slow
@pytest.mark.spec('DL-72')
def test_flood_of_frames_over_the_limit(flooded, strangers):
    noise = os.urandom(8_000_000)
    told = strangers.flood(lambda: [noise])
    flooded.check('frames over the limit', *told)
    assert flooded.client.call({}, 'echo', value=2) == 2


@pytest.mark.slow
@pytest.mark.spec('DL-72')
def test_many_connections(flooded):
    with contextlib.closing(
        Strangers(flooded.route.endpoint, 400)
    ) as strangers:
        told = strangers.flood(lambda: [b'x', b'y'])
        flooded.check('400 connections', *told)
        assert flooded.client.call({}, 'echo', value=2) == 2


@pytest.mark.slow
@pytest.mark.spec('DL-72')
def test_client_that_never_reads_its_replies(flooded):
    body = json.dumps(
        [{}, {'method': 'large', 'args': {'size': 300_000}}]
    ).encode()
    with contextlib.closing(Strangers(flooded.route.endpoint, 4)) as strangers:
        told = strangers.flood(
            lambda: flooded.request(body, envelope.WANT_REPLY)
        )
        flooded.check('replies of 300 kB that nobody reads', *told)
        assert flooded.client.call({}, 'echo', value=2) == 2


@pytest.mark.slow
@pytest.mark.spec('DL-41')
@pytest.mark.spec('DL-71')
@pytest.mark.spec('DL-72')
@pytest.mark.parametrize('size', [0, 1_000_000])
@pytest.mark.parametrize('flags', [0, envelope.FANOUT])
def test_flood_of_casts_beyond_the_backlog(flooded, strangers, size, flags):
    sleep = json.dumps(
        [{}, {'method': 'echo', 'args': {'value': 'x' * size, 'delay': 0.2}}]
    ).encode()
    told = strangers.flood(
        lambda: flooded.request(sleep, envelope.WANT_ACK | flags)
    )
    flooded.check(f'casts of {size} bytes', *told)
    # It waits until what was taken has been run.
    assert flooded.client.call({}, 'echo', value=2) == 2


@pytest.mark.slow
@pytest.mark.spec('DL-72')
def test_flood_of_notifications(server, client, notifier):
    program = server('', '--notifications', '--requeue', '100000', query=QUERY)
    one = client(timeout=HANG)
    flooded = Flooded(
        program, one, envelope.NOTIFICATION, address.Scope.NOTIFICATION
    )
    payload = {
        'event_type': 'e',
        'publisher_id': 'p',
        'payload': 'x' * 100_000,
        'priority': 'INFO',
        'message_id': '1',
        'timestamp': 'now',
    }
    body = json.dumps([{}, payload]).encode()
    with contextlib.closing(
        Strangers(flooded.route.endpoint, 20)
    ) as strangers:
        told = strangers.flood(lambda: flooded.request(body))
    flooded.check('notifications that are requeued', *told)


class Busy:
    """An endpoint that takes its time."""

    def __init__(self):
        self.go = threading.Event()
        self.running = threading.Semaphore(0)

    def wait(self, ctxt):
        self.running.release()
        assert self.go.wait(HANG)

    def echo(self, ctxt, value):
        return value


@pytest.fixture
def saturated(transport, topic):
    """Give a server in this process that takes nothing more, its endpoint
    and its transport.
    """
    endpoint = Busy()
    one = transport('&rpc_zmq_topic_backlog=2')
    server = oslo_messaging.get_rpc_server(
        one,
        oslo_messaging.Target(topic=topic, server='saturated'),
        [endpoint],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start()
    client = oslo_messaging.get_rpc_client(
        transport(), oslo_messaging.Target(topic=topic)
    )
    for _ in range(2):
        client.cast({}, 'wait')
    yield endpoint, one
    endpoint.go.set()
    server.stop()
    server.wait()


@pytest.mark.spec('DL-73')
def test_senders_choose_another_server_at_once(saturated, server, client):
    other = server('other')
    one = client(timeout=HANG)
    for number in range(20):
        assert one.call({}, 'record', id=number) == number
        one.cast({}, 'record', id=f'cast-{number}')
    assert len(other.all('ran')) >= 20
    assert saturated[0].running.acquire(timeout=HANG)


@pytest.mark.spec('DL-73')
@pytest.mark.spec('DL-04')
def test_caller_waits_for_a_busy_server_until_its_deadline(saturated, client):
    start = time.monotonic()
    with pytest.raises(errors.ServerNotFound, match='busy') as caught:
        client(timeout=0.5).call({}, 'echo', value=1)
    assert 0.5 <= time.monotonic() - start < HANG
    assert caught.value.may_have_run is False
    with pytest.raises(errors.DeliveryRefused, match='busy') as caught:
        client('&rpc_cast_timeout=0.2').cast({}, 'echo', value=1)
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-73')
@pytest.mark.spec('DL-14')
@pytest.mark.parametrize('retry', [0, 3])
def test_retries_are_counted_when_a_server_is_busy(saturated, client, retry):
    one = client(timeout=HANG, retry=retry)
    with pytest.raises(errors.DeliveryRefused, match='busy') as caught:
        one.call({}, 'echo', value=1)
    assert caught.value.may_have_run is False
    counters = one.transport._driver._runtime.counters.snapshot()
    assert counters['requests_refused'] == retry + 1


@pytest.mark.spec('DL-73')
def test_caller_that_waits_gets_its_turn(saturated, client):
    results = []
    waiter = threading.Thread(
        target=lambda: results.append(
            client(timeout=HANG).call({}, 'echo', value=1)
        ),
        daemon=True,
    )
    waiter.start()
    time.sleep(0.2)
    assert not results
    saturated[0].go.set()
    waiter.join(HANG)
    assert results == [1]


@pytest.mark.spec('DL-73')
def test_busy_server_costs_no_look_ups(saturated, client):
    one = client(timeout=1)
    runtime = one.transport._driver.runtime()
    looks = []
    original = runtime.matchmaker.invalidate
    runtime.matchmaker.invalidate = lambda where: (
        looks.append(where),
        original(where),
    )
    with pytest.raises(errors.ServerNotFound, match='busy'):
        one.call({}, 'echo', value=1)
    assert not looks


def percentiles(call, rounds):
    times = []
    for _ in range(rounds):
        start = time.monotonic()
        call()
        times.append(time.monotonic() - start)
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


@pytest.mark.slow
@pytest.mark.spec('DL-74')
def test_saturated_server_delays_nobody_else(
    saturated, transport, server, client, topic
):
    """Measure calls to another topic of its driver, and to another process,
    with and without senders that it refuses; in turn.
    """
    neighbour = oslo_messaging.get_rpc_server(
        saturated[1],
        oslo_messaging.Target(topic=f'{topic}-2', server='neighbour'),
        [Busy()],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    neighbour.start()
    server('elsewhere', topic=f'{topic}-3')
    one = transport()
    calls = {
        name: oslo_messaging.get_rpc_client(
            one, oslo_messaging.Target(topic=f'{topic}-{n}'), timeout=HANG
        )
        for name, n in (('same driver', 2), ('other process', 3))
    }
    senders = [
        oslo_messaging.get_rpc_client(
            transport(), oslo_messaging.Target(topic=topic), timeout=1
        )
        for _ in range(4)
    ]
    flooding, enough = threading.Event(), threading.Event()

    def send(sender):
        while not enough.is_set():
            if not flooding.wait(0.1):
                continue
            with contextlib.suppress(errors.ServerNotFound):
                sender.call({}, 'echo', value=1)

    threads = [
        threading.Thread(target=send, args=[sender], daemon=True)
        for sender in senders
    ]
    for thread in threads:
        thread.start()
    found = {}
    for turn in range(6):
        (flooding.set if turn % 2 else flooding.clear)()
        for name, target in calls.items():
            found.setdefault((name, turn % 2), []).append(
                percentiles(lambda c=target: c.call({}, 'echo', value=1), 200)
            )
    enough.set()
    for thread in threads:
        thread.join(HANG)
    neighbour.stop()
    neighbour.wait()
    for name in calls:
        for index, which in enumerate(('p50', 'p99')):
            calm, flood = (
                statistics.median(one[index] for one in found[name, state])
                for state in (0, 1)
            )
            print(
                f'{name}, {which}: {calm * 1000:.2f} ms calm, '
                f'{flood * 1000:.2f} ms while another is saturated, '
                f'ratio {flood / calm:.2f}'
            )
            # Waiting for the saturated one would take a second.
            assert flood < 1.0
    waiting.until(lambda: saturated[0].running.acquire(timeout=1), 'end')
