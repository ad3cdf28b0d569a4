# SPDX-License-Identifier: Apache-2.0
"""Every fault once, on every kind of site: one test for each cell."""

import contextlib
import os
import random

import pytest

from tests.fault import conftest
from tests.fault import expectations
from tests.fault import experiment
from tests.fault import report
from tests.fault import site as site_

pytestmark = [
    pytest.mark.slow,
    pytest.mark.leaks(reason='the processes of a site outlive one test'),
]

#: What the columns of the table are called, and what the fault itself found.
ITSELF = 'itself'

CELLS = [
    pytest.param(kind, row.fault, pattern, id=f'{kind}-{row.fault}-{pattern}')
    for kind in site_.KINDS
    for row in expectations.rows().values()
    if kind in row.sites
    for pattern in (*expectations.PATTERNS, ITSELF)
]


class Laboratory:
    """Does what is asked for once; one site stands at a time.

    Thread: owner only.
    """

    def __init__(self, seed):
        self._seed = seed
        self._kind = None
        self._standing = contextlib.ExitStack()
        self._experiments = None
        self._results = {}
        self._machines = []

    def result(self, kind, fault):
        if (kind, fault) not in self._results:
            self._go_to(kind)
            self._results[kind, fault] = self._experiments.run(fault)
        return self._results[kind, fault]

    def _go_to(self, kind):
        if self._kind == kind:
            return
        self.close()
        site = self._standing.enter_context(site_.Site(kind, self._seed))
        self._kind = kind
        self._machines.append(f'{kind}: {site.machines}')
        self._experiments = experiment.Experiments(site)

    def close(self):
        self._kind = None
        self._standing.close()

    def lines(self):
        return [
            f'ZMQ_DRIVER_FAULT_SEED={self._seed}; {"; ".join(self._machines)}',
            *report.table(list(self._results.values())),
        ]


@pytest.fixture(scope='module')
def laboratory(request):
    seed = int(os.environ.get('ZMQ_DRIVER_FAULT_SEED', 0))
    seed = seed or random.randrange(1, 1 << 31)
    random.seed(seed)
    laboratory = Laboratory(seed)
    with contextlib.closing(laboratory):
        yield laboratory
    request.config.stash[conftest.REPORT] = laboratory.lines()


@pytest.mark.parametrize(('kind', 'fault', 'pattern'), CELLS)
@pytest.mark.spec('FL-12')
def test_outcomes(laboratory, kind, fault, pattern):
    result = laboratory.result(kind, fault)
    if pattern == ITSELF:
        assert not result.problems
        return
    verdict = result.verdicts[pattern]
    assert verdict.told, 'there was no load'
    assert verdict.good, '\n'.join(verdict.problems[: report.MOST_PROBLEMS])
