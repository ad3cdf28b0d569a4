# SPDX-License-Identifier: Apache-2.0
"""Answers for which there is no room yet."""

import pytest

from tests.fixtures import clock as clocks
from zmq_driver.server import held as held_

ANSWER = (b'a', b'ack', b'')


class Connections:
    """Takes what has room."""

    def __init__(self):
        self.sent = []
        self.room = {}
        self.gone = set()
        self.full = False

    def send(self, frames):
        name = frames[0]
        self.full = name not in self.gone and self.room.get(name, 0) == 0
        if self.full or name in self.gone:
            return False
        self.room[name] -= 1
        self.sent.append(frames)
        return True


@pytest.fixture
def connections():
    return Connections()


@pytest.fixture
def clock():
    return clocks.FakeClock()


@pytest.fixture
def held(clock):
    return held_.Held(clock)


def retry(held, connections):
    return held.retry(connections.send, lambda: connections.full)


def test_nothing_is_held_at_first(held, connections):
    assert not held
    assert retry(held, connections) == []


@pytest.mark.spec('NS-90')
def test_what_has_room_goes_in_order(held, connections):
    answers = [(b'a', b'%d' % n) for n in range(3)]
    for answer in answers:
        assert held.add(answer)
    other = (b'b', b'x')
    assert held.add(other)
    connections.room = {b'a': 2, b'b': 5}
    assert retry(held, connections) == []
    assert connections.sent == [*answers[:2], other]
    assert held
    connections.room[b'a'] = 5
    assert retry(held, connections) == []
    assert connections.sent[-1] == answers[2]
    assert not held


def test_who_is_gone_gets_nothing(held, connections):
    held.add(ANSWER)
    held.add(ANSWER)
    connections.gone.add(b'a')
    assert retry(held, connections) == [ANSWER, ANSWER]
    assert not held


def test_who_reads_nothing_is_given_up(held, connections, clock):
    held.add(ANSWER)
    clock.tick(held_.TTL - 0.1)
    assert retry(held, connections) == []
    clock.tick(0.2)
    assert retry(held, connections) == [ANSWER]
    assert not held


def test_who_reads_slowly_is_not_given_up(held, connections, clock):
    held.add(ANSWER)
    held.add(ANSWER)
    clock.tick(held_.TTL - 0.1)
    connections.room[b'a'] = 1
    assert retry(held, connections) == []
    clock.tick(0.2)
    assert retry(held, connections) == []
    assert held


def test_bounds(held):
    assert not held.add((b'a', b'x' * held_.MAX_SIZE))
    assert not held
    for _ in range(held_.MAX_OF_ONE):
        assert held.add(ANSWER)
    assert not held.add(ANSWER)
    others = held_.MAX_HELD - held_.MAX_OF_ONE
    for number in range(others):
        assert held.add((b'b%d' % number, b''))
    assert not held.add((b'c', b''))
