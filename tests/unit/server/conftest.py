# SPDX-License-Identifier: Apache-2.0
"""Clocks and the haste of the interpreter."""

import functools
import sys

import pytest

from tests.fixtures import clock as fake_clock
from zmq_driver import clock as clocks


@pytest.fixture
def clock(monkeypatch):
    """Give the clock of every deadline that is made in the test."""
    clock = fake_clock.FakeClock()
    monkeypatch.setattr(
        clocks, 'Deadline', functools.partial(clocks.Deadline, clock=clock)
    )
    return clock


@pytest.fixture
def hasty():
    """Switch threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
