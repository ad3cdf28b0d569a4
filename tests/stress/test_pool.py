# SPDX-License-Identifier: Apache-2.0
"""A million operations of many threads, the books checked after each.

It takes one to three minutes, so it is no unit test; ``ZMQ_DRIVER_STRESS=5``
makes it five times as long, ``ZMQ_DRIVER_STRESS_SEED`` repeats the choices of
an earlier run.
"""

import faulthandler

import pytest

from tests.fixtures import pool_stress

OPERATIONS = int(1_000_000 * pool_stress.FACTOR)


@pytest.mark.slow
@pytest.mark.spec('PL-01', 'PL-03', 'PL-14', 'PL-17', 'PL-30')
def test_a_million_operations(capsys):
    run = pool_stress.Run(OPERATIONS, pool_stress.choose_seed())
    # It dumps stacks while their threads run, at which the interpreter can
    # crash. Each wait here has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    with capsys.disabled():
        # Seen while it runs, and even if it hangs.
        print(f'\nZMQ_DRIVER_STRESS_SEED={run.seed}')
    run.play()
    with capsys.disabled():
        print(run)
