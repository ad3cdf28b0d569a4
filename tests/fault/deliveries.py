# SPDX-License-Identifier: Apache-2.0
"""Compares what notifiers were told with what listener pools have seen."""

import collections
import dataclasses
import itertools

#: Seconds between the end of an endpoint and the moment at which whoever
#: sent the notification knows and has written it down. If the listener is
#: killed within them, nobody can know that it was done.
ACKNOWLEDGED_WITHIN = 0.5

#: Seconds after the return of a store that was away until everything is
#: written down that was done meanwhile, and until notify() never fails.
RECORDED_WITHIN = 1.5
RECOVERED_WITHIN = 6.0

#: Seconds past the deadline of notify() after which it hung.
HUNG_AFTER = 1.0

#: What a verdict is made of: all of them are 0 in a good one.
DEFECTS = (
    'lost',
    'twice',
    'duplicates',
    'abandoned',
    'lied',
    'hung',
    'errors',
    'left',
    'dead',
    'stuck',
)


@dataclasses.dataclass
class Run:
    """One time that an endpoint was given a notification.

    Times are those of the host's monotonic clock, in seconds.
    """

    by: str
    begun: float
    #: None: it has not ended.
    ended: float | None = None
    requeued: bool = False


@dataclasses.dataclass
class Verdict:
    """The counts of a whole run, and a line about each defect."""

    #: notify() has returned; raised; was cut off by the end of the process.
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    #: How often an endpoint has handled one; has asked to see it again.
    seen: int = 0
    requeued: int = 0
    #: The listener was killed before the endpoint had handled it; right after
    #: that, so that nobody was told. Another one was given it.
    interrupted: int = 0
    unacknowledged: int = 0
    #: It was killed while the store was away, in which it should have been
    #: written down that the endpoint had handled it. Likewise.
    unrecorded: int = 0
    #: An accepted one that a listener pool has not handled.
    lost: int = 0
    #: Handled again by the same process, or by another one of the pool.
    twice: int = 0
    duplicates: int = 0
    #: Begun and not ended by a process that was not killed.
    abandoned: int = 0
    #: Handled, though notify() had said that it would not be.
    lied: int = 0
    hung: int = 0
    #: Errors of notify() while the store could be reached.
    errors: int = 0
    #: What is still in the store; dead letters in it.
    left: int = 0
    dead: int = 0
    #: Processes that did not end in an orderly way when told to.
    stuck: int = 0
    #: Seconds that notify() took at most.
    slowest: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def good(self):
        return not any(getattr(self, defect) for defect in DEFECTS)

    def add(self, defect, text):
        setattr(self, defect, getattr(self, defect) + 1)
        self.problems.append(f'{defect}: {text}')


class Deliveries:
    """What the journals say.

    Thread: owner only.
    """

    def __init__(self, pools):
        """Expect each accepted notification in each of *pools*."""
        self._pools = tuple(pools)
        #: When it was accepted, by id.
        self.accepted = {}
        self._about = {}
        self._failed = {}
        self._slowest = 0.0
        self._slow = {}
        self._runs = {pool: collections.defaultdict(list) for pool in pools}
        #: How many accepted ones each pool has handled.
        self._handled = {pool: set() for pool in pools}

    def note(self, record):
        """Add a line of a notifier's journal."""
        name, moment = record['id'], record['t']
        if record['k'] == 'about':
            self._about[name] = moment
            return
        took = moment - self._about.pop(name)
        self._slowest = max(self._slowest, took)
        self._slow[name] = took
        if record['k'] == 'accepted':
            self.accepted[name] = moment
        else:
            self._failed[name] = record

    def sight(self, record):
        """Add a line of a listener's journal."""
        name, pool = record['id'], record['pool']
        runs = self._runs[pool][name]
        if record['k'] == 'begun':
            runs.append(Run(record['by'], record['t']))
            return
        # The same process may be given it again after a requeue.
        run = next(
            run
            for run in reversed(runs)
            if run.by == record['by'] and run.ended is None
        )
        run.ended = record['t']
        run.requeued = record['k'] == 'requeued'
        if not run.requeued:
            self._handled[pool].add(name)

    def missing(self):
        """Return how many copies of accepted ones were not handled yet."""
        return sum(
            len(self.accepted.keys() - handled)
            for handled in self._handled.values()
        )

    def judge(self, killed, away=(), deadline=10.0):
        """Return the verdict.

        :param killed: when SIGKILL was sent, by the process' name
        :param away: beginning and end of the times in which the store's
            server was away
        :param deadline: seconds that notify() may take
        """
        verdict = Verdict(
            accepted=len(self.accepted),
            refused=len(self._failed),
            slowest=self._slowest,
        )
        for name, took in self._slow.items():
            if took > deadline + HUNG_AFTER:
                verdict.add('hung', f'notify() of {name} took {took:.1f} s')
        for name in self._about:
            if _process(name) in killed:
                verdict.unknown += 1
            else:
                verdict.add('hung', f'notify() of {name} never returned')
        for name, record in self._failed.items():
            self._judge_failure(verdict, name, record, away)
        for pool in self._pools:
            for name in self.accepted.keys() - self._handled[pool]:
                verdict.add(
                    'lost',
                    f'{name}, accepted at {self.accepted[name]:.2f}, for pool '
                    f'{pool!r}: {self._runs[pool].get(name)}',
                )
            for name, runs in self._runs[pool].items():
                what = f'{name} in pool {pool!r}'
                _judge_runs(verdict, what, runs, killed, away)
        return verdict

    def _judge_failure(self, verdict, name, record, away):
        text = (
            f'{name} at {record["t"]:.2f}: {record["error"]} {record["text"]}'
        )
        if record['may_have_run'] is False and any(
            self._runs[pool].get(name) for pool in self._pools
        ):
            verdict.add('lied', text)
        if not any(
            begin <= record['t'] <= end + RECOVERED_WITHIN
            for begin, end in away
        ):
            verdict.add('errors', text)


def _process(name):
    """Return which notifier has sent the notification *name*."""
    return name.rsplit('-', 1)[0]


def _judge_runs(verdict, what, runs, killed, away):
    done = []
    for run in sorted(runs, key=lambda run: run.begun):
        if run.ended is None:
            if run.by in killed:
                verdict.interrupted += 1
            else:
                verdict.add('abandoned', f'{what}: {run}')
        elif run.requeued:
            verdict.requeued += 1
        else:
            verdict.seen += 1
            done.append(run)
    for first, second in itertools.pairwise(done):
        text = f'{what}: {first}, {second}'
        death = killed.get(first.by)
        if first.by == second.by:
            verdict.add('twice', text)
        elif (
            death is not None
            and death - first.ended <= ACKNOWLEDGED_WITHIN
            and second.begun >= death
        ):
            verdict.unacknowledged += 1
        elif death is not None and any(
            begin <= first.ended + ACKNOWLEDGED_WITHIN
            and death <= end + RECORDED_WITHIN
            for begin, end in away
        ):
            verdict.unrecorded += 1
        else:
            if death is not None:
                text += f'; the first was killed at {death:.3f}'
            verdict.add('duplicates', text)
