# SPDX-License-Identifier: Apache-2.0
"""More peers than the pool may have sockets.

``ZMQ_DRIVER_STRESS=5`` makes it five times as large, up to 1,000 peers.
"""

from concurrent import futures
import contextlib
import os
import random
import time

import pytest

from tests.fixtures import pool_client
from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import pool

FACTOR = float(os.environ.get('ZMQ_DRIVER_STRESS', '1'))
PEERS = min(1000, int(200 * FACTOR))
CALLS = int(4000 * FACTOR)
THREADS = 8
SEED = int(os.environ.get('ZMQ_DRIVER_STRESS_SEED', random.randrange(1 << 32)))

OPTIONS = pool.PoolOptions(
    max_size=128,
    max_per_peer=8,
    idle_ttl=1.0,
    max_age=60.0,
    min_idle=0,
    reap_interval=0.5,
)


class Client(pool_client.PoolClient):
    """Threads that call random peers."""

    def __init__(self, endpoints, options):
        super().__init__('scale', options)
        self.endpoints = endpoints
        self._most_descriptors = (
            pool_client.descriptors() + 2 * options.max_size + 50
        )

    def run(self, number, calls):
        """Call random peers; return how many answered rightly.

        Fail if there are too many descriptors. libzmq closes sockets on a
        thread of its own, which on a busy machine may be late.
        """
        chance = random.Random(SEED + number)
        for call in range(calls):
            self.call(chance.choice(self.endpoints), b'%d %d' % (number, call))
            if call % 50 == 0:
                waiting.until(
                    lambda: pool_client.descriptors() < self._most_descriptors,
                    'closed descriptors',
                )
        return calls


@pytest.fixture
def endpoints():
    program = process.Program('peers', PEERS).start()
    yield program.wait_for('ready')['ready']
    program.close()


@pytest.fixture
def make_client(endpoints):
    clients = []

    def make(options):
        clients.append(Client(endpoints, options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.mark.spec('PL-03', 'PL-04', 'PL-34')
def test_many_peers_share_few_sockets(make_client):
    print(f'ZMQ_DRIVER_STRESS_SEED={SEED}')
    client = make_client(OPTIONS)
    before = pool_client.descriptors()
    with futures.ThreadPoolExecutor(THREADS) as threads:
        runs = [
            threads.submit(client.run, n, CALLS // THREADS)
            for n in range(THREADS)
        ]
        done = sum(run.result() for run in runs)
    end = time.monotonic()
    assert done == CALLS // THREADS * THREADS

    stats = client.pool.stats()
    print(stats)
    assert stats.closed_total[pool.EvictReason.SURPLUS] > 0
    assert stats.closed_total[pool.EvictReason.UNFINISHED] == 0
    assert 0.0 < stats.hit_ratio < 1.0

    # What the machine is late does not count against the pool.
    allowed = OPTIONS.idle_ttl + OPTIONS.reap_interval
    waiting.until(lambda: not client.pool.stats().peers, 'empty pool')
    took = time.monotonic() - end
    print(f'empty after {took:.2f} s, allowed are {allowed:.2f} s')
    assert took < allowed + 1.0
    client.pool.check_invariants()
    waiting.until(
        lambda: pool_client.descriptors() < before + 50, 'closed descriptors'
    )


@pytest.mark.spec('PL-34')
def test_some_sockets_to_each_peer_stay(make_client):
    client = make_client(
        pool.PoolOptions(idle_ttl=0.2, reap_interval=0.1, min_idle=1)
    )
    client.endpoints = client.endpoints[:4]
    with futures.ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(client.run, range(THREADS), [25] * THREADS))
    waiting.until(
        lambda: client.pool.stats().idle == len(client.endpoints),
        'one socket to each peer',
    )
    # Several runs later they are still there, for they are healthy.
    reaped = client.pool.stats().reaped_total
    time.sleep(0.5)
    stats = client.pool.stats()
    assert (stats.idle, stats.reaped_total) == (len(client.endpoints), reaped)


@pytest.mark.spec('PL-35')
def test_sockets_to_a_peer_that_is_gone_are_closed(make_client):
    client = make_client(
        pool.PoolOptions(idle_ttl=60, reap_interval=0.1, min_idle=8)
    )
    with contextlib.closing(process.Program('peers', 1).start()) as program:
        client.endpoints = program.wait_for('ready')['ready']
        client.run(0, 5)
        assert client.pool.stats().idle == 1
    waiting.until(lambda: not client.pool.stats().peers, 'empty pool')
    closed = client.pool.stats().closed_total
    assert closed[pool.EvictReason.UNHEALTHY] == 1
