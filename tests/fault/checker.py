# SPDX-License-Identifier: Apache-2.0
"""Compares what callers were told with what servers ran."""

import collections
import dataclasses

from tests.fault import expectations

#: Seconds past its deadline after which an operation counts as hung.
HUNG_AFTER = 1.0

#: Seconds that a busy machine may add to the bounds of the table.
SLACK = 1.0

#: One who waits, who answers and who passes it on may all be held up.
HELD_UP_TIMES = 3

#: Seconds between an acknowledgement and the execution, at most: what a server
#: acknowledged sooner before it was killed should have run.
EXECUTED_WITHIN = 0.5

#: Seconds after its registration in which a server is not yet expected to get
#: each fanout.
KNOWN_AFTER = 1.0

#: Windows for which executions may come late.
REMEMBERED = 5

#: The errors that end an operation at its deadline, and never sooner.
AT_DEADLINE = ('ServerNotFound', 'ReplyTimeout')
_EARLY = 0.01

#: What a verdict is made of: all of them are 0 in a good one.
DEFECTS = ('lost', 'twice', 'hung', 'lied', 'false')


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """From when until when a fault lasted, on the monotonic clock.

    ``recovery`` are the seconds after its end in which it is still felt;
    ``frozen`` those in which the clients did not run; ``held_up`` is the most
    for which the machine kept a thread from running meanwhile. ``blind`` are
    times, from when until when, in which clients could not learn of servers
    that began.
    """

    begin: float
    end: float
    recovery: float = 3.0
    frozen: float = 0.0
    held_up: float = 0.0
    blind: tuple[tuple[float, float], ...] = ()

    @property
    def excused(self):
        """The seconds that nothing here could be quicker."""
        return self.frozen + HELD_UP_TIMES * self.held_up

    def touches(self, told):
        return (
            told.end >= self.begin and told.begin <= self.end + self.recovery
        )


@dataclasses.dataclass
class Verdict:
    """The counts of one cell, and a line about each defect."""

    fault: str
    pattern: str
    told: int = 0
    ok: int = 0
    #: Told that it was not sent.
    refused: int = 0
    #: Told that it may have run.
    unsure: int = 0
    ran: int = 0
    #: Copies of fanouts that failed, and were counted.
    failed_copies: int = 0
    #: Acknowledged by a process that was killed before it ran them.
    gone: int = 0
    #: Run by another server, after the first was lost.
    again: int = 0
    lost: int = 0
    twice: int = 0
    hung: int = 0
    lied: int = 0
    false: int = 0
    #: Seconds that the slowest error came after the fault, or its beginning.
    slowest: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def good(self):
        return not any(getattr(self, defect) for defect in DEFECTS)

    def add(self, defect, text):
        setattr(self, defect, getattr(self, defect) + 1)
        self.problems.append(f'{defect}: {text}')

    def add_up(self, other):
        """Add the counts of the same cell at another time."""
        for field in dataclasses.fields(self):
            if field.type is int:
                mine, more = (getattr(v, field.name) for v in (self, other))
                setattr(self, field.name, mine + more)
        self.slowest = max(self.slowest, other.slowest)
        self.problems += other.problems


def judge(cell, told, ran, lives, disturbance, failed_copies=0):
    """Return the verdict of one cell.

    :param cell: what is allowed
    :param told: every operation of the pattern, also those that hang
    :param ran: every execution of one of them
    :param lives: of all servers
    :param failed_copies: how many copies of fanouts the clients counted
    """
    verdict = Verdict(cell.fault, cell.pattern)
    by_id = collections.defaultdict(list)
    for one in ran:
        by_id[one.id].append(one)
    missing = []
    for one in told:
        runs = by_id[one.id]
        verdict.told += 1
        verdict.ran += len(runs)
        if one.end is None:
            verdict.add('hung', f'{one.id} has not ended')
            continue
        if one.end - one.begin > (
            one.deadline + HUNG_AFTER + disturbance.excused
        ):
            verdict.add('hung', f'{one.id} took {one.end - one.begin:.1f} s')
        _check_runs(verdict, cell, one, runs, lives, missing, disturbance)
        if one.outcome != expectations.OK:
            _check_error(verdict, cell, one, runs, disturbance)
        else:
            verdict.ok += 1
    _check_copies(verdict, cell, missing, failed_copies)
    return verdict


class Past:
    """What was judged, for executions that come later than its verdict.

    Thread: owner only.
    """

    def __init__(self):
        self._judged = collections.deque(maxlen=REMEMBERED)

    def remember(self, tolds, rans, again=()):
        """Take note of a judged window.

        :param again: the patterns of which another process may run what one
            that was lost had run; it may take a while to be given that
        """
        by_id = {told.id: (told, [], told.pattern in again) for told in tolds}
        for ran in rans:
            if ran.id in by_id:
                by_id[ran.id][1].append(ran)
        self._judged.append(by_id)

    def judge(self, verdicts, rans):
        """Add the late ones among *rans* to the verdict of their pattern."""
        for ran in rans:
            for window in self._judged:
                if ran.id in window:
                    told, runs, again = window[ran.id]
                    verdict = verdicts[told.pattern]
                    _check_late(verdict, told, runs, ran, again)
                    runs.append(ran)


def _check_late(verdict, told, runs, ran, again):
    text = f'{told.id} ran at {ran.server} long after it ended'
    if told.may_have_run is False:
        verdict.add('lied', f'{text} with {told.outcome}')
    elif told.pattern == 'fanout':
        if any(ran.pid == run.pid for run in runs):
            verdict.add('twice', text)
    elif again and all(ran.pid != run.pid for run in runs):
        verdict.again += bool(runs)
    elif runs:
        verdict.add('twice', text)


def _check_runs(verdict, cell, told, runs, lives, missing, disturbance):
    processes = collections.Counter((run.server, run.pid) for run in runs)
    if cell.pattern == 'fanout':
        for life, count in processes.items():
            if count > 1:
                verdict.add('twice', f'{told.id} ran {count} times at {life}')
        if told.outcome == expectations.OK:
            missing += [
                (told, life)
                for life in _audience(told, lives, disturbance)
                if (life.server, life.pid) not in processes
            ]
        return
    if len(runs) > 1:
        if cell.again and len(processes) == len(runs):
            verdict.again += 1
        else:
            verdict.add('twice', f'{told.id} ran at {dict(processes)}')
    if not runs and told.outcome == expectations.OK:
        if cell.gone and _was_killed_after(told, lives):
            verdict.gone += 1
        else:
            verdict.add('lost', f'{told.id} was acknowledged and did not run')


def _audience(told, lives, disturbance):
    """Return who was registered from before *told* until after it."""

    def known_at(life):
        begun = life.since
        for begin, end in disturbance.blind:
            if begin < begun:
                begun = max(begun, end)
        return begun + KNOWN_AFTER

    return [
        life
        for life in lives
        if known_at(life) < told.begin
        and (life.until is None or life.until > told.end + EXECUTED_WITHIN)
    ]


def _was_killed_after(told, lives):
    return any(
        life.killed_at is not None
        and told.begin <= life.killed_at <= told.end + EXECUTED_WITHIN
        for life in lives
    )


def _check_error(verdict, cell, told, runs, disturbance):
    took = told.end - told.begin
    text = (
        f'{told.id} got {told.outcome} after {took:.2f} s, '
        f'{told.begin - disturbance.begin:+.2f} s from the fault: '
        f'{told.text[:300]}'
    )
    if told.may_have_run is False:
        verdict.refused += 1
        if runs:
            verdict.add('lied', f'{text}; but it ran')
    else:
        verdict.unsure += 1
    within = cell.errors.get(told.outcome)
    if within is None or not disturbance.touches(told):
        verdict.add('false', text)
        return
    if told.outcome in AT_DEADLINE:
        if took < told.deadline - _EARLY:
            verdict.add('false', f'{text}; sooner than its deadline')
        return
    late = told.end - max(told.begin, disturbance.begin)
    verdict.slowest = max(verdict.slowest, late)
    if late > within + SLACK + disturbance.excused:
        verdict.add('false', f'{text}; later than {within} s')


def _check_copies(verdict, cell, missing, failed):
    verdict.failed_copies = failed
    for told, life in missing[failed:]:
        verdict.add(
            'lost',
            f'{told.id} did not run at {life.server} (pid {life.pid}), and '
            f'no failure was counted',
        )
    if failed and not cell.copies:
        verdict.add('false', f'{failed} copies failed')
