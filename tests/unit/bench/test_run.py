# SPDX-License-Identifier: Apache-2.0
"""A whole run, of a peer that needs no driver."""

import io
import os

import pytest

from tests.fixtures import waiting
from tests.unit.bench import measured
from zmq_driver.bench import child
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import progress
from zmq_driver.bench import results
from zmq_driver.bench import run
from zmq_driver.bench import site


@pytest.fixture
def pids(monkeypatch):
    """Give the ids of the processes that are started."""
    found = []

    class Child(child.Child):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            found.append(self.pid)

    monkeypatch.setattr(site.child, 'Child', Child)
    yield found
    waiting.until(
        lambda: not any(os.path.exists(f'/proc/{pid}') for pid in found),
        'end of the processes',
    )


def raw(**kwargs):
    return measured.plan(
        **{
            'peers': [measured.RAW],
            'patterns': [plan_.Pattern.CALL],
            'threads': [1, 3],
            'baseline': measured.RAW.name,
            'rounds': 2,
            'duration': 0.2,
            'warmup': 0.05,
            'processes': 2,
            'servers': 2,
            **kwargs,
        }
    )


def carry_out(plan):
    return run.carry_out(plan, progress.Progress(4, io.StringIO()))


@pytest.mark.spec('BN-02', 'BN-09', 'BN-10', 'BN-19')
def test_the_floor_is_measured(pids):
    found = carry_out(raw())
    assert len(pids) == 4
    rows = list(found.rows())
    assert [row.cell.threads for row in rows] == [1, 3]
    for row in rows:
        assert len(row.measurements) == 2
        assert row.rate > 0
        assert not row.errors()
        assert row.total('lost') is None
        for one in row.measurements:
            # What ended too late is in the latencies, but not in the rate.
            assert one.rate * 0.2 <= one.latencies.count + 1e-6
            for side in (one.client, one.server):
                assert side.cpu > 0
                assert side.memory > 1e6
                # Two processes, each with its pipes.
                assert side.descriptors > 6
                assert side.threads >= 2
    assert found.passed()


@pytest.mark.spec('BN-17', 'BN-19')
def test_nobody_is_ready(pids):
    with pytest.raises(plan_.BenchError) as found:
        carry_out(raw(start_timeout=0.01))
    assert 'server 0 of raw pyzmq is not ready within 0.01 s' in str(
        found.value
    )
    assert len(pids) == 4


@pytest.mark.spec('BN-19')
def test_a_process_that_cannot_be_started(pids, monkeypatch, tmp_path):
    def fail(self, *arguments):
        if pids:
            raise OSError('no more processes')
        real(self, *arguments)

    real = site.child.Child.__init__
    monkeypatch.setattr(site.child.Child, '__init__', fail)
    with pytest.raises(OSError, match='no more'):
        carry_out(raw())
    assert len(pids) == 1


class Processes:
    """Servers of a peer that say what a test wants."""

    def __init__(self, *counts):
        self._counts = counts
        self.asked = 0

    def tell(self, do, **arguments):
        self.asked += 1

    def answer(self, deadline):
        at = min(self.asked, len(self._counts)) - 1
        return {'count': self._counts[at], 'last': 7.0}


@pytest.fixture
def drained(monkeypatch):
    """Give a function that drains 2 messages from such servers."""

    def drain(servers, pattern=plan_.Pattern.CAST, timeout=30.0):
        one = site.Site.__new__(site.Site)
        one._plan = raw(drain=timeout)
        one._peer = measured.ZMQ
        one._run = 1
        one._servers = [servers]
        found = [{'senders': [[0, 3, [1]]]}]
        return one._drain(plan_.Cell(pattern, 1), found, None)

    return drain


@pytest.mark.spec('BN-06', 'BN-07')
def test_it_waits_for_what_servers_run(drained):
    servers = Processes(0, 1, 2)
    assert drained(servers) == 7.0
    assert servers.asked == 3
    # Of a fanout, every server has to run everything.
    servers = Processes(0, 2, 3, 4)
    drained(servers, plan_.Pattern.FANOUT)
    assert servers.asked == 4


@pytest.mark.spec('BN-06', 'BN-18')
def test_it_does_not_wait_for_ever(drained):
    assert drained(Processes(1), timeout=0.1) == 7.0


@pytest.mark.spec('BN-17')
def test_no_message_arrives(monkeypatch):
    one = site.Site.__new__(site.Site)
    one._plan = raw(start_timeout=0.1)
    one._peer = measured.ZMQ
    one._servers = one._clients = []
    answers = [
        measured.measurement(lost=1),
        measured.measurement(errors={'MessagingTimeout: no': 1}),
    ]
    monkeypatch.setattr(
        one, '_carry_out', lambda *a, **k: answers[-1], raising=False
    )
    with pytest.raises(plan_.BenchError) as found:
        one.wait_ready()
    assert str(found.value) == (
        'zmq (zmq://): no call arrived within 0.1 s: MessagingTimeout: no'
    )
    answers.pop()
    with pytest.raises(plan_.BenchError, match=r'within 0\.1 s$'):
        one.wait_ready()


@pytest.mark.spec('BN-07')
def test_what_servers_ran_is_the_rate_of_casts():
    one = site.Site.__new__(site.Site)
    one._peer = measured.ZMQ
    used = {'cpu': 1.0, 'memory': 1, 'descriptors': 1, 'threads': 1}
    client = {
        **used,
        'begin': 100.0,
        'in_time': 50,
        'cpu_used': 0.5,
        'errors': {'X': 1},
        'senders': [[0, 5, [4]]],
        'latencies': results.histogram.Histogram().as_json(),
    }
    ran = site.executions.Executions()
    ran.begin(1)
    for number in range(3):
        ran.add([1, number])
    after = {**used, **ran.collect(1), 'cpu': 3.0}
    cell = plan_.Cell(plan_.Pattern.CAST, 1)
    found = one._measurement(cell, 1.0, 0, [used], [client], 102.0, [after])
    # Three in two seconds: the last one ran after the end.
    assert found.rate == 1.5
    found = one._measurement(cell, 4.0, 0, [used], [client], 102.0, [after])
    # All had run before the end.
    assert found.rate == 0.75
    assert (found.messages, found.lost, found.duplicated) == (3, 1, 0)
    assert (found.client.cpu, found.server.cpu) == (0.5, 2.0)
    assert found.errors == {'X': 1}
    cell = plan_.Cell(plan_.Pattern.CALL, 1)
    found = one._measurement(cell, 2.0, 0, [used], [client], 102.0, [after])
    # What was answered in time.
    assert found.rate == 25.0
