# SPDX-License-Identifier: Apache-2.0
"""Backoff and Attempts."""

import random

import pytest

from zmq_driver import clock as clocks
from zmq_driver.client import retry


def test_pauses_double_up_to_the_longest(monkeypatch):
    monkeypatch.setattr(random, 'uniform', lambda low, high: high)
    backoff = retry.Backoff(0.1, 0.5)
    assert [backoff.pause() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_pauses_are_half_to_all_of_the_nominal():
    pauses = [retry.Backoff(1.0, 8.0).pause() for _ in range(200)]
    assert 0.5 <= min(pauses) < 0.7
    assert 0.8 < max(pauses) <= 1.0


@pytest.mark.parametrize('number', [None, -1])
@pytest.mark.spec('DL-14')
def test_without_a_limit_only_the_deadline_ends_attempts(world, number):
    attempts = world.attempts(number, timeout=5.0)
    assert not attempts.limited
    assert not attempts.none_left()
    assert all(attempts.failed() for _ in range(100))
    world.tick(5.0)
    assert not attempts.failed()


@pytest.mark.parametrize('number', [0, 1, 3])
@pytest.mark.spec('DL-14')
def test_so_many_retries_and_no_more(world, number):
    attempts = world.attempts(number)
    assert attempts.limited
    outcomes = [attempts.failed() for _ in range(number + 2)]
    assert outcomes == [True] * number + [False] * 2
    assert attempts.none_left()


@pytest.mark.spec('DL-03')
def test_no_pause_goes_beyond_the_deadline(clock):
    pauses = []
    attempts = retry.Attempts(None, clocks.Deadline(0.002), pauses.append)
    attempts.pause()
    assert pauses == [pytest.approx(0.002)]
    clock.tick(1.0)
    attempts.pause()
    assert pauses[1] == 0.0
