# SPDX-License-Identifier: Apache-2.0
"""The thread that drains, with a store in memory."""

import threading
import time

import pytest

from tests.fixtures import waiting
from tests.unit.client import stores
from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver.client import drain
from zmq_driver.client import outbox as outboxes
from zmq_driver.store import base
from zmq_driver.store import none


class Drain:
    """Counts its passes; each may raise."""

    def __init__(self):
        self.passes = 0
        self.raises = []
        self.closed = threading.Event()
        self.fails_to_close = False

    def run(self):
        self.passes += 1
        if self.raises:
            raise self.raises.pop()
        return 0.01

    def close(self, deadline):
        self.closed.set()
        if self.fails_to_close:
            raise base.StoreUnavailable('not at the end')


@pytest.fixture
def drains():
    return []


@pytest.fixture
def store():
    return stores.MemoryStore()


@pytest.fixture
def outbox(store, drains, monkeypatch):
    monkeypatch.setattr(base.NotificationStore, 'standby', 0.02)
    monkeypatch.setattr(outboxes, 'STORE_PAUSES', (0.01, 0.02))

    def make():
        drains.append(Drain())
        return drains[-1]

    outbox = outboxes.Outbox('unit', store, make, presence=0.01)
    yield outbox
    outbox.close(clocks.Deadline(30))


def passes(drains, count=3):
    before = drains[-1].passes
    waiting.until(lambda: drains[-1].passes >= before + count, 'passes')


@pytest.mark.spec('NS-44')
def test_it_waits_for_its_turn_and_stops_when_that_is_over(
    outbox, store, drains, caplog
):
    store.mine = False
    outbox.start()
    outbox.start()
    waiting.until(lambda: store.asked > 3, 'questions')
    outbox.wake()
    assert not drains
    store.mine = True
    waiting.until(lambda: drains, 'its turn')
    passes(drains)
    store.mine = False
    assert drains[0].closed.wait(30)
    assert 'another process' in caplog.text
    store.mine = True
    waiting.until(lambda: len(drains) == 2, 'its turn again')
    outbox.close(clocks.Deadline(30))
    assert drains[1].closed.is_set()


@pytest.mark.spec('NS-49')
@pytest.mark.parametrize(
    'error', [base.StoreUnavailable('no disk'), ValueError('a defect')]
)
def test_it_survives_what_goes_wrong(outbox, drains, error, caplog):
    outbox.start()
    waiting.until(lambda: drains, 'its turn')
    drains[0].raises += [error] * 3
    passes(drains, 6)
    assert str(error) in caplog.text
    # What went on with a defect in it would not be certain of anything.
    begins_anew = isinstance(error, ValueError)
    assert len(drains) == 1 + begins_anew
    assert drains[0].closed.is_set() == begins_anew


@pytest.mark.spec('NS-49')
def test_it_says_what_could_not_be_left_in_order(outbox, drains, caplog):
    outbox.start()
    waiting.until(lambda: drains, 'its turn')
    drains[0].fails_to_close = True
    outbox.close(clocks.Deadline(30))
    assert 'not at the end' in caplog.text


def test_it_does_not_start_without_a_store(drains):
    outbox = outboxes.Outbox('unit', none.NoStore(None), drains.append)
    outbox.start()
    outbox.close(clocks.Deadline(1))
    assert not outbox._thread.is_alive()


def test_it_does_not_start_after_its_end(outbox):
    outbox.close(clocks.Deadline(1))
    outbox.start()
    assert not outbox._thread.is_alive()


def test_a_system_without_threads_keeps_nobody_from_notifying(
    outbox, monkeypatch, caplog
):
    def fail(self):
        raise RuntimeError('no thread left')

    monkeypatch.setattr(threading.Thread, 'start', fail)
    outbox.start()
    assert 'no thread left' in caplog.text


def test_an_end_that_takes_too_long_is_logged(outbox, drains, caplog):
    outbox.start()
    waiting.until(lambda: drains, 'its turn')
    entered, go = threading.Event(), threading.Event()

    def run():
        entered.set()
        go.wait(30)
        return 0.01

    drains[0].run = run
    assert entered.wait(30)
    try:
        outbox.close(clocks.Deadline(0.05))
    finally:
        go.set()
    assert 'did not end' in caplog.text


WHERE = address.Address(address.Scope.NOTIFICATION, 'exchange', 'topic')


@pytest.mark.spec('NS-53')
@pytest.mark.parametrize('mine', [True, False])
def test_who_is_here_is_told_again_and_again(outbox, store, drains, mine):
    store.mine = mine
    outbox.present = lambda: [(WHERE, 'a'), (WHERE, 'b')]
    outbox.start()
    for _ in range(3):
        waiting.until(lambda: store.durable.get(WHERE) == {'a', 'b'}, 'pools')
        store.durable.clear()
    outbox.present = list
    time.sleep(0.05)
    store.durable.clear()
    time.sleep(0.1)
    assert not store.durable


@pytest.mark.spec('NS-49', 'NS-53')
def test_it_drains_while_that_fails(outbox, store, drains, caplog):
    outbox.present = lambda: [(WHERE, 'a')]
    store.fails.add('saw')
    outbox.start()
    waiting.until(lambda: drains, 'its turn')
    passes(drains)
    assert 'saw fails' in caplog.text


@pytest.mark.spec('NS-49')
def test_it_drains_although_nobody_can_say_who_is_here(outbox, drains, caplog):
    def fail():
        raise ValueError('a defect')

    outbox.present = fail
    outbox.start()
    waiting.until(lambda: drains, 'its turn', 5)
    passes(drains)
    assert 'a defect' in caplog.text


@pytest.mark.spec('NS-57')
@pytest.mark.parametrize('fails', [False, True])
def test_who_cannot_connect_leaves_it_to_another(
    outbox, store, drains, caplog, fails
):
    left = []
    store.unclaim = lambda: left.append(1)
    outbox.start()
    waiting.until(lambda: drains, 'its turn')
    drains[0].fails_to_close = fails
    drains[0].raises.append(drain.Starved('no descriptor'))
    assert drains[0].closed.wait(30)
    waiting.until(lambda: len(drains) == 2, 'its turn again')
    assert left
    assert 'no descriptor' in caplog.text
