# SPDX-License-Identifier: Apache-2.0
"""The table."""

import pytest

from tests.unit.bench import measured
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import results
from zmq_driver.bench import table


@pytest.mark.spec('BN-12')
def test_a_row_has_every_figure():
    found = measured.full()
    rows = [
        dict(zip(table.COLUMNS, row, strict=True)) for row in table.rows(found)
    ]
    assert len(rows) == 18
    assert rows[0] == {
        'Pattern': 'call',
        'Threads': '1',
        'Peer': 'zmq',
        'Rate/s': '100',
        'Ratio (quartiles)': '1.00 (1.00-1.00)',
        'p50 ms': '0.999',
        'p99 ms': '1.999',
        'p99.9 ms': '50',
        'Max ms': '50',
        'Errors': '0',
        'Lost': '0',
        'Dupl.': '0',
        'CPU us': '100 + 200',
        'MB': '50 + 60',
        'FDs': '20 + 30',
        'Thr.': '5 + 70',
    }
    assert rows[1]['Ratio (quartiles)'] == '1'
    assert rows[2]['Peer'] == 'raw pyzmq'
    assert (rows[2]['Lost'], rows[2]['Dupl.']) == ('-', '-')


def test_a_silent_peer_has_dashes():
    found = results.Results(measured.plan())
    step = plan_.Step(0, measured.CALL, measured.ZMQ)
    found.add(step, measured.measurement(0, 0.0, latencies=[], messages=0))
    [row] = table.rows(found)
    shown = dict(zip(table.COLUMNS, row, strict=True))
    assert shown['p50 ms'] == shown['Max ms'] == '-'
    assert shown['CPU us'] == '- + -'
    assert shown['Ratio (quartiles)'] == '-'


def test_numbers_stand_below_each_other():
    rows = table.aligned(list(table.rows(measured.full())))
    for name, *column in zip(table.COLUMNS, *rows, strict=True):
        if name not in {'Pattern', 'Peer'}:
            assert len({len(text) for text in column}) == 1
    assert rows[2][2] == 'raw pyzmq'


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(None, '-'), (0.000043, '0.043'), (0.0123456, '12.35'), (9.87, '9870')],
)
def test_milliseconds(seconds, text):
    assert table.milliseconds(seconds) == text
