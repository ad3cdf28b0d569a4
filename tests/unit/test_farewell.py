# SPDX-License-Identifier: Apache-2.0
"""Whom a router takes leave of."""

import pytest

from zmq_driver import envelope
from zmq_driver import farewell


def decoded(frames):
    return envelope.decode(frames[1:]).header


@pytest.mark.spec('DL-70')
def test_each_connection_gets_one_message():
    one = farewell.Farewell()
    for routing_id in (b'a', b'b', b'a'):
        one.heard(routing_id)
    found = list(one.messages())
    assert sorted(frames[0] for frames in found) == [b'a', b'b']
    assert all(farewell.is_one(decoded(frames)) for frames in found)
    assert {decoded(frames).reason for frames in found} == {
        envelope.NackReason.UNKNOWN_TARGET
    }
    assert not list(one.messages())


@pytest.mark.spec('DL-70')
def test_those_that_were_silent_for_longest_are_forgotten():
    one = farewell.Farewell(most=3)
    for routing_id in (b'a', b'b', b'c', b'a', b'd'):
        one.heard(routing_id)
    assert {frames[0] for frames in one.messages()} == {b'a', b'c', b'd'}


@pytest.mark.spec('DL-70')
def test_other_messages_are_no_farewell():
    reason = envelope.NackReason.UNKNOWN_TARGET
    for frame in (
        envelope.encode_nack(b'i' * 16, reason),
        envelope.encode_ack(bytes(16)),
        envelope.encode_reply(bytes(16)),
    ):
        assert not farewell.is_one(envelope.decode([frame, b'']).header)
