# SPDX-License-Identifier: Apache-2.0
"""What follows from what was measured."""

import json

import pytest

from tests.unit.bench import measured
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import results


def rates(found, peer, values):
    for number, rate in enumerate(values):
        found.add(
            plan_.Step(number, measured.CALL, peer),
            measured.measurement(number, rate),
        )


@pytest.mark.spec('BN-11')
def test_a_ratio_is_made_within_rounds():
    found = results.Results(measured.plan())
    # The machine is twice as fast in each round as in the one before.
    rates(found, measured.ZMQ, [400.0, 800.0, 1600.0, 3200.0])
    rates(found, measured.RABBIT, [100.0, 200.0, 400.0, 640.0])
    row = found.row(measured.CALL, 'zmq')
    assert found.ratio(row) == (4.0, 4.0, 4.25)
    assert found.ratio(row, 'p50') == (1.0, 1.0, 1.0)
    assert row.rate == 1200.0
    baseline = found.row(measured.CALL, measured.RABBIT.name)
    assert found.ratio(baseline) is None


@pytest.mark.spec('BN-11')
def test_a_round_without_the_baseline_has_no_ratio():
    found = results.Results(measured.plan())
    rates(found, measured.ZMQ, [400.0, 800.0])
    row = found.row(measured.CALL, 'zmq')
    assert found.ratio(row) is None
    rates(found, measured.RABBIT, [100.0])
    assert found.ratio(row) == (4.0, 4.0, 4.0)
    cell = measured.CALL
    found.add(
        plan_.Step(1, cell, measured.RABBIT), measured.measurement(1, 0.0)
    )
    assert found.ratio(row) == (4.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ('values', 'spread'),
    [
        ([], None),
        ([2.0], (2.0, 2.0, 2.0)),
        ([1.0, 3.0], (2.0, 1.5, 2.5)),
        ([5.0, 1.0, 3.0, 2.0, 4.0], (3.0, 2.0, 4.0)),
    ],
)
def test_median_and_quartiles(values, spread):
    assert results.Spread.of(values) == spread


@pytest.mark.spec('BN-09')
def test_cpu_of_a_message_is_that_of_each_side():
    row = measured.full().row(measured.CALL, 'zmq')
    assert row.cpu('client') == pytest.approx(100e-6)
    assert row.cpu('server') == pytest.approx(200e-6)
    assert row.most('server', 'memory') == 60_000_000
    assert row.most('client', 'descriptors') == 20


@pytest.mark.spec('BN-14')
def test_what_is_wrong_is_told():
    found = measured.full()
    assert found.passed()
    assert found.problems() == []
    step = plan_.Step(0, measured.CALL, measured.ZMQ)
    found.add(
        step,
        measured.measurement(
            errors={'MessagingTimeout: x': 2}, lost=3, duplicated=1
        ),
    )
    assert not found.passed()
    assert found.problems() == [
        'zmq, call, 1 thread(s): 3 lost',
        'zmq, call, 1 thread(s): 1 duplicated',
        'zmq, call, 1 thread(s): 2 x MessagingTimeout: x',
    ]


@pytest.mark.spec('BN-14')
def test_a_peer_that_is_silent_is_a_failure():
    found = results.Results(measured.plan())
    step = plan_.Step(0, measured.CALL, measured.ZMQ)
    found.add(step, measured.measurement(0, 0.0, latencies=[], messages=0))
    assert not found.passed()
    assert found.problems() == [
        'zmq, call, 1 thread(s): no message came through'
    ]
    row = found.row(measured.CALL, 'zmq')
    assert row.cpu('client') is None
    assert row.latencies().quantile(0.5) is None


@pytest.mark.spec('BN-12', 'BN-15')
def test_json_has_every_round():
    found = measured.full()
    text = json.dumps(found.as_json())
    rows = json.loads(text)
    # Calls of three peers, the rest of two; one and eight threads.
    assert len(rows) == 2 * (3 + 3 * 2)
    for row in rows:
        assert [one['round'] for one in row['rounds']] == [0, 1, 2]
        assert row['p50'] == pytest.approx(0.001, rel=0.003)
        assert row['longest'] == 0.05
        for one in row['rounds']:
            assert one['client']['memory'] == 50_000_000
            assert sum(n for _, n in one['histogram']['buckets']) == 100
    assert 's3cret' not in text
