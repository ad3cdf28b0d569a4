# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements that reached nobody."""

import pytest

from zmq_driver import clock as clocks
from zmq_driver import envelope
from zmq_driver.server import unheard as unheards

#: Seconds.
TTL = 3.0

IDS = [bytes([n]) * 16 for n in range(5)]


@pytest.fixture
def unheard(clock):
    return unheards.Unheard(clock)


@pytest.mark.spec('NS-56')
def test_what_is_lost_is_asked_for_or_forgotten(unheard, clock):
    assert not unheard.is_any(TTL)
    unheard.asked(IDS[0])
    for n in range(2):
        unheard.lost(envelope.encode_ack(IDS[n]))
    unheard.asked(IDS[0])
    assert unheard.is_any(TTL)
    unheard.asked(IDS[1])
    assert not unheard.is_any(TTL)
    unheard.lost(envelope.encode_ack(IDS[2]))
    clock.tick(TTL)
    assert not unheard.is_any(TTL)


@pytest.mark.spec('NS-56')
def test_only_acknowledgements_are_asked_for_again(unheard):
    unheard.lost(envelope.encode_nack(IDS[0], envelope.NackReason.BUSY))
    unheard.lost(b'what is this')
    assert not unheard.is_any(TTL)


@pytest.mark.spec('NS-56')
def test_the_oldest_are_forgotten_at_a_bound(unheard, monkeypatch):
    monkeypatch.setattr(unheards, 'MAX_LOST', 2)
    for one in IDS:
        unheard.lost(envelope.encode_ack(one))
    for one in IDS[3:]:
        unheard.asked(one)
    assert not unheard.is_any(TTL)


@pytest.mark.spec('NS-56')
def test_it_is_waited_for_no_longer_than_somebody_may_come():
    unheard = unheards.Unheard()
    unheard.lost(envelope.encode_ack(IDS[0]))
    deadline = clocks.Deadline(30)
    unheard.wait(0.1, deadline)
    assert not deadline.passed()
    unheard.lost(envelope.encode_ack(IDS[0]))
    unheard.wait(TTL, clocks.Deadline(0.0))
    assert unheard.is_any(TTL)
