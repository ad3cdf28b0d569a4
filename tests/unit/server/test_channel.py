# SPDX-License-Identifier: Apache-2.0
"""The ROUTER and those who send over it."""

import collections
import threading
import time

import pytest
import zmq

from tests.fixtures import waiting
from tests.unit.server import fakes
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import counters
from zmq_driver import socket_options
from zmq_driver import sockets
from zmq_driver.client import stream
from zmq_driver.server import channel as channels

LOST = 4.0
NOW = clock.Deadline(0.0)


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    """Let no look that nobody asked for hide a lost wake-up."""
    monkeypatch.setattr(channels, 'POLL_INTERVAL', 2 * LOST)


@pytest.fixture
def socket():
    return fakes.RouterSocket()


@pytest.fixture
def counts():
    return counters.Counters()


@pytest.fixture
def channel(socket, counts):
    channel = channels.Channel(socket, counts)
    yield channel
    if not socket.closed:
        channel.close(NOW)
    assert not socket.problems


class Loop:
    """A router thread, which keeps what comes in."""

    def __init__(self, socket, counts):
        self.got = []
        self.stop = threading.Event()
        self.channel = None
        self._socket = socket
        self._counts = counts
        self._begun = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self._begun.wait(30)

    def _run(self):
        self._socket.hand_over(threading.current_thread())
        self.channel = channels.Channel(self._socket, self._counts)
        self._begun.set()
        while not self.stop.is_set():
            self.channel.wait(self.stop.is_set)
            while (frames := self.channel.receive()) is not None:
                self.got.append(frames)
        self.channel.close(NOW)

    def end(self):
        self.stop.set()
        self.channel.wake()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def loop(socket, counts):
    loop = Loop(socket, counts)
    yield loop
    loop.end()
    assert not socket.problems


def test_answer_waits_while_the_router_is_awake(channel, socket):
    channel.send([b'a'])
    assert not socket.sent
    assert channel.receive() is None
    assert socket.sent == [[b'a']]


@pytest.mark.spec('TO-05')
def test_router_does_not_sleep_on_an_answer(channel, socket):
    channel.send([b'a'])
    start = time.monotonic()
    channel.wait(lambda: False)
    assert time.monotonic() - start < LOST
    channel.receive()
    assert socket.sent == [[b'a']]


def test_answers_are_sent_before_the_next_message_is_taken(channel, socket):
    socket.arrive([b'in'])
    channel.send([b'out'])
    assert channel.receive() == [b'in']
    assert socket.sent == [[b'out']]


def test_router_that_is_wanted_only_looks(channel):
    start = time.monotonic()
    channel.wait(lambda: True)
    assert time.monotonic() - start < LOST


@pytest.mark.spec('TO-02')
def test_answer_is_sent_by_its_maker_while_the_router_sleeps(loop, socket):
    waiting.until(lambda: loop.channel._wakeup.asleep, 'sleep')
    waiting.until(
        lambda: loop.channel.send([b'a']) or socket.senders, 'answer'
    )
    assert socket.sent[0] == [b'a']


@pytest.mark.spec('TO-05')
def test_message_whose_signal_was_taken_is_received(loop, socket):
    for n in range(200):
        waiting.until(lambda: loop.channel._wakeup.asleep, 'sleep')
        start = time.monotonic()
        socket.arrive([n])
        loop.channel.send([b'answer'])
        waiting.until(lambda n=n: len(loop.got) == n + 1, 'message')
        assert time.monotonic() - start < LOST


@pytest.mark.spec('TO-02')
@pytest.mark.spec('TO-05')
def test_nothing_is_lost_or_sent_twice_under_stress(loop, socket, hasty):
    makers, answers = 4, 400
    slowest = []

    def make(maker):
        for n in range(answers):
            start = time.monotonic()
            loop.channel.send((maker, n))
            if n % 4 == 0:
                socket.arrive((maker, n))
            if n % 16 == 0:
                waiting.until(
                    lambda n=n: (maker, n) in socket.sent, 'answer', 30
                )
                waiting.until(
                    lambda n=n: (maker, n) in loop.got, 'message', 30
                )
                slowest.append(time.monotonic() - start)

    threads = [threading.Thread(target=make, args=(m,)) for m in range(makers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    waiting.until(lambda: len(socket.sent) >= makers * answers, 'answers')
    assert set(collections.Counter(socket.sent).values()) == {1}
    assert set(collections.Counter(loop.got).values()) == {1}
    assert len(loop.got) == makers * answers // 4
    assert max(slowest) < LOST


@pytest.mark.spec('TO-03')
def test_close_sends_what_waits(channel, socket):
    channel.send([b'a'])
    channel.close(NOW)
    assert socket.sent == [[b'a']]
    assert socket.closed


@pytest.mark.spec('LC-31')
@pytest.mark.parametrize('leave', [True, False])
def test_clients_that_were_told_read_before_the_end(channel, socket, leave):
    if leave:
        channel.take_leave([[b'a']])
    channel.close(NOW)
    assert socket.waited_for_clients is leave


def test_answers_after_the_end_are_dropped(channel, socket, counts):
    channel.close(NOW)
    channel.send([b'a'])
    channel.wake()
    assert not socket.sent


def test_error_during_close_does_not_keep_the_socket_open(channel, socket):
    socket.fail(zmq.ContextTerminated())
    channel.send([b'a'])
    channel.close(NOW)
    assert socket.closed


def test_answer_without_a_client_is_counted(channel, socket, counts):
    socket.routable = False
    channel.send([b'a'])
    channel.receive()
    assert counts.snapshot()['replies_unroutable'] == 1


@pytest.mark.spec('TO-05')
def test_router_that_wakes_up_meanwhile_sends_itself(channel, socket):
    # The sender saw it asleep; before the lock is the sender's, it is awake
    # and has looked at the socket for the last time before it sleeps again.
    channel._wakeup.sleep_begins()
    lock = channel._lock

    class Late:
        def acquire(self, blocking=True):
            channel._wakeup.sleep_ends()
            return lock.acquire(blocking)

        def release(self):
            lock.release()

    channel._lock = Late()
    try:
        channel.send((b'client', b'header', b''))
    finally:
        channel._lock = lock
    assert list(channel._outbox) == [(b'client', b'header', b'')]


@pytest.mark.spec('NS-90')
def test_acknowledgement_waits_for_room(loop, socket, counts):
    socket.full = True
    waiting.until(lambda: loop.channel._wakeup.asleep, 'sleep')
    loop.channel.send([b'a', b'1'])
    loop.channel.send([b'a', b'2'])
    time.sleep(0.1)
    assert not socket.sent
    socket.full = False
    waiting.until(lambda: len(socket.sent) == 2, 'acknowledgements', LOST / 2)
    assert sorted(frames[1] for frames in socket.sent) == [b'1', b'2']
    assert not counts.snapshot()['replies_unroutable']


@pytest.mark.spec('NS-90')
def test_last_words_follow_what_was_held(channel, socket):
    socket.full = True
    channel.send([b'a', b'1'])
    channel.receive()
    threading.Timer(0.1, setattr, (socket, 'full', False)).start()
    channel.take_leave([[b'a', b'farewell']])
    assert [frames[1] for frames in socket.sent] == [b'1', b'farewell']


@pytest.mark.spec('NS-90', 'DL-70')
def test_last_words_never_overtake_what_is_held(channel, socket, monkeypatch):
    monkeypatch.setattr(channels, 'SETTLE', 0.0)
    socket.full = True
    channel.send([b'a', b'1'])
    channel.receive()

    def messages():
        # There is room just when nobody waits for it any more.
        socket.full = False
        yield [b'a', b'farewell']
        yield [b'b', b'farewell']

    channel.take_leave(messages())
    channel.close(NOW)
    assert [frames[1] for frames in socket.sent if frames[0] == b'a'] == [
        b'1',
        b'farewell',
    ]
    assert [b'b', b'farewell'] in socket.sent


@pytest.mark.spec('NS-90')
def test_end_does_not_wait_for_room_for_ever(channel, socket, counts):
    socket.full = True
    channel.send([b'a', b'1'])
    channel.close(clock.Deadline(0.0))
    assert socket.closed
    assert not socket.sent


def test_large_answer_does_not_wait_for_room(channel, socket, counts):
    socket.full = True
    channel.send([b'a', b'x' * 1000])
    channel.receive()
    assert counts.snapshot()['replies_unroutable'] == 1


@pytest.mark.spec('NS-90')
def test_stream_is_acknowledged_whole(tmp_path, counts):
    """With libzmq, whose thread gets no time to read meanwhile."""
    context = context_.DriverContext('tests', 1, 8)
    endpoint = f'ipc://{tmp_path}/s.ipc'
    options = socket_options.SocketOptions(0.5, 1.0, 2.0, 0.0, 4096)
    router = sockets.RouterSocket(context, endpoint, options)
    channel = channels.Channel(router, counts)
    peer = sockets.PeerSocket(context, endpoint, options)
    try:
        assert peer.wait_connected(LOST)
        peer.send((b'request', b''))
        routing_id = None
        while routing_id is None:
            frames = channel.receive()
            # An empty one says that there is a connection.
            if frames and frames[1]:
                routing_id = frames[0]
        for number in range(stream.WINDOW):
            channel.send((routing_id, b'%d' % number, b''))
        got = set()
        end = time.monotonic() + LOST
        while len(got) < stream.WINDOW and time.monotonic() < end:
            channel.receive()
            while (answer := peer.receive(0.001)) is not None:
                got.add(int(answer[0]))
        assert len(got) == stream.WINDOW
        assert not counts.snapshot()['replies_unroutable']
    finally:
        peer.close()
        channel.close(clock.Deadline(0.0))
        assert context.close(clock.Deadline(LOST))
