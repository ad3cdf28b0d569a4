# SPDX-License-Identifier: Apache-2.0
"""A request whose connection is lost, or whose listener was held up."""

import contextlib
import re

import pytest

from tests.unit.client import fakes
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import request as requests
from zmq_driver.client import sender

REASONS = envelope.NackReason


def request(flags=envelope.WANT_REPLY, monitor_timeout=0.0):
    return requests.Request(
        fakes.WHERE, None, flags, fakes.BODY, bytes(16), monitor_timeout
    )


def send(world, peer, timeout=10.0, flags=envelope.WANT_REPLY):
    return world.sender.request(
        peer.route, request(flags), world.deadline(timeout)
    )


def script(peer, *answers):
    """Answer one request after the other; the last answer stays."""
    left = list(answers)

    def answer(header):
        return (left.pop(0) if len(left) > 1 else left[0])(header)

    peer.answer = answer


def cut(peer, answer=fakes.silence):
    """Return an answer that loses the connection with it."""

    def cutting(header):
        peer.cut()
        return answer(header)

    return cutting


def flags_of(peer):
    return [header.flags for _, header in peer.got]


@pytest.fixture
def peer(world):
    return world.add('a')


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-02')
@pytest.mark.parametrize(
    ('flags', 'answer'),
    [
        (envelope.WANT_REPLY, fakes.reply(b'1')),
        (envelope.WANT_ACK, fakes.ack),
        (envelope.NOTIFICATION | envelope.WANT_ACK, fakes.ack),
    ],
)
def test_same_listener_is_asked_again(world, peer, flags, answer):
    other = world.add('b')
    script(peer, cut(peer), answer)
    assert send(world, peer, flags=flags).header.kind in (
        envelope.Kind.REPLY,
        envelope.Kind.ACK,
    )
    assert flags_of(peer) == [flags, flags | envelope.RESENT]
    (_, first), (_, second) = peer.got
    assert first.message_id == second.message_id
    assert first.incarnation == second.incarnation
    assert not other.got
    assert world.count('requests_resent') == 1
    assert world.count('peers_lost') == 1
    assert world.count('requests_answered') == 1


@pytest.mark.spec('DL-48')
def test_answer_that_came_with_the_end_is_not_asked_for(world, peer):
    script(peer, cut(peer, fakes.reply(b'1')))
    assert send(world, peer).body == b'1'
    assert world.count('requests_resent') == 0


@pytest.mark.spec('DL-48')
def test_listener_that_was_killed_is_given_up_soon(world, peer):
    def die(header):
        peer.die()
        peer.refuses = True
        return []

    script(peer, die)
    start = world.clock()
    with pytest.raises(errors.PeerLost) as caught:
        send(world, peer)
    assert caught.value.may_have_run is True
    assert world.clock() - start < 0.5
    assert len(peer.got) == 1


@pytest.mark.spec('DL-48')
@pytest.mark.parametrize('timeout', [0.4, 60.0])
def test_listener_that_froze_is_given_up_within_a_second(world, peer, timeout):
    script(peer, lambda header: peer.die() or [])
    start = world.clock()
    with pytest.raises(errors.PeerLost):
        send(world, peer, timeout)
    took = world.clock() - start
    assert took <= min(timeout, sender.RESEND_WINDOW + 0.1)


@pytest.mark.spec('DL-48')
def test_listener_that_can_be_reached_again_a_little_later(world, peer):
    def unplug(header):
        peer.die()
        return []

    def plug():
        peer.connects = peer.stands = True

    world.after(0.8, plug)
    script(peer, unplug, fakes.reply(b'1'))
    assert send(world, peer).body == b'1'


@pytest.mark.spec('DL-48')
def test_connection_that_is_lost_again_and_again(world, peer):
    script(peer, cut(peer))
    with pytest.raises(errors.PeerLost):
        send(world, peer)
    assert len(peer.got) == 1 + sender.RESEND_LOSSES
    assert flags_of(peer).count(envelope.WANT_REPLY) == 1


@pytest.mark.spec('DL-48')
def test_long_call_survives_many_losses(world, peer):
    losses = 3 * sender.RESEND_LOSSES

    def answer(header):
        if len(peer.got) > losses:
            return fakes.reply(b'1')(header)
        world.after(2 * sender.RESEND_WINDOW, peer.cut)
        return []

    peer.answer = answer
    assert send(world, peer, timeout=1000.0).body == b'1'


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-03')
def test_answer_that_does_not_come_by_the_deadline(world, peer):
    script(peer, cut(peer), fakes.silence)
    start = world.clock()
    with pytest.raises(errors.ReplyTimeout):
        send(world, peer, timeout=5.0)
    assert world.clock() - start == pytest.approx(5.0, abs=0.01)
    assert world.count('requests_timed_out') == 1


@pytest.mark.spec('DL-49')
@pytest.mark.spec('DL-01')
@pytest.mark.parametrize(
    'reason',
    [
        REASONS.UNKNOWN_TARGET,
        REASONS.FORGOTTEN,
        REASONS.UNSUPPORTED_VERSION,
        REASONS.UNDECODABLE,
    ],
)
def test_refusal_that_leaves_a_doubt(world, peer, reason):
    others = []

    def cut_and_come(header):
        others.append(world.add('b'))
        return cut(peer)(header)

    script(peer, cut_and_come, fakes.nack(reason))
    with pytest.raises(errors.PeerLost) as caught:
        world.delivery.deliver(request(), None, world.deadline())
    assert caught.value.may_have_run is True
    assert not others[0].got


@pytest.mark.spec('DL-49')
@pytest.mark.parametrize(
    'reason',
    [REASONS.BUSY, REASONS.STOPPED, REASONS.EXPIRED, REASONS.FAILED],
)
def test_refusal_that_leaves_none(world, peer, reason):
    script(peer, cut(peer), fakes.nack(reason))
    with pytest.raises(errors.Refused):
        send(world, peer)
    world.add('b', fakes.reply(b'1'))
    script(peer, cut(peer), fakes.nack(reason))
    for _ in range(2):
        reply = world.delivery.deliver(request(), None, world.deadline())
        assert reply.body == b'1'


@pytest.mark.spec('DL-58')
def test_another_listener_gets_it_as_new(world, peer):
    script(peer, cut(peer), fakes.nack(REASONS.BUSY))
    others = []

    def come(header):
        others.append(world.add('b', fakes.reply(b'1')))
        return fakes.nack(REASONS.BUSY)(header)

    script(peer, cut(peer), come)
    reply = world.delivery.deliver(request(), None, world.deadline())
    assert reply.body == b'1'
    assert flags_of(others[0]) == [envelope.WANT_REPLY]


@pytest.mark.spec('DL-58')
@pytest.mark.spec('DL-33')
def test_notification_stays_resent_for_who_refused_it(world, peer):
    peer.route = peer.route._replace(server='pool')
    world.registered[0] = peer.route
    other = world.add('b')
    other.route = other.route._replace(server='pool')
    world.registered[1] = other.route
    other.answer = lambda header: other.die() or []
    busy = fakes.nack(REASONS.BUSY)

    def refuse_plain(header):
        if header.flags & envelope.RESENT:
            return fakes.ack(header)
        return fakes.nack(REASONS.EXPIRED)(header)

    def first(header):
        peer.answer = second
        return cut(peer)(header)

    def second(header):
        peer.answer = refuse_plain
        return busy(header)

    peer.answer = first
    while not peer.got or not other.got:
        world.notifier.notify(
            fakes.WHERE, fakes.BODY, deadline=world.deadline(), retry=None
        )
    assert peer.got[-1][1].flags & envelope.RESENT


@pytest.mark.spec('DL-58')
def test_what_was_refused_is_resent_from_then_on(world, peer):
    busy = fakes.nack(REASONS.BUSY)
    script(peer, cut(peer), busy, busy, fakes.reply(b'1'))
    reply = world.delivery.deliver(request(), None, world.deadline())
    assert reply.body == b'1'
    resent = envelope.WANT_REPLY | envelope.RESENT
    assert flags_of(peer) == [envelope.WANT_REPLY, *[resent] * 3]


@pytest.mark.spec('DL-49')
def test_forgotten_is_a_doubt_in_any_case(world, peer):
    script(peer, fakes.nack(REASONS.FORGOTTEN))
    with pytest.raises(errors.PeerLost):
        send(world, peer)


@pytest.mark.spec('DL-49')
@pytest.mark.spec('LC-07')
@pytest.mark.parametrize('where', ['sleep', 'checkout'])
def test_cleanup_while_asking_leaves_the_doubt(
    world, peer, monkeypatch, where
):
    def closed(*args):
        raise errors.DriverClosed('closed')

    def die(header):
        monkeypatch.setattr(
            world.sender, '_sleep' if where == 'sleep' else where, closed
        )
        peer.die()
        return []

    script(peer, die)
    with pytest.raises(errors.PeerLost):
        send(world, peer)


@pytest.mark.spec('DL-57')
def test_doubtful_answer_is_told_as_a_loss(world, peer, caplog):
    caplog.set_level('INFO')
    script(peer, cut(peer), fakes.nack(REASONS.FORGOTTEN))
    with pytest.raises(errors.PeerLost):
        send(world, peer)
    assert 'went away' in caplog.text
    assert 'made again' not in caplog.text


@pytest.mark.spec('DL-73')
def test_busy_after_a_loss_leaves_the_route_known(world, peer):
    script(peer, cut(peer), fakes.nack(REASONS.BUSY), fakes.reply(b'1'))
    world.delivery.deliver(request(), None, world.deadline())
    # Only the lost connection was a reason to ask.
    assert len(world.invalidated) == 1


@pytest.mark.spec('DL-73')
def test_who_was_not_tried_comes_first(world, peer):
    script(peer, fakes.nack(REASONS.BUSY))
    other = world.add('b', fakes.reply(b'1'))
    for _ in range(20):
        before = len(peer.got)
        # Another thread takes a turn after the first attempt.
        world.routing._next_turn(fakes.WHERE, None)
        reply = world.delivery.deliver(request(), 1, world.deadline())
        assert reply.body == b'1'
        assert len(peer.got) - before <= 1
    assert len(other.got) == 20


def test_no_time_left_costs_no_connection(world, peer):
    first = world.pool.checkout(peer.route.endpoint, world.deadline())
    world.pool.checkout(peer.route.endpoint, world.deadline()).release()
    first.release()
    with pytest.raises(requests.Undelivered):
        world.delivery.deliver(request(), None, world.deadline(0.0))
    assert not world.invalidated
    assert not any(socket.closed for socket in world.sockets)


@pytest.mark.spec('DL-54')
@pytest.mark.parametrize('retry', [0, None])
def test_listener_that_was_held_up_is_sent_to_again(world, peer, retry):
    stalled = fakes.nack(REASONS.STALLED)
    script(peer, stalled, stalled, fakes.reply(b'1'))
    reply = world.delivery.deliver(request(), retry, world.deadline())
    assert reply.body == b'1'
    assert flags_of(peer) == [envelope.WANT_REPLY] * 3
    assert world.count('requests_retried') == 0


@pytest.mark.spec('DL-54')
def test_listener_that_is_always_held_up_is_left(world, peer):
    script(peer, fakes.nack(REASONS.STALLED))
    with pytest.raises(errors.Refused, match='did not run'):
        send(world, peer)
    assert len(peer.got) == 1 + sender.STALLED_TRIES


@pytest.mark.spec('DL-54')
@pytest.mark.spec('DL-48')
def test_held_up_and_lost(world, peer):
    stalled = fakes.nack(REASONS.STALLED)
    script(peer, stalled, cut(peer), stalled, fakes.reply(b'1'))
    assert send(world, peer).body == b'1'
    resent = envelope.WANT_REPLY | envelope.RESENT
    assert flags_of(peer) == [*[envelope.WANT_REPLY] * 2, resent, resent]


@pytest.mark.spec('DL-57')
@pytest.mark.parametrize(
    ('end', 'level', 'text'),
    [
        ('dies', 'WARNING', "'a' of .* went away .* may have run"),
        ('cut', 'INFO', "'a' .* made again"),
        ('unreachable', 'WARNING', "'a' cannot be reached"),
        (REASONS.BUSY, 'WARNING', r"'a' .* \(BUSY\): .* more servers"),
        (REASONS.STOPPED, None, None),
        (REASONS.UNKNOWN_TARGET, None, None),
    ],
)
def test_incident_is_told_in_a_line(world, peer, caplog, end, level, text):
    caplog.set_level('INFO')
    if end == 'dies':
        script(peer, lambda header: peer.die() or [])
    elif end == 'cut':
        script(peer, cut(peer), fakes.reply(b'1'))
    elif end == 'unreachable':
        peer.connects = False
    else:
        script(peer, fakes.nack(end))
    for _ in range(3):
        with contextlib.suppress(
            errors.PeerLost, errors.Refused, errors.PeerNotReady
        ):
            send(world, peer, timeout=3.0)
    lines = [
        record
        for record in caplog.records
        if record.name.endswith('incidents')
    ]
    if level is None:
        assert not lines
        return
    told = [line for line in lines if re.search(text, line.getMessage())]
    assert len(told) == 1
    assert told[0].levelname == level
    assert not told[0].exc_info
