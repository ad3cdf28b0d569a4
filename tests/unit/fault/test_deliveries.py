# SPDX-License-Identifier: Apache-2.0
"""The checker of notifications sees each defect."""

import pytest

from tests.fault import deliveries

OK = [('about', 1.0), ('accepted', 1.1)]
SEEN = [('begun', 1.0), ('seen', 1.05)]


class Journals:
    """What was written, by whom."""

    def __init__(self):
        self.found = deliveries.Deliveries(['p', 'q'])

    def notify(self, *records, id='n.1-0', **more):
        for kind, moment in records:
            self.found.note({'k': kind, 'id': id, 't': moment, **more})

    def sight(self, *records, pool='p', by='l.1', id='n.1-0'):
        for kind, moment in records:
            self.found.sight(
                {'k': kind, 'id': id, 'pool': pool, 'by': by, 't': moment}
            )

    def judge(self, killed=None, away=()):
        verdict = self.found.judge(killed or {}, away, 10.0)
        defects = {
            name: getattr(verdict, name)
            for name in deliveries.DEFECTS
            if getattr(verdict, name)
        }
        assert len(verdict.problems) == sum(defects.values())
        assert verdict.good == (not defects)
        return verdict, defects


@pytest.fixture
def journals():
    return Journals()


@pytest.fixture
def accepted(journals):
    """Give journals with one accepted, which the other pool has handled."""
    journals.notify(*OK)
    journals.sight(*SEEN, pool='q')
    return journals


def test_once_in_each_pool_is_good(accepted):
    assert accepted.found.missing() == 1
    accepted.sight(*SEEN)
    assert accepted.found.missing() == 0
    verdict, defects = accepted.judge()
    assert defects == {}
    assert (verdict.accepted, verdict.seen) == (1, 2)
    assert verdict.slowest == pytest.approx(0.1)


@pytest.mark.spec('FL-15')
def test_accepted_and_not_handled(accepted):
    _, defects = accepted.judge()
    assert defects == {'lost': 1}


@pytest.mark.spec('FL-15')
def test_killed_notifier_had_accepted_it(accepted):
    _, defects = accepted.judge(killed={'n.1': 1.2})
    assert defects == {'lost': 1}


@pytest.mark.spec('FL-15')
def test_begun_is_not_handled(accepted):
    accepted.sight(('begun', 1.0))
    verdict, defects = accepted.judge(killed={'l.1': 1.1})
    assert defects == {'lost': 1}
    assert verdict.interrupted == 1


@pytest.mark.spec('FL-16')
def test_same_process_twice(accepted):
    accepted.sight(*SEEN, ('begun', 2.0), ('seen', 2.1))
    _, defects = accepted.judge()
    assert defects == {'twice': 1}


@pytest.mark.spec('FL-16')
def test_two_processes(accepted):
    accepted.sight(*SEEN)
    accepted.sight(('begun', 2.0), ('seen', 2.1), by='l.2')
    _, defects = accepted.judge()
    assert defects == {'duplicates': 1}


@pytest.mark.spec('FL-16')
def test_requeue_is_no_duplicate(accepted):
    accepted.sight(('begun', 1.0), ('requeued', 1.1))
    accepted.sight(('begun', 2.0), ('seen', 2.1))
    verdict, defects = accepted.judge()
    assert defects == {}
    assert verdict.requeued == 1


@pytest.mark.spec('FL-19')
def test_listener_killed_before_it_could_tell(accepted):
    accepted.sight(*SEEN)
    accepted.sight(('begun', 2.0), ('seen', 2.1), by='l.2')
    verdict, defects = accepted.judge(killed={'l.1': 1.2})
    assert defects == {}
    assert verdict.unacknowledged == 1


@pytest.mark.spec('FL-19')
@pytest.mark.parametrize('death', [1.6, 2.05])
def test_death_excuses_no_other_duplicate(accepted, death):
    """Killed too late, or after the other had begun."""
    accepted.sight(*SEEN)
    accepted.sight(('begun', 1.04), ('seen', 2.1), by='l.2')
    _, defects = accepted.judge(killed={'l.1': death})
    assert defects == {'duplicates': 1}


@pytest.mark.spec('FL-19')
def test_listener_killed_while_the_store_was_away(accepted):
    accepted.sight(*SEEN)
    accepted.sight(('begun', 6.0), ('seen', 6.1), by='l.2')
    killed = {'l.1': 4.0}
    verdict, defects = accepted.judge(killed, away=[(1.2, 3.0)])
    assert defects == {}
    assert verdict.unrecorded == 1
    # It was back before, or it went after everything was written down.
    for away in (0.2, 0.8), (1.2, 2.0), (2.0, 5.0):
        _, defects = accepted.judge(killed, away=[away])
        assert defects == {'duplicates': 1}


@pytest.mark.spec('FL-19')
def test_interrupted_is_no_duplicate(accepted):
    accepted.sight(('begun', 1.0))
    accepted.sight(('begun', 2.0), ('seen', 2.1), by='l.2')
    verdict, defects = accepted.judge(killed={'l.1': 1.1})
    assert defects == {}
    assert verdict.interrupted == 1


@pytest.mark.spec('FL-18')
def test_begun_and_not_ended(accepted):
    accepted.sight(*SEEN)
    accepted.sight(('begun', 2.0), by='l.2')
    _, defects = accepted.judge()
    assert defects == {'abandoned': 1}


@pytest.mark.spec('FL-17')
def test_notify_that_takes_too_long(journals):
    journals.notify(('about', 1.0), ('accepted', 12.5))
    journals.sight(*SEEN)
    journals.sight(*SEEN, pool='q')
    verdict, defects = journals.judge()
    assert defects == {'hung': 1}
    assert verdict.slowest == 11.5


@pytest.mark.spec('FL-17')
def test_notify_that_does_not_return(journals):
    journals.notify(('about', 1.0))
    _, defects = journals.judge()
    assert defects == {'hung': 1}
    verdict, defects = journals.judge(killed={'n.1': 1.2})
    assert defects == {}
    assert verdict.unknown == 1


FAILURE = {'error': 'DeliveryRefused', 'text': 'because'}


@pytest.mark.spec('FL-17')
def test_errors_are_allowed_while_the_store_is_away(journals):
    failed = [('about', 1.0), ('failed', 2.0)]
    journals.notify(*failed, may_have_run=False, **FAILURE)
    verdict, defects = journals.judge(away=[(1.5, 2.5)])
    assert defects == {}
    assert verdict.refused == 1
    _, defects = journals.judge(away=[(2.5, 3.5)])
    assert defects == {'errors': 1}
    late = 2.0 - deliveries.RECOVERED_WITHIN
    _, defects = journals.judge(away=[(late - 1.0, late + 0.1)])
    assert defects == {}
    _, defects = journals.judge(away=[(late - 1.0, late - 0.1)])
    assert defects == {'errors': 1}


@pytest.mark.spec('FL-17')
def test_refused_and_delivered(journals):
    failed = [('about', 1.0), ('failed', 2.0)]
    journals.notify(*failed, may_have_run=False, **FAILURE)
    journals.sight(*SEEN)
    _, defects = journals.judge(away=[(1.5, 2.5)])
    assert defects == {'lied': 1}
