# SPDX-License-Identifier: Apache-2.0
"""A directory, and members that meet in it."""

import pathlib
import shutil
import tempfile

import pytest

from tests.fixtures import redis_server
from tests.unit.matchmaker import redis_samples
from tests.unit.matchmaker import samples
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import local


@pytest.fixture
def path():
    # A short path: the names of ipc sockets have at most 107 bytes.
    path = pathlib.Path(tempfile.mkdtemp(prefix='zd'))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def directory(path):
    return ipc.IpcDirectory(str(path))


@pytest.fixture
def make(directory):
    """Give a factory of local matchmakers, closed after the test."""
    made = []

    def make(virtual_host='', member=None):
        settings = base.MatchmakerSettings(
            directory, virtual_host, member or samples.member()
        )
        made.append(local.LocalMatchmaker(settings))
        return made[-1]

    yield make
    for one in made:
        one.close(samples.deadline())


@pytest.fixture(scope='session')
def shared_redis():
    """Give a Redis that no test stops; each has its own key prefix."""
    server = redis_server.RedisServer()
    yield server.start()
    server.close()


@pytest.fixture
def own_redis():
    """Give a Redis that the test may ill-treat."""
    server = redis_server.RedisServer()
    yield server.start()
    server.close()


@pytest.fixture
def make_shared(shared_redis, directory):
    """Give a factory of members at the shared Redis."""
    with redis_samples.factory(
        directory, f'zmq+redis://{shared_redis.address}/'
    ) as make:
        yield make


@pytest.fixture
def make_own(own_redis, directory):
    """Give a factory of members at the test's own Redis."""
    with redis_samples.factory(
        directory, f'zmq+redis://{own_redis.address}/'
    ) as make:
        yield make
