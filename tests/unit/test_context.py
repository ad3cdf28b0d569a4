# SPDX-License-Identifier: Apache-2.0
"""The zmq context of a driver, and its end."""

import pytest
import zmq

from zmq_driver import clock
from zmq_driver import context

HANG = 30


@pytest.mark.spec('LC-05')
def test_context_ends_once_and_again():
    one = context.DriverContext('d1', 1, 4)
    socket = one.socket(zmq.DEALER)
    assert socket.type == zmq.DEALER
    socket.close(0)
    assert one.close(clock.Deadline(HANG))
    assert one.close(clock.Deadline(HANG))
    with pytest.raises(zmq.ZMQError):
        one.socket(zmq.DEALER)


@pytest.mark.spec('LC-05')
def test_open_socket_does_not_block_the_end(caplog):
    one = context.DriverContext('d1', 1, 4)
    socket = one.socket(zmq.DEALER)
    assert not one.close(clock.Deadline(0.05))
    assert 'driver d1 still has open sockets' in caplog.text
    # It ends as soon as the last one is closed.
    socket.close(0)
    assert one.close(clock.Deadline(HANG))


def test_options_reach_libzmq(monkeypatch):
    made = []
    original = zmq.Context

    def make(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(zmq, 'Context', make)
    one = context.DriverContext('d1', 3, 100)
    assert made[0].get(zmq.IO_THREADS) == 3
    assert made[0].get(zmq.MAX_SOCKETS) >= 200
    assert one.close(clock.Deadline(HANG))
