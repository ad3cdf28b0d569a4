# SPDX-License-Identifier: Apache-2.0
"""Deadlines, on a clock that a test moves."""

import pytest

from tests.fixtures import clock as fake
from zmq_driver import clock


@pytest.mark.spec('DL-03')
def test_deadline_counts_down_and_stops_at_zero():
    time = fake.FakeClock()
    deadline = clock.Deadline(2.5, time)
    assert deadline.left() == 2.5
    assert not deadline.passed()
    time.tick(2.0)
    assert deadline.left() == 0.5
    time.tick(0.5)
    assert deadline.passed()
    assert deadline.left() == 0.0
    time.tick(7.0)
    assert deadline.left() == 0.0
    assert deadline.timeout == 2.5


@pytest.mark.parametrize('timeout', [0.0, -1.0])
def test_deadline_without_time_has_passed(timeout):
    deadline = clock.Deadline(timeout, fake.FakeClock())
    assert deadline.passed()
    assert deadline.left() == 0.0


def test_deadline_shows_what_is_left():
    time = fake.FakeClock()
    deadline = clock.Deadline(2.0, time)
    time.tick(0.5)
    assert repr(deadline) == '<Deadline 1.500 s of 2.000 s left>'
