# SPDX-License-Identifier: Apache-2.0
"""How many messages a listener takes."""

import threading

import pytest

from zmq_driver import clock as clocks
from zmq_driver.server import backlog as backlogs


@pytest.fixture
def unfinished():
    return backlogs.Unfinished()


@pytest.mark.spec('DL-41')
def test_number_of_messages_is_limited(unfinished):
    one = backlogs.Backlog(2, 1000, unfinished)
    leave = one.enter(1)
    assert one.enter(1)
    assert one.enter(1) is None
    leave()
    assert one.enter(1)
    assert one.enter(1) is None
    assert unfinished.count == 2


@pytest.mark.spec('DL-71')
def test_size_of_messages_is_limited(unfinished):
    one = backlogs.Backlog(100, 1000, unfinished)
    leave = one.enter(600)
    assert one.enter(401) is None
    assert one.enter(400)
    assert one.enter(1) is None
    leave()
    assert one.enter(600)


@pytest.mark.spec('DL-71')
def test_single_message_is_taken_whatever_its_size(unfinished):
    one = backlogs.Backlog(100, 1000, unfinished)
    leave = one.enter(5000)
    assert one.enter(0) is None
    leave()
    assert one.enter(5000)


@pytest.mark.spec('DL-41')
def test_each_listener_has_its_own_limit(unfinished):
    one, other = (backlogs.Backlog(1, 10, unfinished) for _ in range(2))
    assert one.enter(10)
    assert other.enter(10)
    assert one.enter(10) is None
    assert unfinished.count == 2


@pytest.mark.spec('LC-14')
def test_wait_ends_when_all_are_done(unfinished):
    one, other = (backlogs.Backlog(9, 99, unfinished) for _ in range(2))
    assert unfinished.wait(clocks.Deadline(0.0))
    leaves = [one.enter(1), one.enter(1), other.enter(1)]
    assert not unfinished.wait(clocks.Deadline(0.01))
    found = []
    waiter = threading.Thread(
        target=lambda: found.append(unfinished.wait(clocks.Deadline(30)))
    )
    waiter.start()
    for leave in leaves:
        assert not found
        leave()
    waiter.join(30)
    assert found == [True]
