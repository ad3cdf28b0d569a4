# SPDX-License-Identifier: Apache-2.0
"""A directory, and members that meet in it."""

import pathlib
import shutil
import tempfile

import pytest

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
