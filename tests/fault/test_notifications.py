# SPDX-License-Identifier: Apache-2.0
"""The ordeal of notifications, for seconds instead of ten minutes."""

import json
import os
import random
import subprocess
import sys

import pytest

from tests.fault import deliveries
from tests.fixtures import process

#: Seconds; what takes longer hangs.
HANG = 300


@pytest.mark.slow
@pytest.mark.spec('FL-11')
@pytest.mark.spec('FL-15')
@pytest.mark.spec('NS-03')
@pytest.mark.spec('NS-43')
@pytest.mark.parametrize('kind', ['local', 'redis'])
def test_a_short_ordeal(tmp_path, kind):
    seed = int(os.environ.get('ZMQ_DRIVER_FAULT_SEED', 0))
    seed = seed or random.randrange(1, 1 << 31)
    path = tmp_path / 'result'
    done = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', '-m'),
            *('tests.fault.notifications', '--url-kind', kind),
            *('--minutes', '0.5', '--messages', '2000'),
            *('--seed', str(seed), '--json', str(path)),
        ],
        cwd=process.ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout.startswith(f'seed {seed}\n'), done.stderr
    verdict = json.loads(path.read_text())
    assert verdict['accepted'] >= 2000, done.stdout
    found = {name: verdict[name] for name in deliveries.DEFECTS}
    assert not any(found.values()), done.stdout
    assert done.returncode == 0
