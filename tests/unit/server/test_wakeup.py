# SPDX-License-Identifier: Apache-2.0
"""The wake-up that cannot be lost."""

import collections
import os
import select
import threading

import pytest

from zmq_driver.server import wakeup

#: Seconds after which a wake-up is taken for lost.
LOST = 10.0


@pytest.fixture
def wake():
    wake = wakeup.Wakeup()
    yield wake
    wake.close()


def is_set(wake):
    return bool(select.select([wake.fd], [], [], 0)[0])


def test_owner_that_is_awake_is_not_woken(wake):
    assert not wake.asleep
    wake.set()
    assert not is_set(wake)


@pytest.mark.spec('TO-05')
def test_owner_that_sleeps_is_woken_once(wake):
    wake.sleep_begins()
    assert wake.asleep
    wake.set()
    assert not wake.asleep
    wake.set()
    assert is_set(wake)
    wake.sleep_ends()
    assert not is_set(wake)


@pytest.mark.spec('TO-05')
def test_every_sleep_can_be_ended(wake):
    for n in range(100):
        wake.sleep_begins()
        if n % 3:
            wake.set()
        assert is_set(wake) == bool(n % 3)
        wake.sleep_ends()
        assert not wake.asleep


def test_nobody_is_woken_after_the_end():
    wake = wakeup.Wakeup()
    wake.sleep_begins()
    fd = wake.fd
    wake.close()
    wake.close()
    other = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert other == fd, 'the descriptor was not closed'
        wake.set()
        wake.sleep_ends()
        assert not select.select([other], [], [], 0)[0]
    finally:
        os.close(other)


def test_descriptor_of_somebody_else_is_never_written(hasty):
    # Who closes one descriptor and opens another gets the same number.
    current = []
    stop = threading.Event()

    def set_for_ever():
        while not stop.is_set():
            for wake in tuple(current):
                wake.set()

    setters = [threading.Thread(target=set_for_ever) for _ in range(4)]
    for setter in setters:
        setter.start()
    written = 0
    try:
        for _ in range(500):
            wake = wakeup.Wakeup()
            current[:] = [wake]
            wake.sleep_begins()
            wake.close()
            other = os.eventfd(0, os.EFD_NONBLOCK)
            wake._awake = False
            written += bool(select.select([other], [], [], 0.0002)[0])
            os.close(other)
    finally:
        stop.set()
        for setter in setters:
            setter.join(30)
    assert not written


@pytest.mark.spec('TO-05')
def test_no_wakeup_is_lost(wake, hasty):
    # Each producer waits until its item was taken, so one wake-up that is
    # lost leaves everybody waiting.
    work = collections.deque()
    producers, items = 3, 5000
    lost = []

    def produce():
        taken = threading.Semaphore(0)
        for _ in range(items):
            work.append(taken)
            wake.set()
            if not taken.acquire(timeout=LOST):
                lost.append('item')
                return

    threads = [threading.Thread(target=produce) for _ in range(producers)]
    for thread in threads:
        thread.start()
    poll = select.poll()
    poll.register(wake.fd, select.POLLIN)
    done = 0
    while done < producers * items and not lost:
        wake.sleep_begins()
        if not work:
            poll.poll(LOST * 2000)
        wake.sleep_ends()
        while work:
            work.popleft().release()
            done += 1
    for thread in threads:
        thread.join(30)
    assert not lost
    assert done == producers * items
