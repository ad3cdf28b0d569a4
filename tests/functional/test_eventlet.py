# SPDX-License-Identifier: Apache-2.0
"""The driver runs on native threads and says so where there are none."""

import json
import subprocess
import sys

import pytest

from tests.fixtures import process


@pytest.fixture
def green(url, topic):
    """Give a function that runs the program and returns what it found."""

    def run(how):
        ended = subprocess.run(
            [
                *(sys.executable, '-W', 'ignore'),
                *('-m', 'tests.programs.green', how, url, topic),
            ],
            cwd=process.ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    return run


@pytest.mark.spec('LC-08')
def test_nothing_of_the_package_imports_eventlet(green):
    found = green('native')
    assert found['answer'] == 1
    assert 'zmq_driver.driver' in found['modules']
    assert not found['culprits']


@pytest.mark.spec('LC-08')
@pytest.mark.parametrize('culprit', ['eventlet', 'gevent'])
def test_monkey_patched_process_is_refused(green, ipc_dir, culprit):
    found = green(culprit)
    assert 'DriverLoadFailure' in found['kinds']
    assert f'{culprit} has monkey-patched them' in found['text']
    assert 'threading executor' in found['text']
    assert not list(ipc_dir.iterdir())


@pytest.mark.spec('LC-08')
def test_patching_that_leaves_threads_alone_is_no_reason(green):
    pytest.importorskip('eventlet')
    assert green('eventlet-without-threads')['text'] == 'loaded'
