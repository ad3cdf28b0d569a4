# SPDX-License-Identifier: Apache-2.0
"""Many threads do everything at once, for a few seconds.

``tests/stress`` does the same for a million operations.
"""

import pytest

from tests.fixtures import pool_stress

OPERATIONS = int(20_000 * pool_stress.FACTOR)


@pytest.mark.spec('PL-01', 'PL-03', 'PL-14', 'PL-15', 'PL-17')
def test_many_threads():
    run = pool_stress.Run(OPERATIONS, pool_stress.choose_seed())
    print(f'ZMQ_DRIVER_STRESS_SEED={run.seed}')
    run.play()
    print(run)
