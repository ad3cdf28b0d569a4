# SPDX-License-Identifier: Apache-2.0
"""One request and its answer."""

import logging
import threading

import pytest

from tests.unit.client import fakes
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import farewell
from zmq_driver.client import exchange

ID = bytes(range(16))
OTHER = b'o' * 16
REPLY = (envelope.encode_reply(ID), b'1')
HEARTBEAT = (envelope.encode_heartbeat(ID), b'')
REQUEST = (envelope.encode_request(ID, 'exchange', 'topic'), fakes.BODY)


@pytest.fixture
def lease(world):
    """Lend a socket to a peer that says nothing by itself."""
    peer = world.add('a', fakes.silence)
    with world.pool.checkout(peer.route.endpoint, world.deadline()) as lease:
        yield lease


@pytest.fixture
def talk(world, lease):
    return exchange.Exchange(lease, ID, world.counters)


def say(lease, *messages):
    lease.socket.inbox.extend(messages)


def receive(world, talk, timeout=10.0, monitor=0.0):
    return talk.receive(envelope.Kind.REPLY, world.deadline(timeout), monitor)


def test_request_is_counted_when_it_is_sent(world, talk):
    talk.connect(1.0)
    talk.send(REQUEST)
    assert world.count('requests_sent') == 1
    assert world.count('requests_not_sent') == 0


@pytest.mark.spec('DL-01')
def test_nothing_is_sent_without_a_connection(world, lease, talk):
    lease.socket.peer.connects = False
    start = world.clock()
    with pytest.raises(errors.PeerNotReady):
        talk.connect(1.5)
    assert world.clock() - start == pytest.approx(1.5)
    assert world.count('requests_not_sent') == 1
    assert not lease.socket.peer.got


@pytest.mark.spec('DL-01')
def test_connection_that_goes_before_the_sending(world, lease, talk):
    lease.socket.peer.stands = False
    with pytest.raises(errors.PeerNotReady):
        talk.send(REQUEST)
    assert world.count('requests_not_sent') == 1
    assert world.count('requests_sent') == 0


def test_reply_ends_the_wait(world, lease, talk):
    say(lease, REPLY)
    assert receive(world, talk).body == b'1'


@pytest.mark.spec('LC-31')
@pytest.mark.parametrize('last', [True, False])
def test_nothing_is_sent_behind_the_last_message(world, last):
    peer = world.add('a', fakes.silence)
    endpoint = peer.route.endpoint
    reason = envelope.NackReason.UNKNOWN_TARGET
    nack = envelope.encode_nack(
        farewell.ALL_UNANSWERED if last else ID, reason
    )
    with world.pool.checkout(endpoint, world.deadline()) as lease:
        talk = exchange.Exchange(lease, ID, world.counters)
        talk.send(REQUEST)
        say(lease, (nack, b''))
        assert receive(world, talk).header.reason == reason
        used = lease.socket
    with world.pool.checkout(endpoint, world.deadline()) as lease:
        assert (lease.socket is not used) is last


@pytest.mark.spec('DL-11')
def test_answers_to_others_are_dropped_and_counted(world, lease, talk):
    say(
        lease,
        (envelope.encode_reply(OTHER), b'"old"'),
        (envelope.encode_nack(OTHER, envelope.NackReason.BUSY), b''),
        REPLY,
    )
    assert receive(world, talk).body == b'1'
    assert world.count('replies_late') == 2


@pytest.mark.spec('DL-42')
def test_garbage_is_dropped_and_counted(world, lease, talk):
    say(lease, (b'',), (b'x', b'y', b'z'), (b'ZO\2' + bytes(60), b''), REPLY)
    assert receive(world, talk).body == b'1'
    assert world.count('messages_undecodable') == 3


@pytest.mark.spec('DL-42')
def test_garbage_does_not_flood_the_log(world, lease, talk, caplog):
    caplog.set_level(logging.WARNING)
    say(lease, *[(b'garbage',)] * 1000, REPLY)
    receive(world, talk)
    lines = len(caplog.records)
    caplog.clear()
    assert world.count('messages_undecodable') == 1000
    assert 1 <= lines <= 10


def test_nack_ends_the_wait(world, lease, talk):
    say(lease, (envelope.encode_nack(ID, envelope.NackReason.BUSY), b''))
    assert receive(world, talk).header.kind is envelope.Kind.NACK


@pytest.mark.spec('DL-70')
def test_last_message_of_a_router_ends_the_wait(world, lease, talk):
    unknown = envelope.NackReason.UNKNOWN_TARGET
    say(lease, (envelope.encode_nack(bytes(16), unknown), b''))
    assert receive(world, talk).header.reason == unknown


def test_ack_is_no_reply(world, lease, talk):
    say(lease, (envelope.encode_ack(ID), b''), REPLY)
    assert receive(world, talk).header.kind is envelope.Kind.REPLY


@pytest.mark.spec('DL-04')
def test_silence_lasts_exactly_until_the_deadline(world, talk):
    start = world.clock()
    with pytest.raises(errors.ReplyTimeout, match=r'within 10\.0 s'):
        receive(world, talk)
    assert world.clock() - start == pytest.approx(10.0)


@pytest.mark.spec('DL-03')
def test_flood_does_not_extend_the_deadline(world, lease, talk):
    class Flood(list):
        def __bool__(self):
            return True

        def pop(self, index):
            world.tick(0.01)
            return HEARTBEAT

    lease.socket.inbox = Flood()
    start = world.clock()
    try:
        with pytest.raises(errors.ReplyTimeout):
            receive(world, talk, monitor=5.0)
    finally:
        lease.socket.inbox = []
    assert world.clock() - start == pytest.approx(10.0, abs=0.1)


@pytest.mark.spec('DL-16')
def test_heartbeats_keep_a_call_going(world, lease, talk):
    for n in range(1, 9):
        world.after(n * 1.9, lambda: say(lease, HEARTBEAT))
    world.after(17.0, lambda: say(lease, REPLY))
    assert receive(world, talk, 60.0, monitor=2.0).body == b'1'


@pytest.mark.spec('DL-16')
def test_missing_heartbeat_ends_a_call(world, lease, talk):
    world.after(1.0, lambda: say(lease, HEARTBEAT))
    start = world.clock()
    with pytest.raises(errors.ReplyTimeout, match=r'no heartbeat for 2\.0 s'):
        receive(world, talk, 60.0, monitor=2.0)
    assert world.clock() - start == pytest.approx(3.0, abs=0.1)


@pytest.mark.spec('DL-15')
def test_lost_connection_is_seen_within_a_slice(world, lease, talk):
    world.after(3.0, lease.socket.peer.die)
    start = world.clock()
    with pytest.raises(errors.PeerLost) as caught:
        receive(world, talk, 60.0)
    assert 3.0 <= world.clock() - start < 3.5
    assert caught.value.may_have_run is True
    assert world.count('peers_lost') == 1


@pytest.mark.spec('DL-10')
def test_last_reply_counts_although_the_connection_went(world, lease, talk):
    socket = lease.socket

    def connected():
        # The reply comes between the slice and the look at the connection.
        say(lease, REPLY)
        return False

    socket.connected = connected
    assert receive(world, talk).body == b'1'
    assert world.count('peers_lost') == 0


@pytest.mark.spec('DL-11')
def test_message_ids_differ_between_makers_and_threads():
    makers = [exchange.MessageIds(), exchange.MessageIds()]
    found = []

    def make(maker):
        found.extend(maker.next() for _ in range(2000))

    threads = [
        threading.Thread(target=make, args=(maker,)) for maker in makers * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 8 * 2000
    assert {len(identity) for identity in found} == {envelope.ID_SIZE}


@pytest.mark.spec('WP-25')
def test_message_ids_name_their_maker_and_count():
    makers = [exchange.MessageIds(), exchange.MessageIds()]
    found = [[maker.next() for _ in range(300)] for maker in makers]
    for ids in found:
        assert len({one[:8] for one in ids}) == 1
        assert [int.from_bytes(one[8:], 'big') for one in ids] == list(
            range(300)
        )
    assert found[0][0][:8] != found[1][0][:8]


@pytest.mark.spec('DL-16')
def test_reply_behind_heartbeats_counts_when_the_time_is_up(
    world, lease, talk
):
    say(lease, HEARTBEAT, HEARTBEAT, REPLY)
    world.tick(7.0)
    assert receive(world, talk, timeout=0.0, monitor=5.0).body == b'1'
