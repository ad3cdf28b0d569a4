# SPDX-License-Identifier: Apache-2.0
"""Whatever grows has a slope."""

import os

import pytest

from tests.fault import growth


@pytest.mark.parametrize(
    ('points', 'expected'),
    [
        ([], 0.0),
        ([(1.0, 5.0)], 0.0),
        ([(1.0, 5.0), (1.0, 7.0)], 0.0),
        ([(0.0, 3.0), (1.0, 5.0), (2.0, 7.0)], 2.0),
        ([(0.0, 1.0), (1.0, 0.0), (2.0, 1.0), (3.0, 0.0)], -0.2),
    ],
)
@pytest.mark.spec('FL-14')
def test_slope(points, expected):
    assert growth.slope(points) == pytest.approx(expected)


@pytest.mark.leaks(reason='the descriptors that were grown are closed')
@pytest.mark.spec('FL-14')
def test_growth_is_seen():
    watched = growth.Growth({'me': os.getpid()})
    grown = []
    try:
        for _ in range(10):
            watched.take()
            grown += [os.open('/dev/null', os.O_RDONLY) for _ in range(3)]
    finally:
        for one in grown:
            os.close(one)
    slopes = watched.slopes()['me']
    assert set(slopes) == set(growth.QUANTITIES)
    assert slopes['descriptors'] > 0
    first, last = watched.samples[0][2], watched.samples[-1][2]
    assert last['descriptors'] - first['descriptors'] == 27
    text = '\n'.join(watched.lines())
    assert 'descriptors' in text
    assert '+' in text


@pytest.mark.spec('FL-14')
def test_the_beginning_can_be_left_out():
    watched = growth.Growth({'me': 1})
    for hours in range(10):
        used = {q: float(min(hours, 4)) for q in growth.QUANTITIES}
        watched.samples.append((float(hours), 'me', used))
    assert watched.slopes()['me']['threads'] > 0.3
    assert watched.slopes(0.5)['me']['threads'] == 0.0
