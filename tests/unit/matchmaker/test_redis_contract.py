# SPDX-License-Identifier: Apache-2.0
"""The Redis matchmakers keep the contract, against real servers."""

import pytest

from tests.fixtures import redis_server
from tests.unit.matchmaker import contract
from tests.unit.matchmaker import redis_samples


class Stopped:
    """A Redis that is not running, and keeps its data."""

    def __init__(self, server):
        self._server = server

    def __enter__(self):
        self._server.stop(keep=True)

    def __exit__(self, *_exc_info):
        self._server.start()

    def __str__(self):
        return str(self._server.port)


class TestRedis(contract.MatchmakerContract):
    @pytest.fixture(scope='class')
    def server(self):
        server = redis_server.RedisServer()
        yield server.start()
        server.close()

    @pytest.fixture
    def make(self, server, directory):
        with redis_samples.factory(
            directory, f'zmq+redis://{server.address}/'
        ) as make:
            yield make

    @pytest.fixture
    def outage(self, server):
        return Stopped(server)


class TestSentinel(contract.MatchmakerContract):
    @pytest.fixture(scope='class')
    def deployment(self):
        deployment = redis_server.SentinelDeployment(sentinels=2)
        yield deployment.start()
        deployment.close()

    @pytest.fixture
    def make(self, deployment, directory):
        with redis_samples.factory(
            directory, f'zmq+sentinel://{deployment.hosts}/mymaster/'
        ) as make:
            yield make

    @pytest.fixture
    def outage(self, deployment):
        """Sentinels that are frozen, so that nobody names a master.

        What is connected already would go on.
        """
        return Unnamed(deployment)


class Unnamed:
    """A master that closed its connections, and Sentinels that are gone."""

    def __init__(self, deployment):
        self._deployment = deployment

    def __enter__(self):
        for sentinel in self._deployment.sentinels:
            sentinel.stop()
        master = self._deployment.master
        master.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')

    def __exit__(self, *_exc_info):
        for sentinel in self._deployment.sentinels:
            sentinel.start()

    def __str__(self):
        return f'Sentinel {self._deployment.sentinels[0].address}'
