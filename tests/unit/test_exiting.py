# SPDX-License-Identifier: Apache-2.0
"""What is done, in which order, when a process exits."""

import os

import pytest

from zmq_driver import exiting

pytestmark = pytest.mark.spec('LC-13')


class Listening:
    linger = 5.0

    def __init__(self, story, name, fails=(), cleanup_timeout=3.0):
        self.cleanup_timeout = cleanup_timeout
        self.pid = os.getpid()
        self.left = {}
        self._story = story
        self._name = name
        self._fails = fails

    def leave(self, deadline):
        self._step('leave', deadline)

    def finish(self, deadline):
        self._step('finish', deadline)

    def end_reception(self, deadline):
        self._step('end', deadline)

    def await_end(self, deadline):
        self._step('await', deadline)

    def _step(self, what, deadline):
        self._story.append((what, self._name))
        self.left[what] = deadline.left()
        if what in self._fails:
            raise KeyError(what)


@pytest.fixture
def story():
    return []


@pytest.fixture
def make(story):
    """Give a factory of what listens, forgotten after the test."""
    made = []

    def make(name, fails=(), **kwargs):
        made.append(Listening(story, name, fails, **kwargs))
        exiting.end_well(made[-1])
        return made[-1]

    yield make
    for one in made:
        exiting.end_no_more(one)


def steps(story):
    return [step for step, _ in story]


def test_all_leave_before_any_of_them_ends(make, story):
    one, other = make('one'), make('other')
    exiting._end_all()
    names = ['leave', 'finish', 'end', 'await']
    assert steps(story) == [name for name in names for _ in range(2)]
    assert max(one.left['leave'], other.left['leave']) <= 1.0
    assert one.left['leave'] + other.left['leave'] > 0.9
    assert one.left['finish'] <= 3.0
    # They send, and linger, together.
    assert one.left['await'] + other.left['await'] > 2 * (2.0 + 5.0)
    assert max(one.left['await'], other.left['await']) <= 3.0 + 5.0 + 1.0


@pytest.mark.spec('LC-14')
def test_each_has_its_own_time_and_a_moment_at_the_end(make):
    one, other = make('one'), make('other', cleanup_timeout=0.0)
    exiting._end_all()
    assert one.left['finish'] > 2.0
    assert other.left['finish'] == 0.0
    assert one.left['end'] > 2.0
    assert 0.5 < other.left['end'] <= 1.0
    assert one.left['await'] > 2.0 + 5.0
    assert other.left['await'] <= 1.0 + 5.0 + 1.0


def test_trouble_of_one_is_none_of_the_others(make, story, caplog):
    make('one', fails=('leave', 'finish', 'end', 'await'))
    make('other', fails=('leave', 'finish', 'end', 'await'))
    exiting._end_all()
    assert len(story) == 8
    assert 'the process exits' in caplog.text


def test_what_was_closed_is_left_alone(make, story):
    exiting.end_no_more(make('one'))
    exiting._end_all()
    assert story == []


@pytest.mark.spec('LC-16')
def test_what_was_inherited_is_left_alone(make, story):
    make('one').pid += 1
    exiting._end_all()
    assert story == []


@pytest.mark.spec('LC-16')
def test_forked_child_does_not_wait_for_a_thread_of_its_parent(make):
    make('one')
    lock = exiting._lock
    with lock:
        exiting._begin_anew()
        make('other')
    assert not lock.locked()
