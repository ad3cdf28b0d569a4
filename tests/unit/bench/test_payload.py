# SPDX-License-Identifier: Apache-2.0
"""What the measured messages carry."""

import random
import statistics

import pytest

from zmq_driver.bench import payload


@pytest.mark.spec('BN-05')
def test_lengths_are_those_of_the_simulator():
    found = payload.lengths(random.Random(1), 50_000)
    assert statistics.mean(found) == pytest.approx(3280, rel=0.02)
    assert min(found) > 500
    assert max(found) <= 11_500
    # Two in three are from 1,500 to 3,000, one in eighty above 11,000.
    middle = sum(1500 < length <= 3000 for length in found) / len(found)
    assert middle == pytest.approx(2583 / 4077, abs=0.01)
    large = sum(length > 11_000 for length in found) / len(found)
    assert large == pytest.approx(50 / 4077, abs=0.002)


@pytest.mark.spec('BN-05')
def test_the_same_seed_gives_the_same_payloads():
    assert payload.make(None, 7) == payload.make(None, 7)
    assert payload.make(None, 7) != payload.make(None, 8)
    assert len(payload.make(None, 7)) == payload.COUNT
    mean = statistics.mean(len(one) for one in payload.make(None, 7))
    assert mean == pytest.approx(3280, rel=0.1)


@pytest.mark.parametrize('size', [0, 1, 3200])
def test_a_fixed_size(size):
    [found] = payload.make(size, 1)
    assert len(found) == size
