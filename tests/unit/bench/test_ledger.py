# SPDX-License-Identifier: Apache-2.0
"""What became of every message."""

import pytest

from zmq_driver.bench import ledger
from zmq_driver.bench.programs import executions


def number(sender, sequence):
    return (sender << executions.SEQUENCE_BITS) + sequence


ALL = [number(0, 0), number(0, 1), number(7, 0)]
SENDERS = [(0, 2, []), (7, 1, [])]


@pytest.mark.spec('BN-06')
@pytest.mark.parametrize(
    ('executed', 'delivered', 'lost', 'duplicated'),
    [
        ([ALL], 3, 0, 0),
        ([ALL[:1], ALL[1:]], 3, 0, 0),
        ([ALL[:2], []], 2, 1, 0),
        ([ALL, ALL[:1]], 3, 0, 1),
        ([ALL + ALL[:1], ALL[:1]], 3, 0, 2),
        ([[], []], 0, 3, 0),
    ],
)
def test_each_should_run_once_altogether(
    executed, delivered, lost, duplicated
):
    assert ledger.account(SENDERS, executed, fanout=False) == ledger.Account(
        delivered, lost, duplicated
    )


@pytest.mark.spec('BN-06')
@pytest.mark.parametrize(
    ('executed', 'delivered', 'lost', 'duplicated'),
    [
        ([ALL, ALL], 6, 0, 0),
        ([ALL, ALL[:1]], 4, 2, 0),
        ([ALL + ALL, ALL], 6, 0, 3),
        ([ALL, []], 3, 3, 0),
    ],
)
def test_a_fanout_should_run_once_on_every_server(
    executed, delivered, lost, duplicated
):
    assert ledger.account(SENDERS, executed, fanout=True) == ledger.Account(
        delivered, lost, duplicated
    )


@pytest.mark.spec('BN-06')
@pytest.mark.parametrize('ran', [ALL, ALL[1:]])
def test_what_failed_may_or_may_not_have_run(ran):
    senders = [(0, 2, [0]), (7, 1, [])]
    found = ledger.account(senders, [ran], fanout=False)
    assert found == ledger.Account(len(ran), 0, 0)
    assert ledger.expected(senders) == 2


def test_clients_are_put_together():
    answers = [
        {'senders': [[0, 2, []]]},
        {'senders': [[7, 1, []], [8, 1, [0]]]},
    ]
    found = ledger.merge_senders(answers)
    assert found == [*SENDERS, (8, 1, [0])]
    assert ledger.expected(found) == 3


@pytest.mark.spec('BN-04', 'BN-06')
def test_executions_of_other_runs_are_not_counted():
    ran = executions.Executions()
    ran.begin(1)
    ran.add([1, ALL[0]])
    ran.begin(2)
    ran.add([1, ALL[1]])
    for message in ALL:
        ran.add([2, message])
    assert ran.count(2)['count'] == 3
    assert ran.count(2)['last'] > 0
    packed = ran.collect(2)['numbers']
    assert list(executions.unpack(packed)) == ALL
