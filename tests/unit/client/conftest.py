# SPDX-License-Identifier: Apache-2.0
"""A world in which time passes when somebody waits."""

import functools

import pytest

from tests.fixtures import clock as fake_clock
from tests.unit.client import fakes
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
def world(clock):
    world = fakes.World(clock)
    yield world
    world.pool.check_invariants()
    assert not world.pool.stats().in_use, 'a lease was not released'
