# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of a service that runs."""

import os
import signal

from prometheus_client import parser
import pytest

from tests.fixtures import process
from tests.fixtures import waiting


@pytest.fixture
def service(url, topic):
    program = process.Program('reporting', url, topic).start()
    yield program
    program.close()


@pytest.mark.spec('ST-05')
def test_the_report_of_a_service_has_a_section(service):
    os.kill(service.pid, signal.SIGUSR2)
    waiting.until(
        lambda: 'requests_sent_total=1' in service.errors(), 'the report'
    )
    report = service.errors()
    assert report.count('ZeroMQ driver') == 1
    assert 'driver 1 (' in report
    assert 'pool_idle=1' in report
    service.stop()


@pytest.mark.spec('ST-08')
def test_prometheus_can_read_a_service(service):
    service.write('metrics')
    text = service.wait_for('metrics')['metrics']
    samples = {
        sample.name: sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples['zmq_driver_requests_sent_total'] == 1
    assert samples['zmq_driver_messages_received_total'] == 1
    assert samples['zmq_driver_pool_idle'] == 1
    service.stop()
