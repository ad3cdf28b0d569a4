# SPDX-License-Identifier: Apache-2.0
"""Stores in real files, and in a real Redis."""

import pytest

from tests.fixtures import redis_server
from tests.unit.store import samples


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / 'ipc')


@pytest.fixture
def place(directory):
    """Return where stores are: a directory, or a URL of Redis."""
    return directory


@pytest.fixture(scope='session')
def shared_redis():
    """Give a Redis that no test stops; each has its own key prefix."""
    server = redis_server.RedisServer()
    yield server.start()
    server.close()


@pytest.fixture
def own_redis():
    """Give a Redis that the test may ill-treat, and that forgets nothing."""
    # With "everysec" it may, when it is killed and the disk was busy.
    server = redis_server.RedisServer('appendonly yes', 'appendfsync always')
    yield server.start()
    server.close()


@pytest.fixture
def make(place):
    """Return a function that makes a store in its place."""
    made = []

    def make(site='local /', where=place, **options):
        store = samples.make(where, site, **options)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make):
    return make()
