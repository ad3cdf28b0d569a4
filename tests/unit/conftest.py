# SPDX-License-Identifier: Apache-2.0
"""What unit tests with real sockets share."""

import pathlib
import shutil
import tempfile

import pytest

from tests.fixtures import socket_samples
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import sockets

HANG = 30


@pytest.fixture
def directory():
    path = pathlib.Path(tempfile.mkdtemp(prefix='zd'))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def endpoint(directory):
    return f'ipc://{directory}/s.ipc'


@pytest.fixture
def context():
    one = context_.DriverContext('tests', 1, 16)
    yield one
    assert one.close(clock.Deadline(HANG))


@pytest.fixture
def router(context, endpoint):
    one = sockets.RouterSocket(context, endpoint, socket_samples.OPTIONS)
    yield one
    one.close()
