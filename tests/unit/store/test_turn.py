# SPDX-License-Identifier: Apache-2.0
"""The turn of a process that does not run."""

import os
import pathlib
import signal
import time

import pytest

from tests.unit.store import samples
from zmq_driver.store import turn

_CLAIM = """
print(store.claim(), flush=True)
for line in sys.stdin:
    print(store.claim(), flush=True)
"""


@pytest.fixture
def other(directory):
    """Give a process that claims, and once more for each line."""
    process = samples.start(_CLAIM, directory)
    yield process
    process.stdin.close()
    process.wait(samples.HANG)
    process.stdout.close()


def claims(process):
    return process.stdout.readline().strip() == 'True'


@pytest.mark.spec('NS-44')
def test_turn_of_a_frozen_process_is_taken_from_it(store, other, monkeypatch):
    monkeypatch.setattr(turn, 'FROZEN', 0.3)
    assert claims(other)
    other.send_signal(signal.SIGSTOP)
    try:
        assert not store.claim()
        time.sleep(0.5)
        # The first one removes the file, maybe the next one makes it.
        assert store.claim() or store.claim()
    finally:
        other.send_signal(signal.SIGCONT)
    other.stdin.write('\n')
    other.stdin.flush()
    assert not claims(other)
    assert store.claim()


@pytest.mark.spec('NS-44')
def test_turn_that_is_used_is_left_alone(store, other, monkeypatch):
    monkeypatch.setattr(turn, 'FROZEN', 2.0)
    monkeypatch.setattr(turn, 'RENEWAL', 0.0)
    assert claims(other)
    for _ in range(6):
        time.sleep(0.5)
        other.stdin.write('\n')
        other.stdin.flush()
        assert claims(other)
        assert not store.claim()


def test_file_of_another_process_is_put_back(store):
    assert store.claim()
    mine = store._turn
    path = pathlib.Path(mine._path)
    stranger = path.with_name('stranger')
    stranger.touch()
    fd = os.open(stranger, os.O_RDONLY)
    try:
        mine._remove(fd)
    finally:
        os.close(fd)
    assert store.claim()
    assert {p.name for p in path.parent.iterdir() if 'drain' in p.name} == {
        path.name
    }


def test_full_disk_does_not_end_a_turn(store, monkeypatch):
    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'pwrite', fail)
    assert store.claim()
    assert store.claim()
