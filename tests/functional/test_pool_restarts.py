# SPDX-License-Identifier: Apache-2.0
"""A peer that is killed and started again, a hundred times.

``ZMQ_DRIVER_STRESS=5`` makes it five hundred times.
"""

from concurrent import futures
import contextlib
import os
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import pool_client
from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import waiting
from tests.programs import restarts
from zmq_driver import clock
from zmq_driver import counters
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool
from zmq_driver.client import exchange

FACTOR = float(os.environ.get('ZMQ_DRIVER_STRESS', '1'))
RESTARTS = max(1, int(100 * FACTOR))

#: Sockets that are in use together before a restart.
SOCKETS = 3

#: Seconds for a connection to a peer that is not there.
CONNECT_TIMEOUT = 0.1

#: Seconds after which a call that its server had must have ended: the bound
#: of the heartbeats (1.5 s), and what a busy machine adds.
BOUND = 6.5


class Peer:
    """The process whose children are killed."""

    def __init__(self, *arguments):
        self._program = process.Program('restarts', *arguments).start()
        self._starts = 0

    def start(self):
        """Start it, and return its process id once it can be reached."""
        self._starts += 1
        return self._do('start', f'started {self._starts}')

    def kill(self):
        return self._do('kill', f'killed {self._starts}')

    def _do(self, command, answer):
        self._program.write(command)
        found = self._program.wait_for(answer, process.START_TIMEOUT)
        return found[answer]

    def wait_for_call(self, number):
        """Return when it executes the call of this number."""
        waiting.until(
            lambda: any(a['ran'] == number for a in self._program.all('ran')),
            f'call {number}',
        )

    def close(self):
        self._program.close()


@pytest.fixture
def make_peer():
    with contextlib.ExitStack() as stack:

        def make(*arguments):
            peer = Peer(*arguments)
            stack.callback(peer.close)
            return peer

        yield make


class Watch:
    """What this process has before and after a test."""

    def __init__(self):
        self._threads = set(threading.enumerate())
        self._descriptors = pool_client.descriptors()

    def check(self, spare=0):
        """Fail if there are more threads, or *spare* more descriptors."""
        most = self._descriptors + spare
        waiting.until(
            lambda: pool_client.descriptors() <= most,
            f'end of descriptors above {most}',
        )
        waiting.until(
            lambda: set(threading.enumerate()) <= self._threads,
            f'end of threads other than {self._threads}',
        )


# -- on the same endpoint


@pytest.fixture(params=['ipc', 'tcp'])
def endpoint(request, ipc_dir):
    if request.param == 'ipc':
        return f'ipc://{ipc_dir}/peer'
    return f'tcp://127.0.0.1:{ports.free()}'


class Client(pool_client.PoolClient):
    """Calls one peer, whether it lives or not."""

    def __init__(self, endpoint):
        super().__init__(
            'restarts',
            pool.PoolOptions(max_size=8, max_per_peer=8, idle_ttl=60),
        )
        self.endpoint = endpoint
        self.counters = counters.Counters()
        #: Seconds that the longest call of each kind took.
        self.longest_lost = 0.0
        self.longest_refused = 0.0

    def call_with_all(self):
        """Use several sockets at once; each call has to succeed."""
        deadline = clock.Deadline(pool_client.PATIENCE)
        with contextlib.ExitStack() as stack:
            leases = [
                stack.enter_context(
                    self.pool.checkout(self.endpoint, deadline)
                )
                for _ in range(SOCKETS)
            ]
            for number, lease in enumerate(leases):
                pool_client.exchange(lease, b'%d' % number, deadline)

    def call_a_dead_peer(self):
        """Be told that nothing was sent."""
        begin = time.monotonic()
        with pytest.raises(errors.PeerNotReady):
            self._connect()
        took = time.monotonic() - begin
        self.longest_refused = max(self.longest_refused, took)

    def _connect(self):
        with self.pool.checkout(self.endpoint, self._deadline()) as lease:
            assert lease.fresh
            self._exchange(lease).connect(CONNECT_TIMEOUT)

    def lose(self, peer):
        """Have the peer killed while it has a message."""
        begin = time.monotonic()
        with pytest.raises(errors.PeerLost):
            self._wait_for_ever(peer)
        took = time.monotonic() - begin
        self.longest_lost = max(self.longest_lost, took)

    def _wait_for_ever(self, peer):
        with self.pool.checkout(self.endpoint, self._deadline()) as lease:
            assert not lease.fresh
            lease.socket.send([restarts.HOLD])
            peer.kill()
            self._exchange(lease).receive(
                envelope.Kind.REPLY, self._deadline()
            )

    def _deadline(self):
        return clock.Deadline(pool_client.PATIENCE)

    def _exchange(self, lease):
        return exchange.Exchange(lease, bytes(16), self.counters)

    def closed(self, reason):
        return self.pool.stats().closed_total[reason]


@pytest.mark.spec('PL-05', 'PL-07', 'PL-08', 'PL-14')
def test_restarts_on_the_same_endpoint(make_peer, endpoint):
    peer = make_peer('--echo', endpoint)
    watch = Watch()
    with contextlib.closing(Client(endpoint)) as client:
        steady = None
        for number in range(RESTARTS):
            peer.start()
            restart(client, number)
            # Not one descriptor more than with the first of the servers.
            steady = steady or Watch()
            client.lose(peer)
            if number % 2:
                client.call_a_dead_peer()
                assert client.pool.stats().idle == 0
        peer.start()
        restart(client, RESTARTS)
        steady.check()
        client.pool.check_invariants()
        stats = client.pool.stats()
        assert (
            stats.created_total - sum(stats.closed_total.values()) == SOCKETS
        )
    print(
        f'{RESTARTS} restarts at {endpoint}: a call under way ended after at '
        f'most {client.longest_lost:.3f} s, one to a dead peer after '
        f'{client.longest_refused:.3f} s'
    )
    assert client.longest_lost < BOUND
    assert client.longest_refused < CONNECT_TIMEOUT + 5
    watch.check()


def restart(client, number):
    """See that what is left of the dead peer is replaced when it is lent."""
    dead = client.pool.stats().idle
    before = client.closed(pool.EvictReason.UNHEALTHY)
    client.call_with_all()
    replaced = client.closed(pool.EvictReason.UNHEALTHY) - before
    assert replaced == dead, f'restart {number}'
    stats = client.pool.stats()
    assert (stats.idle, stats.in_use) == (SOCKETS, 0)


# -- on another endpoint


def call_who(client, threads):
    """Call once in each of *threads*; return who answered, and how late."""
    together = threading.Barrier(SOCKETS)

    def call(_):
        together.wait(BOUND)
        begin = time.monotonic()
        answer = client.call({}, 'who')
        return answer['pid'], time.monotonic() - begin

    found = list(threads.map(call, range(SOCKETS)))
    return {pid for pid, _ in found}, max(late for _, late in found)


@pytest.mark.spec('DL-06', 'DL-15', 'PL-05', 'PL-12')
def test_restarts_on_another_endpoint(make_peer, url, topic, transport):
    peer = make_peer('--url', url, '--topic', topic)
    watch = Watch()
    mine = transport()
    client = oslo_messaging.get_rpc_client(
        mine,
        oslo_messaging.Target(topic=topic),
        timeout=pool_client.PATIENCE,
    )
    longest_lost = longest_first = 0.0
    steady = None
    with futures.ThreadPoolExecutor(SOCKETS) as threads:
        for number in range(RESTARTS):
            pid = peer.start()
            found, late = call_who(client, threads)
            assert found == {pid}, f'restart {number}'
            longest_first = max(longest_first, late)
            steady = steady or Watch()
            if number % 2:
                # The next call finds out that the server is not there.
                peer.kill()
                continue
            call = threads.submit(
                client.call, {}, 'record', id=number, delay=60
            )
            peer.wait_for_call(number)
            begin = time.monotonic()
            peer.kill()
            with pytest.raises(errors.PeerLost):
                call.result(2 * pool_client.PATIENCE)
            longest_lost = max(longest_lost, time.monotonic() - begin)
        peer.start()
        call_who(client, threads)
        # Calls that overlap less than others need fewer sockets.
        steady.check(spare=3 * SOCKETS)
        stats = mine._driver.runtime().pool.stats()
    print(
        f'{RESTARTS} restarts of a server: a call under way ended after at '
        f'most {longest_lost:.3f} s, the first to its successor after '
        f'{longest_first:.3f} s'
    )
    assert longest_lost < BOUND
    assert longest_first < BOUND
    assert stats.in_use == stats.opening == stats.waiting == 0
    assert stats.peers == 1
    assert 1 <= stats.idle <= SOCKETS
    mine.cleanup()
    watch.check()
