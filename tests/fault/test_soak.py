# SPDX-License-Identifier: Apache-2.0
"""The soak, for seconds instead of an hour."""

import itertools
import json
import subprocess
import sys

import pytest

from tests.fault import faults
from tests.fault import growth
from tests.fault import soak
from tests.fixtures import process

#: Seconds; what takes longer hangs.
HANG = 120

NAMES = [f'fault-{n}' for n in range(20)]


def chosen(seed):
    return list(itertools.islice(soak.schedule(NAMES, seed), 100))


@pytest.mark.spec('FL-11')
def test_the_seed_decides():
    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert set(chosen(1)) <= set(NAMES)


def test_all_faults_but_those_of_other_sites_are_done():
    names = set(soak.names_for(soak.KIND))
    assert {'server-saturated', 'client-paused', 'clock-forward'} <= names
    assert set(faults.FAULTS) - names == {
        'ipc-disk-full',
        'redis-failover',
        'redis-master-killed',
    }


@pytest.mark.slow
@pytest.mark.spec('FL-11')
@pytest.mark.spec('FL-13')
@pytest.mark.spec('FL-14')
def test_a_short_soak(tmp_path):
    path = tmp_path / 'result'
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.fault.soak']
    arguments = ['--minutes', '0.2', '--seed', '7', '--json', str(path)]
    done = subprocess.run(
        [*command, *arguments],
        cwd=process.ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout.startswith('seed 7\n'), done.stderr
    assert '\nverdict ' in done.stdout
    found = json.loads(path.read_text())
    assert found['seed'] == 7
    assert found['results']
    assert set(found['slopes']) == {'client x', 'client y', 'server c'}
    for slopes in found['slopes'].values():
        assert set(slopes) == set(growth.QUANTITIES)
    # The faults of the product are found by the other tests.
    assert done.returncode == (1 if found['bad'] else 0)
