# SPDX-License-Identifier: Apache-2.0
"""One fault on one site, from the load's beginning to the verdict."""

import collections
import dataclasses
import time

from tests.fault import checker
from tests.fault import expectations
from tests.fault import faults
from tests.fault import pulse
from tests.fault import site as site_

#: Seconds of load before a fault.
BEFORE = 0.5

#: Seconds of load after it, besides those of its recovery.
AFTER = 0.5

#: Seconds in which what was acknowledged is executed.
SETTLE = 5.0


#: Seconds after its TTL in which a record goes for certain.
RECORD_MARGIN = 1.0


@dataclasses.dataclass
class Result:
    """What came of a fault."""

    fault: str
    site: str
    verdicts: dict[str, checker.Verdict]
    #: What the fault itself found wrong.
    problems: list[str]
    seconds: float
    #: The most seconds that the machine kept a thread from running.
    held_up: float = 0.0

    @property
    def good(self):
        return not self.problems and all(
            verdict.good for verdict in self.verdicts.values()
        )

    def add(self, other):
        """Add the counts of the same fault at another time."""
        for pattern, verdict in other.verdicts.items():
            self.verdicts[pattern].add_up(verdict)
        self.problems += other.problems
        self.seconds += other.seconds
        self.held_up = max(self.held_up, other.held_up)


class Experiments:
    """Does experiments on a site, one after the other.

    Thread: owner only.
    """

    def __init__(self, site):
        self._site = site
        self._readers = site_.Readers(site)
        self._past = checker.Past()
        # Those of the last faults: a soak does not wait for the recovery.
        self._blind = collections.deque(maxlen=10)
        self._number = 0

    def run(self, name, after=None):
        """Inject the fault *name*, heal it, and judge.

        :param after: seconds of load after the fault; None: a short while,
            in which the fault may be felt still
        """
        self._number += 1
        started = time.monotonic()
        row = expectations.rows()[name]
        fault = faults.FAULTS[name](self._site)
        self._let_records_expire()
        failed = self._failed_copies()
        with pulse.Pulse() as beat:
            self._site.begin(f'{self._number}-{name}')
            time.sleep(BEFORE)
            begin = time.monotonic()
            try:
                fault.inject()
                time.sleep(fault.hold)
            finally:
                fault.heal()
            end = time.monotonic()
            time.sleep(AFTER if after is None else after)
            self._site.pause()
        failed = self._failed_copies() - failed
        if fault.blinds is not None:
            self._blind.append((begin, end + fault.blinds))
        disturbance = checker.Disturbance(
            begin,
            end,
            fault.recovery,
            fault.frozen,
            beat.latest,
            tuple(self._blind),
        )
        verdicts = self._judge(row, disturbance, failed)
        idle = [f'no {p}' for p, found in verdicts.items() if not found.told]
        return Result(
            name,
            self._site.kind,
            verdicts,
            fault.problems + idle,
            time.monotonic() - started,
            beat.latest,
        )

    def _let_records_expire(self):
        """Wait until nobody knows servers any more that were killed before.

        Until then fanouts go to them too, and count the copies as failed.
        """
        killed = [
            life.killed_at
            for life in self._site.lives
            if life.killed_at is not None
        ]
        if killed and self._site.spans_hosts:
            expired = max(killed) + site_.RECORD_TTL + RECORD_MARGIN
            time.sleep(max(0.0, expired - time.monotonic()))

    def _failed_copies(self):
        return self._site.counts()['fanout_copies_failed']

    def _judge(self, row, disturbance, failed):
        told = self._readers.told()
        hanging = self._readers.hanging()
        expected = {one.id for one in told if one.outcome == expectations.OK}
        ran = self._readers.settle(
            lambda found: expected <= {one.id for one in found}, SETTLE
        )
        # What runs too often comes a little later than what runs at all.
        time.sleep(0.2)
        ran += self._readers.ran()
        verdicts = {}
        for pattern, cell in row.cells.items():
            mine = [o for o in (*told, *hanging) if o.pattern == pattern]
            ids = {one.id for one in mine}
            verdicts[pattern] = checker.judge(
                cell,
                mine,
                [one for one in ran if one.id in ids],
                self._site.lives,
                disturbance,
                failed if pattern == 'fanout' else 0,
            )
        self._past.judge(verdicts, ran)
        again = {name for name, cell in row.cells.items() if cell.again}
        self._past.remember(told, ran, again)
        return verdicts
