# SPDX-License-Identifier: Apache-2.0
"""One copy of a message to one listener."""

import itertools

import pytest
import zmq

from tests.unit.client import fakes
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool
from zmq_driver.client import request as requests

REFUSALS = [
    envelope.NackReason.UNKNOWN_TARGET,
    envelope.NackReason.STOPPED,
    envelope.NackReason.BUSY,
    envelope.NackReason.EXPIRED,
    envelope.NackReason.FAILED,
]


def request(server=None, flags=envelope.WANT_ACK, monitor_timeout=0.0):
    return requests.Request(
        fakes.WHERE, server, flags, fakes.BODY, bytes(16), monitor_timeout
    )


def deliver(world, retry=None, timeout=10.0, wait=True, **kwargs):
    return world.delivery.deliver(
        request(**kwargs), retry, world.deadline(timeout), wait
    )


def undelivered(world, *args, **kwargs):
    with pytest.raises(requests.Undelivered) as caught:
        deliver(world, *args, **kwargs)
    return caught.value


@pytest.mark.spec('DL-05')
def test_request_names_whom_it_is_for(world):
    peer = world.add('a')
    deliver(world)
    _, header = peer.got[0]
    assert (header.exchange, header.topic) == ('exchange', 'topic')
    assert header.server == 'a'
    assert header.incarnation == peer.route.incarnation
    assert header.ttl == pytest.approx(10.0)


@pytest.mark.parametrize('reason', REFUSALS)
@pytest.mark.spec('DL-06')
@pytest.mark.spec('DL-02')
def test_refusal_leads_to_the_next_server(world, reason):
    peers = [world.add(n, fakes.nack(reason)) for n in 'ab']
    peers.append(world.add('c'))
    assert deliver(world).header.kind is envelope.Kind.ACK
    assert len(peers[2].got) == 1
    assert all(len(peer.got) <= 1 for peer in peers)
    refused = sum(len(peer.got) for peer in peers[:2])
    # One that is busy is still the right one.
    wrong = 0 if reason is envelope.NackReason.BUSY else refused
    assert world.invalidated == [fakes.WHERE] * wrong
    assert world.count('requests_refused') == refused


@pytest.mark.spec('DL-06')
def test_server_without_connection_is_passed_over(world):
    gone = [world.add(n) for n in 'abc']
    for peer in gone:
        peer.die()
    well = world.add('d')
    for _ in range(4):
        deliver(world)
    assert len(well.got) == 4
    assert not any(peer.got for peer in gone)
    assert world.invalidated


@pytest.mark.spec('DL-06')
def test_everybody_is_asked_again_after_a_pause(world):
    peer = world.add('a', fakes.nack(envelope.NackReason.BUSY))
    world.after(0.5, lambda: setattr(peer, 'answer', fakes.ack))
    deliver(world)
    times = [at for at, _ in peer.got]
    assert len(times) > 2
    # The second attempt follows at once, with a fresh answer to who listens.
    assert all(b > a for a, b in itertools.pairwise(times[1:]))


@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-15')
def test_lost_request_is_not_sent_to_another(world):
    peers = [world.add(n) for n in 'ab']

    def die(header):
        for peer in peers:
            peer.answer = fakes.ack
        dying = next(p for p in peers if p.got)
        dying.die()
        return []

    for peer in peers:
        peer.answer = die
    with pytest.raises(errors.PeerLost):
        deliver(world)
    assert sum(len(peer.got) for peer in peers) == 1
    assert set(world.invalidated) == {fakes.WHERE}
    assert world.pool.stats().closed_total[pool.EvictReason.UNHEALTHY] >= 1


@pytest.mark.spec('PL-46')
def test_connection_that_was_lost_is_counted_when_it_is_made_again(world):
    peer = world.add('a')
    peer.die()
    later = 1.5 * fakes.CONNECT_TIMEOUT
    world.after(later, lambda: setattr(peer, 'stands', True))
    world.after(later, lambda: setattr(peer, 'connects', True))
    deliver(world)
    stats = world.pool.stats()
    assert stats.reconnects_total == stats.created_total - 1 >= 1
    assert stats.closed_total[pool.EvictReason.UNHEALTHY] >= 1


@pytest.mark.spec('DL-02')
def test_unanswered_request_is_not_sent_again(world):
    peers = [world.add(n, fakes.silence) for n in 'ab']
    start = world.clock()
    with pytest.raises(errors.ReplyTimeout):
        deliver(world)
    assert world.clock() - start == pytest.approx(10.0)
    assert sum(len(peer.got) for peer in peers) == 1


@pytest.mark.spec('DL-11')
def test_unanswered_exchange_retires_its_socket(world):
    peer = world.add('a', fakes.silence)
    with pytest.raises(errors.ReplyTimeout):
        deliver(world)
    peer.answer = fakes.ack
    deliver(world)
    assert len(world.sockets) == 2
    assert world.sockets[0].closed
    deliver(world)
    assert len(world.sockets) == 2


@pytest.mark.parametrize(
    'reason',
    [
        envelope.NackReason.UNSUPPORTED_VERSION,
        envelope.NackReason.UNDECODABLE,
    ],
)
@pytest.mark.spec('DL-01')
def test_what_nobody_would_take_is_not_tried_elsewhere(world, reason):
    peers = [world.add(n, fakes.nack(reason)) for n in 'ab']
    with pytest.raises(errors.DeliveryRefused) as caught:
        deliver(world)
    assert caught.value.may_have_run is False
    assert sum(len(peer.got) for peer in peers) == 1


@pytest.mark.spec('DL-03')
def test_connections_and_lookups_draw_from_one_deadline(world):
    for n in range(20):
        world.add(f's{n}').connects = False
    start = world.clock()
    error = undelivered(world, timeout=5.0)
    assert world.clock() - start == pytest.approx(5.0, abs=0.01)
    assert error.timed_out


@pytest.mark.spec('DL-03')
def test_answer_draws_from_the_same_deadline(world):
    slow = world.add('a', fakes.silence)
    slow.connects = False
    world.after(1.5, lambda: setattr(slow, 'connects', True))
    start = world.clock()
    with pytest.raises((errors.ReplyTimeout, requests.Undelivered)):
        deliver(world, timeout=4.0)
    assert world.clock() - start == pytest.approx(4.0, abs=0.01)
    at, header = slow.got[0]
    # The time to live counts from the moment of sending.
    assert header.ttl == pytest.approx(start + 4.0 - at, abs=0.01)


@pytest.mark.spec('DL-01')
@pytest.mark.spec('DL-20')
def test_nothing_is_sent_when_the_time_is_up(world):
    peer = world.add('a', fakes.nack(envelope.NackReason.BUSY))
    error = undelivered(world, timeout=5.0)
    assert error.timed_out
    assert all(header.ttl > 0.001 for _, header in peer.got)


@pytest.mark.parametrize('retry', [0, 1, 4])
@pytest.mark.spec('DL-14')
def test_so_many_attempts(world, retry):
    peers = [world.add(n, fakes.nack(REFUSALS[0])) for n in 'ab']
    error = undelivered(world, retry)
    assert sum(len(peer.got) for peer in peers) == retry + 1
    assert not error.timed_out
    assert not error.nobody


def test_nobody_is_told_apart(world):
    error = undelivered(world, wait=False)
    assert error.nobody
    assert not error.timed_out
    assert not world.slept


def test_last_server_that_leaves_after_a_refusal(world):
    peer = world.add('a')

    def leave(header):
        world.leave(peer)
        return fakes.nack(envelope.NackReason.STOPPED)(header)

    peer.answer = leave
    error = undelivered(world, timeout=1.0)
    assert error.nobody
    assert error.timed_out
    assert 'is being stopped' in str(error)


def test_matchmaker_that_is_down_is_not_nobody(world):
    world.down = True
    for wait in (True, False):
        error = undelivered(world, wait=wait)
        assert not error.nobody
        assert 'cannot be asked' in str(error)


@pytest.mark.spec('DL-08')
def test_directed_request_reaches_its_server_only(world):
    others = [world.add(n) for n in 'ab']
    mine = world.add('mine', fakes.nack(envelope.NackReason.BUSY))
    world.after(1.0, lambda: setattr(mine, 'answer', fakes.ack))
    deliver(world, server='mine')
    assert not any(peer.got for peer in others)


@pytest.mark.parametrize(
    ('raised', 'expected'),
    [
        (pool.PoolTimeout('full'), errors.PeerNotReady),
        (pool.TooManyWaiters('full'), errors.DeliveryRefused),
        (pool.PoolClosed('closed'), errors.DriverClosed),
        (zmq.ZMQError(zmq.EFAULT), errors.PeerNotReady),
    ],
)
@pytest.mark.spec('DL-01')
def test_no_socket(world, monkeypatch, raised, expected):
    peer = world.add('a')

    def checkout(endpoint, deadline):
        raise raised

    monkeypatch.setattr(world.pool, 'checkout', checkout)
    with pytest.raises(expected):
        world.sender.checkout(peer.route, world.deadline())


@pytest.mark.spec('DL-02')
def test_idle_sockets_to_a_lost_peer_are_closed(world):
    peer = world.add('a')
    first = world.pool.checkout(peer.route.endpoint, world.deadline())
    deliver(world)
    first.release()
    assert world.pool.stats().idle == 2
    peer.answer = lambda header: peer.die() or []
    with pytest.raises(errors.PeerLost):
        deliver(world)
    assert all(socket.closed for socket in world.sockets)
