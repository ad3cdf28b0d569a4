# SPDX-License-Identifier: Apache-2.0
"""The figures of the drivers of a process, and where they are published."""

import logging
import os
import pathlib
import re
import signal
import sys
import threading
import types

from prometheus_client import parser
import pytest

from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver import counters
from zmq_driver import pool
from zmq_driver import prometheus
from zmq_driver import report
from zmq_driver import statistics

PAGE = pathlib.Path(__file__).parents[2] / 'doc/source/admin/statistics.rst'


class Source:
    """A driver with one figure that is not zero."""

    def __init__(self, number=1, pid=None):
        self.number = number
        self.pid = pid or os.getpid()
        self.pool = pool.SocketPool('p', lambda peer: None, pool.PoolOptions())
        self.counters = counters.Counters()
        self.counters.add('requests_sent', 1_234_567)

    def stats(self):
        return statistics.DriverStats(
            self.number,
            f'member{self.number}',
            self.pool.stats(),
            self.counters.snapshot(),
        )


@pytest.fixture
def publish(monkeypatch):
    """Give a factory of sources, which are the only ones of the process."""
    monkeypatch.setattr(statistics, '_sources', type(statistics._sources)())
    made = []

    def publish(*args, **kwargs):
        made.append(Source(*args, **kwargs))
        statistics.publish(made[-1])
        return made[-1]

    return publish


# -- names


@pytest.mark.spec('ST-01', 'PL-47')
def test_the_documented_list_is_complete(publish):
    documented = re.findall(r'^   \* - ``(\w+)``$', PAGE.read_text(), re.M)
    figures = {figure.name for figure in publish().stats().figures()}
    reasons = {reason.value for reason in pool.EvictReason}
    listed = [name for name in documented if name not in reasons]
    assert len(listed) == len(set(listed))
    assert set(listed) == figures


@pytest.mark.spec('ST-01')
def test_the_documented_reasons_are_complete():
    text = PAGE.read_text().partition('Why sockets are closed')[2]
    listed = re.findall(
        r'^   \* - ``([\w ]+)``$', text.partition('===')[0], re.M
    )
    assert listed
    assert set(listed) == {reason.value for reason in pool.EvictReason}


@pytest.mark.spec('PL-47')
def test_every_figure_says_what_it_is(publish):
    for figure in publish().stats().figures():
        assert re.fullmatch(r'[A-Z].*\.', figure.help), figure


@pytest.mark.spec('ST-02')
def test_what_grows_is_called_total(publish):
    gauges = {f.name for f in publish().stats().figures() if not f.grows}
    assert gauges == {
        'pool_peers',
        'pool_opening',
        'pool_idle',
        'pool_reserved',
        'pool_in_use',
        'pool_retiring',
        'pool_waiting',
        'pool_wait_seconds_max',
        'pool_hit_ratio',
        'pool_wait_seconds_mean',
    }


# -- whose


@pytest.mark.spec('ST-03')
def test_drivers_are_shown_in_the_order_of_their_use(publish):
    sources = [publish(2), publish(1)]
    shown = statistics.snapshots()
    assert [stats.number for stats in shown] == [1, 2]
    statistics.withdraw(sources[0])
    assert [stats.number for stats in statistics.snapshots()] == [1]
    del sources
    publish(3)
    assert 1 <= len(statistics.snapshots()) <= 2


@pytest.mark.spec('ST-03')
def test_what_was_inherited_is_not_shown(publish):
    kept = [publish(1, pid=os.getppid()), publish(2)]
    assert [stats.number for stats in statistics.snapshots()] == [2]
    assert kept


# -- in the log


@pytest.mark.spec('ST-04')
def test_a_line_has_what_is_not_zero(publish):
    source = publish(7)
    assert str(source.stats()) == (
        'driver 7 (member7): requests_sent_total=1234567'
    )
    source.counters = counters.Counters()
    assert str(source.stats()) == 'driver 7 (member7): unused'


@pytest.mark.spec('ST-04')
def test_a_figure_is_short():
    assert str(statistics.Figure('a', '', 0.123456)) == 'a=0.123'
    assert str(statistics.Figure('a', '', 3.0, {'reason': 'x'})) == 'a[x]=3'


@pytest.mark.spec('ST-04')
def test_lines_come_until_the_end(publish, caplog):
    caplog.set_level(logging.DEBUG, 'zmq_driver.statistics')
    source, end = publish(), threading.Event()
    thread = threading.Thread(
        target=statistics.log_now_and_then, args=(source, end, 0.001)
    )
    thread.start()
    waiting.until(lambda: len(caplog.records) >= 2, 'lines')
    end.set()
    thread.join(10)
    assert not thread.is_alive()
    assert caplog.messages[0] == f'statistics of {source.stats()}'
    assert {record.levelname for record in caplog.records} == {'DEBUG'}


# -- in a report


class Report:
    """As much of oslo.reports as is called."""

    sections: list = []

    @classmethod
    def register_section(cls, title, generator):
        cls.sections.append((title, generator))


@pytest.fixture
def gmr(monkeypatch):
    module = types.ModuleType('oslo_reports.guru_meditation_report')
    module.TextGuruMeditation = type('Text', (Report,), {'sections': []})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.TextGuruMeditation


@pytest.mark.spec('ST-05')
def test_a_report_has_one_section(gmr, publish):
    assert report.add_section()
    assert report.add_section()
    [(title, generate)] = gmr.sections
    assert title == 'ZeroMQ driver'
    assert generate() == 'no driver is in use'
    sources = [publish(1), publish(2)]
    assert generate().splitlines() == [str(s.stats()) for s in sources]


@pytest.mark.spec('ST-05')
def test_nothing_is_imported_for_a_report(monkeypatch):
    name = 'oslo_reports.guru_meditation_report'
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert not report.add_section()
    assert name not in sys.modules


@pytest.mark.spec('ST-06')
def test_a_report_does_not_wait_for_the_lock_of_who_asks(publish):
    source = publish()
    with source.pool._lock:
        assert report.text_within(0.05) == 'busy; ask again'
    assert report.text_within(10) == str(source.stats())


@pytest.mark.spec('ST-06')
def test_a_report_says_why_it_cannot_be_made(publish):
    source = publish()
    source.stats = lambda: 1 / 0
    assert 'division by zero' in report.text_within(10)


@pytest.mark.spec('ST-06', 'ST-07')
def test_a_signal_logs_the_figures(publish, caplog):
    caplog.set_level(logging.INFO, 'zmq_driver.report')
    sources = [publish(1), publish(2)]
    before = report.log_on_signal(signal.SIGUSR2)
    try:
        with sources[0].pool._lock:
            os.kill(os.getpid(), signal.SIGUSR2)
        waiting.until(lambda: len(caplog.records) == 2, 'lines')
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert caplog.messages == [f'statistics of {s.stats()}' for s in sources]


# -- for Prometheus


@pytest.mark.spec('ST-08')
def test_prometheus_reads_everything(publish):
    sources = [publish(1), publish(2)]
    families = {
        family.name: family
        for family in parser.text_string_to_metric_families(
            prometheus.exposition()
        )
    }
    for figure in sources[0].stats().figures():
        name = 'zmq_driver_' + figure.name
        family = families[name.removesuffix('_total')]
        assert family.type == ('counter' if figure.grows else 'gauge')
        assert family.documentation == figure.help
        values = {
            sample.labels['driver']: sample.value
            for sample in family.samples
            if figure.labels.items() <= sample.labels.items()
        }
        assert values == {'1': figure.value, '2': figure.value}


@pytest.mark.spec('ST-08')
def test_it_can_be_registered_with_the_registry_of_the_process(publish):
    import prometheus_client

    collector = prometheus.Collector()
    source = publish()
    prometheus_client.REGISTRY.register(collector)
    try:
        value = prometheus_client.REGISTRY.get_sample_value(
            'zmq_driver_requests_sent_total', {'driver': '1'}
        )
    finally:
        prometheus_client.REGISTRY.unregister(collector)
    assert value == source.counters.snapshot()['requests_sent']


@pytest.mark.spec('ST-09')
def test_labels_have_few_values(publish):
    kept = publish()
    labels = {
        tuple(sample.labels)
        for family in prometheus.Collector().collect()
        for sample in family.samples
    }
    assert labels == {('driver',), ('driver', 'reason')}
    assert kept.stats().member not in prometheus.exposition()


def test_a_pool_that_is_closed_still_has_figures(publish):
    source = publish()
    source.pool.close(clock.Deadline(0))
    assert statistics.snapshots() == [source.stats()]
