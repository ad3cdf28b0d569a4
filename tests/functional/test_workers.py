# SPDX-License-Identifier: Apache-2.0
"""RPC servers in workers that oslo.service or cotyledon forks."""

from concurrent import futures
import contextlib
import os
import signal
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import waiting
from tests.fixtures import web
from zmq_driver import errors

#: Seconds that processes may take, on a machine that is busy.
PATIENCE = 60
#: For connections that nothing but their end ends.
PATIENT = '&heartbeat_interval=60&heartbeat_timeout=60&connect_timeout=60'

PARENTS = ['workers_oslo_service', 'workers_cotyledon']


@pytest.fixture(params=PARENTS)
def parent(request, url, tmp_path):
    """Give a factory of supervisors, killed after the test."""
    started = []

    def start(query=''):
        started.append(
            web.python(
                f'examples.{request.param}',
                tmp_path / 'log',
                TRANSPORT_URL=url + query,
            )
        )
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def calculator(transport):
    """Give a factory of clients of the examples."""

    def make(query='', timeout=PATIENCE):
        return oslo_messaging.get_rpc_client(
            transport(query),
            oslo_messaging.Target(topic='calculator'),
            timeout=timeout,
        )

    return make


class Callers:
    """Threads that call until they are stopped."""

    def __init__(self, client, threads=4):
        self._client = client
        self._end = threading.Event()
        self.pids = []
        self.wrong = []
        self._threads = [
            threading.Thread(target=self._run) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self):
        n = 0
        while not self._end.is_set():
            n += 1
            try:
                answer = self._client.call({}, 'add', a=n, b=1)
            except Exception as error:
                self.wrong.append(error)
                continue
            if answer['sum'] != n + 1:
                self.wrong.append(answer)
            self.pids.append(answer['pid'])


@contextlib.contextmanager
def calling(client):
    callers = Callers(client)
    try:
        yield callers
    finally:
        callers.stop()


def workers(client, but=()):
    """Wait until two workers answer that are not in *but*; return them."""
    found = set()

    def look():
        found.add(client.call({}, 'add', a=1, b=1)['pid'])
        return len(found - set(but)) == 2

    waiting.until(look, 'two workers', PATIENCE)
    return found - set(but)


@contextlib.contextmanager
def working(client, seconds, count=8):
    """Give calls that servers are busy with."""
    stats = client.transport._driver.runtime().stats

    def sent():
        return stats().counters['requests_sent']

    target = sent() + count
    with futures.ThreadPoolExecutor(count) as pool:
        calls = [
            pool.submit(client.call, {}, 'work', seconds=seconds)
            for _ in range(count)
        ]
        waiting.until(lambda: sent() >= target, 'all sent', PATIENCE)
        # They are received on the same host.
        time.sleep(0.2)
        yield calls


def count_records(ipc_dir):
    return len(list(ipc_dir.glob('*/*-*')))


@pytest.mark.slow
@pytest.mark.spec('LC-26', 'LC-27', 'LC-29')
def test_reload_and_end_under_load(parent, calculator, ipc_dir):
    one = parent()
    client = calculator()
    first = workers(client)
    # Of one server name, and yet two.
    assert first == one.children()
    assert count_records(ipc_dir) == 2
    with calling(calculator()) as callers:
        waiting.until(lambda: len(callers.pids) > 50, 'load', PATIENCE)
        one.signal(signal.SIGHUP)
        second = workers(client, but=first)
        waiting.until(lambda: one.children() == second, 'two', PATIENCE)
        assert count_records(ipc_dir) == 2
        done = len(callers.pids)
        waiting.until(lambda: len(callers.pids) > done + 50, 'load', PATIENCE)
    assert not callers.wrong
    assert set(callers.pids) == first | second
    with working(client, seconds=1) as calls:
        one.stop()
        # What was accepted was finished.
        assert {call.result()['pid'] for call in calls} == second
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        client.prepare(retry=0).call({}, 'add', a=1, b=1)
    assert 'Traceback' not in one.log.read_text()
    assert not list(ipc_dir.iterdir())


@pytest.mark.slow
@pytest.mark.spec('LC-28', 'LC-29')
def test_killed_worker_and_killed_parent(parent, calculator, ipc_dir):
    one = parent(PATIENT)
    client = calculator(PATIENT)
    victim = min(workers(client))
    with working(client, seconds=3) as calls:
        start = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        lost = [call for call in calls if call.exception()]
        # That the others are waited for does not matter; heartbeats would.
        assert time.monotonic() - start < 20
        assert lost
        for call in calls:
            if call in lost:
                assert isinstance(call.exception(), errors.PeerLost)
            else:
                assert call.result()['pid'] != victim
    now = workers(client, but=[victim])
    waiting.until(lambda: one.children() == now, 'two workers', PATIENCE)
    assert count_records(ipc_dir) == 2
    one.signal(signal.SIGKILL)
    # The workers notice it, and end in an orderly way.
    one.wait_gone()
    assert not list(ipc_dir.iterdir())
