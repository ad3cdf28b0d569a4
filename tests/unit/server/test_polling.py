# SPDX-License-Identifier: Apache-2.0
"""The loop that hands over batches of notifications."""

import threading

import pytest

from tests.unit.server import fakes
from tests.unit.server import test_listener
from zmq_driver import clock as clocks
from zmq_driver import counters
from zmq_driver.server import listener as listeners
from zmq_driver.server import polling
from zmq_driver.server import subscription as subscriptions


@pytest.fixture
def listener():
    router = fakes.Router()
    listener = listeners.NotificationListener(
        subscriptions.Subscription(
            router, fakes.Registry(router.story), [fakes.INFO], 'pool'
        ),
        router,
        test_listener.new_backlog(10),
        counters.Counters(),
    )
    listener.open(clocks.Deadline(30))
    return listener


@pytest.mark.spec('DL-77')
def test_batch_that_the_executor_does_not_take_comes_again(listener, caplog):
    got = []
    done = threading.Event()

    def take(batch):
        got.append([message.message['n'] for message in batch])
        if len(got) < 3:
            raise RuntimeError("can't start new thread")
        for message in batch:
            message.acknowledge()
        done.set()

    loop = polling.PollingLoop(listener, 2, 1.0)
    for n in range(2):
        assert listener.deliver(test_listener.note(n)) is None
    loop.start(take)
    try:
        assert done.wait(30)
    finally:
        loop.stop()
    assert [sorted(numbers) for numbers in got] == [[0, 1]] * 3
    [line] = caplog.records
    assert line.levelname == 'WARNING'
    assert "can't start new thread" in line.getMessage()


@pytest.mark.spec('DL-77')
def test_single_ones_are_handed_over_at_once(listener, caplog):
    """Those that the executor does not take are polled."""
    got = []
    done = threading.Event()

    def take(batch):
        [message] = batch
        got.append((threading.current_thread(), message.message['n']))
        if len(got) == 1:
            raise RuntimeError("can't start new thread")
        message.acknowledge()
        if len(got) == 3:
            done.set()

    loop = polling.PollingLoop(listener, 1, None)
    loop.start(take)
    try:
        for n in range(2):
            assert listener.deliver(test_listener.note(n)) is None
        assert done.wait(30)
    finally:
        loop.stop()
    here = threading.current_thread()
    assert sorted(n for _, n in got) == [0, 0, 1]
    assert [thread is here for thread, _ in got] == [True, True, False]
    assert len(caplog.records) == 1
