# SPDX-License-Identifier: Apache-2.0
"""The checker sees each defect: a laboratory that cannot fail is none."""

import pytest

from tests.fault import checker
from tests.fault import expectations
from tests.fault import journal

#: The fault lasts from 100 to 105 s.
DISTURBANCE = checker.Disturbance(100.0, 105.0)
LIVES = [
    journal.Life('a', 1, since=0.0),
    journal.Life('b', 2, since=0.0),
]


def cell(text, pattern='call'):
    return expectations.parse_cell('fault', pattern, text)


def told(id='1', pattern='call', begin=101.0, end=101.1, **more):
    return journal.Told(
        id, pattern, begin, 10.0, end, more.pop('outcome', 'ok'), **more
    )


def ran(id='1', server='a', pid=1, at=101.05):
    return journal.Ran(id, server, pid, at)


def judge(text, tolds, rans, lives=LIVES, disturbance=DISTURBANCE, **more):
    pattern = tolds[0].pattern
    return checker.judge(
        cell(text, pattern), tolds, rans, lives, disturbance, **more
    )


def defects(verdict):
    """Return those that are not 0, and see that each has its line."""
    found = {
        name: getattr(verdict, name)
        for name in checker.DEFECTS
        if getattr(verdict, name)
    }
    assert len(verdict.problems) == sum(found.values())
    assert verdict.good == (not found)
    return found


@pytest.mark.parametrize('pattern', ['call', 'cast', 'notification'])
def test_what_ran_once_is_good(pattern):
    verdict = judge('ok', [told(pattern=pattern)], [ran()])
    assert defects(verdict) == {}
    assert (verdict.told, verdict.ok, verdict.ran) == (1, 1, 1)


@pytest.mark.parametrize('pattern', ['call', 'cast', 'notification'])
@pytest.mark.spec('FL-01')
def test_acknowledged_and_lost(pattern):
    both = [told('1', pattern), told('2', pattern)]
    verdict = judge('ok', both, [ran('2')])
    assert defects(verdict) == {'lost': 1}
    assert '1 was acknowledged' in verdict.problems[0]


@pytest.mark.spec('FL-01')
@pytest.mark.spec('FL-05')
def test_lost_copy_of_a_fanout():
    one = [told(pattern='fanout')]
    assert defects(judge('ok', one, [ran()])) == {'lost': 1}
    assert defects(judge('ok, copies', one, [ran()])) == {'lost': 1}
    # It was counted where copies may fail.
    counted = judge('ok, copies', one, [ran()], failed_copies=1)
    assert defects(counted) == {}
    assert counted.failed_copies == 1
    # And where none may.
    assert defects(judge('ok', one, [ran()], failed_copies=1)) == {'false': 1}
    both = [ran(), ran(server='b', pid=2)]
    assert defects(judge('ok', one, both)) == {}


@pytest.mark.parametrize(
    ('since', 'until', 'due'),
    [
        (0.0, None, True),
        (0.0, 200.0, True),
        (100.9, None, False),  # registered a moment before
        (102.0, None, False),
        (0.0, 101.05, False),  # left meanwhile
        (0.0, 50.0, False),
    ],
)
@pytest.mark.spec('FL-01')
def test_who_is_due_a_copy(since, until, due):
    lives = [LIVES[0], journal.Life('b', 2, since, until)]
    verdict = judge('ok', [told(pattern='fanout')], [ran()], lives)
    assert defects(verdict) == ({'lost': 1} if due else {})


@pytest.mark.parametrize(
    ('since', 'begin', 'due'),
    [
        (101.0, 104.0, False),  # began while nobody could ask
        (101.0, 105.9, False),
        (101.0, 106.1, True),
        (0.0, 104.0, True),
        (107.0, 108.1, True),
    ],
)
@pytest.mark.spec('FL-01')
def test_who_is_due_a_copy_of_a_blinded_client(since, begin, due):
    lives = [LIVES[0], journal.Life('b', 2, since)]
    verdict = judge(
        'ok',
        [told(pattern='fanout', begin=begin, end=begin + 0.1)],
        [ran(at=begin + 0.05)],
        lives,
        checker.Disturbance(100.0, 105.0, blind=((100.0, 105.0),)),
    )
    assert defects(verdict) == ({'lost': 1} if due else {})


@pytest.mark.spec('FL-02')
def test_run_twice():
    twice = [ran(), ran(server='b', pid=2)]
    for pattern in ('call', 'cast', 'notification'):
        one = [told(pattern=pattern)]
        assert defects(judge('ok', one, twice)) == {'twice': 1}
    again = [ran(), ran(), ran(server='b', pid=2)]
    fanout = [told(pattern='fanout')]
    assert defects(judge('ok', fanout, again)) == {'twice': 1}
    assert defects(judge('ok, copies', fanout, again)) == {'twice': 1}


@pytest.mark.spec('FL-02')
def test_run_twice_after_an_error():
    one = [told(outcome='PeerLost', may_have_run=True)]
    twice = [ran(), ran(server='b', pid=2)]
    assert defects(judge('ok, PeerLost 1', one, twice)) == {'twice': 1}


@pytest.mark.spec('FL-07')
def test_run_again_elsewhere():
    one = [told(pattern='notification')]
    verdict = judge('ok, again', one, [ran(), ran(server='b', pid=2)])
    assert defects(verdict) == {}
    assert verdict.again == 1
    # Twice in one process is no matter of another listener.
    assert defects(judge('ok, again', one, [ran(), ran()])) == {'twice': 1}


@pytest.mark.spec('FL-07')
def test_calls_and_casts_have_no_such_excuse():
    for row in expectations.rows().values():
        assert not row.cells['call'].again
        assert not row.cells['cast'].again


@pytest.mark.spec('FL-03')
def test_hung():
    assert defects(judge('ok', [told(end=None)], [])) == {'hung': 1}
    late = [told(end=101.0 + 10.0 + checker.HUNG_AFTER + 0.1)]
    assert defects(judge('ok', late, [ran()])) == {'hung': 1}
    slept = checker.Disturbance(100.0, 105.0, frozen=5.0)
    assert defects(judge('ok', late, [ran()], disturbance=slept)) == {}


@pytest.mark.spec('FL-04')
def test_lied():
    one = [told(outcome='DeliveryRefused', may_have_run=False, pattern='cast')]
    verdict = judge('ok, DeliveryRefused 10', one, [ran()])
    assert defects(verdict) == {'lied': 1}
    assert verdict.refused == 1
    assert defects(judge('ok, DeliveryRefused 10', one, [])) == {}


@pytest.mark.spec('FL-05')
def test_false_failure():
    one = [told(outcome='PeerLost', may_have_run=True)]
    assert defects(judge('ok', one, [])) == {'false': 1}
    allowed = judge('ok, PeerLost 3', one, [])
    assert defects(allowed) == {}
    assert allowed.unsure == 1
    # Another error than the one that is allowed.
    assert defects(judge('ok, ReplyTimeout 3', one, [])) == {'false': 1}


@pytest.mark.spec('FL-05')
def test_failure_that_came_late():
    late = 101.0 + 3.0 + checker.SLACK
    for end, found in ((late - 0.1, {}), (late + 0.1, {'false': 1})):
        one = [told(end=end, outcome='PeerLost', may_have_run=True)]
        assert defects(judge('ok, PeerLost 3', one, [])) == found
    busy = checker.Disturbance(100.0, 105.0, held_up=0.1)
    for end, found in ((late + 0.2, {}), (late + 0.4, {'false': 1})):
        one = [told(end=end, outcome='PeerLost', may_have_run=True)]
        verdict = judge('ok, PeerLost 3', one, [], disturbance=busy)
        assert defects(verdict) == found
    # What began before the fault is measured from the fault on.
    early = [told(begin=95.0, end=102.5, outcome='PeerLost')]
    verdict = judge('ok, PeerLost 3', early, [])
    assert defects(verdict) == {}
    assert verdict.slowest == 2.5


@pytest.mark.parametrize(
    ('begin', 'end', 'found'),
    [
        (90.0, 99.0, {'false': 1}),
        (99.0, 100.5, {}),
        (107.9, 108.1, {}),
        (108.1, 108.2, {'false': 1}),
    ],
)
@pytest.mark.spec('FL-05')
def test_failure_while_no_fault_is_felt(begin, end, found):
    one = [told(begin=begin, end=end, outcome='PeerLost')]
    assert defects(judge('ok, PeerLost 3', one, [])) == found


@pytest.mark.spec('FL-05')
def test_time_out_before_the_deadline():
    for end, found in ((110.9, {'false': 1}), (111.1, {})):
        one = [told(end=end, outcome='ReplyTimeout', may_have_run=True)]
        assert defects(judge('ok, ReplyTimeout 10', one, [])) == found


@pytest.mark.spec('FL-06')
def test_gone_with_a_killed_server():
    killed = [
        LIVES[0],
        journal.Life('b', 2, 0.0, until=101.3, killed_at=101.3),
    ]
    one = [told(pattern='cast')]
    verdict = judge('ok, gone', one, [], killed)
    assert defects(verdict) == {}
    assert verdict.gone == 1
    # Nobody was killed, or long after, or it is no excuse here.
    assert defects(judge('ok, gone', one, [])) == {'lost': 1}
    assert defects(judge('ok', one, [], killed)) == {'lost': 1}
    long_before = [told(pattern='cast', begin=100.0, end=100.7)]
    verdict = judge('ok, gone', long_before, [], killed)
    assert defects(verdict) == {'lost': 1}


@pytest.mark.parametrize(
    ('told_of', 'before', 'late', 'found'),
    [
        (told(), [ran()], ran(), {'twice': 1}),
        (told(), [ran()], ran(server='b', pid=2), {'twice': 1}),
        (told(outcome='PeerLost', may_have_run=True), [], ran(), {}),
        (
            told(outcome='ServerNotFound', may_have_run=False),
            [],
            ran(),
            {'lied': 1},
        ),
        (told(pattern='fanout'), [ran()], ran(server='b', pid=2), {}),
        (told(pattern='fanout'), [ran()], ran(), {'twice': 1}),
        (told(), [ran()], ran('2'), {}),
    ],
)
@pytest.mark.spec('FL-02')
@pytest.mark.spec('FL-04')
def test_what_ran_after_its_verdict(told_of, before, late, found):
    past = checker.Past()
    past.remember([told_of], before)
    for _ in range(checker.REMEMBERED - 1):
        past.remember([], [])
    verdicts = {told_of.pattern: checker.Verdict('fault', told_of.pattern)}
    past.judge(verdicts, [late])
    assert defects(verdicts[told_of.pattern]) == found
    past.remember([], [])
    past.judge(verdicts, [late])
    assert defects(verdicts[told_of.pattern]) == found


@pytest.mark.spec('FL-02')
@pytest.mark.parametrize(
    ('late', 'again', 'found'),
    [
        (ran(server='b', pid=2), 1, {}),
        (ran(), 0, {'twice': 1}),
    ],
)
def test_what_a_killed_listener_had_is_given_to_another_late(
    late, again, found
):
    past = checker.Past()
    past.remember([told()], [ran()], {told().pattern})
    verdict = checker.Verdict('fault', told().pattern)
    past.judge({told().pattern: verdict}, [late])
    assert defects(verdict) == found
    assert verdict.again == again
