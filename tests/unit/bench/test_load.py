# SPDX-License-Identifier: Apache-2.0
"""The threads of a client process."""

import contextlib
import threading
import time

import pytest

from zmq_driver.bench import histogram
from zmq_driver.bench.programs import executions
from zmq_driver.bench.programs import load

COMMAND = {
    'run': 3,
    'pattern': 'call',
    'threads': 2,
    'process': 1,
    'duration': 30.0,
    'think': 0.0,
    'limit': 5,
}


class Sender:
    """Keeps what is sent; fails, or hangs, where a test wants it."""

    def __init__(self, failing=(), gate=None):
        self.sent = []
        self.threads = set()
        self.opened_for = []
        self._failing = failing
        self._gate = gate

    @contextlib.contextmanager
    def opened(self, pattern, number):
        self.opened_for.append((pattern, number))
        yield self._send

    def _send(self, message, payload):
        self.sent.append((message, payload))
        self.threads.add(threading.current_thread())
        if self._gate is not None:
            self._gate.wait(30)
        if message[1] in self._failing:
            raise ValueError('no\nmore')


def number(sender, sequence):
    return (sender << executions.SEQUENCE_BITS) + sequence


def order(sender, payloads=('a',), **kwargs):
    return load.Order(sender, payloads, {**COMMAND, **kwargs})


@pytest.mark.spec('BN-04')
def test_nobody_sends_before_the_start():
    sender = Sender()
    one = order(sender)
    first = load.SENDERS
    assert sorted(sender.opened_for) == [('call', first), ('call', first + 1)]
    assert not sender.sent
    before = time.monotonic()
    found = one.carry_out(30)
    assert before <= found['begin'] <= time.monotonic()
    assert len(sender.threads) == 2


@pytest.mark.spec('BN-06')
def test_every_message_has_an_id_of_its_own():
    sender = Sender()
    found = order(sender).carry_out(30)
    first = load.SENDERS
    assert sorted(message for message, _ in sender.sent) == [
        [3, number(first + thread, sequence)]
        for thread in range(2)
        for sequence in range(5)
    ]
    assert found['senders'] == [[first, 5, []], [first + 1, 5, []]]
    assert found['in_time'] == 10
    assert not found['errors']
    latencies = histogram.Histogram.from_json(found['latencies'])
    assert latencies.count == 10


@pytest.mark.spec('BN-06', 'BN-14')
def test_what_fails_is_counted_and_no_latency():
    first = load.SENDERS
    sender = Sender(failing={number(first, 1), number(first + 1, 4)})
    found = order(sender).carry_out(30)
    assert found['senders'] == [[first, 5, [1]], [first + 1, 5, [4]]]
    assert found['errors'] == {'ValueError: no': 2}
    assert found['in_time'] == 8
    latencies = histogram.Histogram.from_json(found['latencies'])
    assert latencies.count == 8


@pytest.mark.spec('BN-07')
def test_what_ends_too_late_does_not_count_as_rate():
    gate = threading.Event()
    timer = threading.Timer(0.3, gate.set)
    timer.start()
    found = order(Sender(gate=gate), duration=0.1).carry_out(30)
    timer.join(30)
    assert found['in_time'] == 0
    assert [sent for _, sent, _ in found['senders']] == [1, 1]
    assert histogram.Histogram.from_json(found['latencies']).count == 2


@pytest.mark.spec('BN-18')
def test_a_message_that_does_not_come_to_an_end():
    gate = threading.Event()
    one = order(Sender(gate=gate), duration=0.05)
    with pytest.raises(TimeoutError, match='does not come to an end'):
        one.carry_out(0.05)
    gate.set()


@pytest.mark.spec('BN-05')
def test_threads_send_all_payloads_in_turn():
    payloads = [str(n) for n in range(7)]
    sender = Sender()
    order(sender, payloads, threads=1, limit=14).carry_out(30)
    sent = [payload for _, payload in sender.sent]
    assert sorted(sent[:7]) == payloads
    assert sent[:7] == sent[7:]


def test_a_thread_thinks():
    found = order(Sender(), think=0.05, limit=2).carry_out(30)
    assert found['in_time'] == 4
