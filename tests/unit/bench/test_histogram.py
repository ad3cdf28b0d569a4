# SPDX-License-Identifier: Apache-2.0
"""Latencies in buckets."""

import json
import math
import random

import hypothesis
from hypothesis import strategies as st
import pytest

from zmq_driver.bench import histogram

LATENCIES = st.lists(
    st.floats(min_value=1e-6, max_value=100.0), min_size=1, max_size=200
)


def made(values):
    found = histogram.Histogram()
    found.add(values)
    return found


@pytest.mark.spec('BN-08')
@hypothesis.given(LATENCIES, st.floats(min_value=0.0, max_value=1.0))
def test_a_percentile_is_exact_but_for_three_in_a_thousand(values, share):
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert made(values).quantile(share) == pytest.approx(exact, rel=0.003)


@pytest.mark.spec('BN-08')
@hypothesis.given(LATENCIES)
def test_the_longest_is_exact(values):
    found = made(values)
    assert found.longest == max(values)
    assert found.quantile(1.0) <= max(values)


@hypothesis.given(LATENCIES, LATENCIES)
def test_merged_is_as_if_counted_at_once(some, others):
    merged = made(some)
    merged.merge(made(others))
    assert merged.buckets == made(some + others).buckets
    assert merged.longest == max(some + others)
    assert merged.count == len(some + others)


@hypothesis.given(LATENCIES)
def test_json_loses_nothing(values):
    found = made(values)
    text = json.dumps(found.as_json())
    again = histogram.Histogram.from_json(json.loads(text))
    assert again.buckets == found.buckets
    assert again.longest == found.longest


def test_nothing_counted():
    found = histogram.Histogram()
    assert (found.count, found.quantile(0.5), found.curve()) == (0, None, [])


def test_what_is_too_short_is_in_the_first_bucket():
    assert made([0.0, -1e-9, 1e-6]).buckets == {0: 3}


def test_the_curve_grows():
    chance = random.Random(1)
    curve = made([chance.expovariate(1000) for _ in range(500)]).curve()
    assert curve == sorted(curve)
    assert 0 < curve[0][0] < curve[-1][0] < 1
