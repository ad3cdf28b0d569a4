# SPDX-License-Identifier: Apache-2.0
"""Every pool that a test made has books that add up in the end."""

import pytest

from tests.unit.pool import fakes


@pytest.fixture
def make_world():
    worlds = []

    def make(**limits):
        worlds.append(fakes.World(**limits))
        return worlds[-1]

    yield make
    for world in worlds:
        world.single_threaded = False
        world.check_books()
        world.pool._thread.stop(fakes.PATIENCE)


@pytest.fixture
def world(make_world):
    """A pool of four, of which two to one peer."""
    return make_world(max_size=4, max_per_peer=2, max_waiters=8)
