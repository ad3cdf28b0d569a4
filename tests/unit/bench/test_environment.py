# SPDX-License-Identifier: Apache-2.0
"""What the figures depend on."""

import pathlib
import platform

import zmq

from zmq_driver.bench import environment


def test_it_is_described():
    found = environment.describe()
    assert found['libzmq'] == zmq.zmq_version()
    assert platform.python_version() in found['Python']
    assert 'cores' in found['CPU']
    assert found['memory'].endswith('kB')
    assert 'oslo.messaging' in found


def test_what_the_kernel_does_not_tell(monkeypatch):
    missing = pathlib.Path('/nonexistent')
    monkeypatch.setattr(environment, '_MEMINFO', missing)
    assert environment.describe()['memory'] == 'unknown'
