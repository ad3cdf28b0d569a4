# SPDX-License-Identifier: Apache-2.0
"""Counts, and a log that cannot be flooded."""

import logging
import threading

import pytest

from tests.fixtures import clock as fake
from zmq_driver import counters


def test_every_counter_begins_at_zero_and_grows():
    one = counters.Counters()
    assert set(one.snapshot()) == set(one.NAMES)
    assert not any(one.snapshot().values())
    one.add('requeued')
    one.add('peers_lost', 3)
    assert one.snapshot()['requeued'] == 1
    assert one.snapshot()['peers_lost'] == 3


def test_unknown_counter():
    one = counters.Counters()
    with pytest.raises(KeyError, match='nonsense'):
        one.add('nonsense')
    assert 'nonsense' not in one.snapshot()


def test_threads_lose_no_count():
    one = counters.Counters()
    threads = [
        threading.Thread(
            target=lambda: [one.add('requeued') for _ in range(1000)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert one.snapshot()['requeued'] == 4000


@pytest.mark.spec('DL-42')
def test_log_leaves_out_and_says_how_many(caplog):
    time = fake.FakeClock()
    log = counters.LimitedLog(
        logging.getLogger('zmq_driver.tests'), logging.WARNING, 10.0, time
    )
    log('first %s', 1)
    for _ in range(5):
        log('left out')
    time.tick(9.9)
    log('left out')
    time.tick(0.1)
    log('second')
    time.tick(10.0)
    log('third')
    assert [record.getMessage() for record in caplog.records] == [
        'first 1',
        'second (6 more like this since the last line)',
        'third',
    ]
