# SPDX-License-Identifier: Apache-2.0
"""Calls, casts and fanouts."""

import json

import oslo_messaging
import pytest

from tests.unit.client import fakes
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool
from zmq_driver.client import copies as copies_
from zmq_driver.client import sender as sender_

FAILURE = {
    'class': 'ValueError',
    'module': 'builtins',
    'message': 'no',
    'tb': [],
    'args': ['no'],
    'kwargs': {},
}


def call(world, timeout=10.0, retry=None, mandatory=False, server=None):
    return world.rpc.call(
        fakes.WHERE,
        server,
        fakes.BODY,
        deadline=world.deadline(timeout),
        monitor_timeout=0.0,
        retry=retry,
        mandatory=mandatory,
    )


def cast(world, timeout=10.0, retry=None, mandatory=False, server=None):
    world.rpc.cast(
        fakes.WHERE,
        server,
        fakes.BODY,
        deadline=world.deadline(timeout),
        retry=retry,
        mandatory=mandatory,
    )


def fanout(world, timeout=10.0, retry=None):
    world.rpc.fanout(
        fakes.WHERE,
        fakes.BODY,
        deadline=world.deadline(timeout),
        retry=retry,
    )


@pytest.mark.spec('DL-10')
def test_call_returns_the_result(world):
    world.add('a', fakes.reply(b'[1,null]'))
    assert call(world) == [1, None]


@pytest.mark.spec('DL-10')
def test_call_raises_what_the_method_raised(world):
    failure = json.dumps(FAILURE).encode()
    world.add('a', fakes.reply(failure, failure=True))
    with pytest.raises(ValueError, match='no'):
        call(world)


@pytest.mark.parametrize(
    ('body', 'failure'),
    [
        (b'', False),
        (b'\xff', False),
        (b'[' * 100000, False),
        (b'9' * 10000, False),
        (b'{}', True),
        (b'[]', True),
        (b'{"class": 1, "module": "builtins", "message": ""}', True),
    ],
)
@pytest.mark.spec('DL-01')
def test_reply_that_does_not_parse_has_run(world, body, failure):
    world.add('a', fakes.reply(body, failure))
    with pytest.raises(errors.ReplyUndecodable) as caught:
        call(world)
    assert caught.value.may_have_run is True
    assert world.count('messages_undecodable') == 1


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('ExceptionGroup', ['text', []]),
        ('ValueError', 5),
        ('SystemExit', [1]),
        ('print', ['printed by a stranger']),
        ('UnicodeDecodeError', [1]),
        ('nothing', []),
    ],
)
def test_failure_that_cannot_be_rebuilt_is_a_remote_error(
    world, name, arguments
):
    failure = {**FAILURE, 'class': name, 'args': arguments}
    body = json.dumps(failure).encode()
    world.add('a', fakes.reply(body, failure=True))
    with pytest.raises(oslo_messaging.RemoteError) as caught:
        call(world)
    assert caught.value.exc_type == name


@pytest.mark.spec('DL-12')
def test_call_to_nobody(world):
    start = world.clock()
    with pytest.raises(errors.ServerNotFound) as caught:
        call(world)
    assert caught.value.may_have_run is False
    assert world.clock() - start == pytest.approx(10.0)


@pytest.mark.parametrize('send', [call, cast])
@pytest.mark.spec('DL-14')
def test_retries_that_are_used_up(world, send):
    with pytest.raises(errors.DeliveryRefused) as caught:
        send(world, retry=1)
    assert caught.value.may_have_run is False


@pytest.mark.parametrize('send', [call, cast])
@pytest.mark.spec('DL-13')
def test_mandatory_message_to_nobody(world, send):
    start = world.clock()
    with pytest.raises(oslo_messaging.MessageUndeliverable) as caught:
        send(world, mandatory=True, server='s')
    assert world.clock() == start
    assert caught.value.routing_key == 'topic.s'
    assert caught.value.exchange == 'exchange'


@pytest.mark.parametrize('send', [call, cast])
def test_mandatory_message_and_matchmaker_that_is_down(world, send):
    world.down = True
    with pytest.raises(errors.DeliveryRefused):
        send(world, mandatory=True)


@pytest.mark.parametrize('lost', [True, False])
@pytest.mark.spec('DL-20')
def test_cast_without_acknowledgement_is_unconfirmed(world, lost):
    peer = world.add('a', fakes.silence)
    if lost:
        world.after(1.0, peer.die)
    with pytest.raises(errors.DeliveryUnconfirmed) as caught:
        cast(world)
    assert caught.value.may_have_run is True
    assert len(peer.got) == 1


@pytest.mark.spec('DL-20')
def test_cast_to_nobody_is_refused_in_time(world):
    start = world.clock()
    with pytest.raises(errors.DeliveryRefused) as caught:
        cast(world)
    assert caught.value.may_have_run is False
    assert world.clock() - start == pytest.approx(10.0)


@pytest.mark.spec('DL-22')
def test_fanout_sends_one_copy_to_each(world):
    peers = [world.add(f's{n}') for n in range(6)]
    fanout(world)
    assert [len(peer.got) for peer in peers] == [1] * 6
    for peer in peers:
        _, header = peer.got[0]
        assert header.incarnation == peer.route.incarnation
        assert header.flags == envelope.FANOUT | envelope.WANT_ACK


@pytest.mark.spec('DL-22')
def test_fanout_to_more_servers_than_sockets(world):
    peers = [world.add(f's{n:02}') for n in range(3 * copies_.FANOUT_WINDOW)]
    fanout(world)
    assert {len(peer.got) for peer in peers} == {1}


@pytest.mark.spec('DL-22')
def test_fanout_window(clock):
    world = fakes.World(clock, max_size=100)
    for n in range(copies_.FANOUT_WINDOW + 5):
        world.add(f's{n:02}')
    fanout(world)
    assert all(len(p.got) == 1 for p in world._peers.values())


@pytest.mark.spec('DL-23')
def test_fanout_to_nobody_succeeds(world):
    fanout(world)
    assert world.count('fanout_copies_failed') == 0


def test_fanout_needs_to_know_the_servers(world):
    world.down = True
    with pytest.raises(errors.DeliveryRefused) as caught:
        fanout(world)
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-24')
def test_copies_are_sent_before_one_is_waited_for(world):
    peers = [world.add(f's{n}', fakes.silence) for n in range(3)]
    fanout(world)
    assert len({peer.got[0][0] for peer in peers}) == 1


@pytest.mark.spec('DL-24')
def test_copies_do_not_wait_for_the_connection_of_another(world):
    peers = [world.add(f's{n}') for n in range(3)]
    peers[0].connects = False
    start = world.clock()
    fanout(world)
    for peer in peers[1:]:
        assert peer.got[0][0] - start < 0.5


@pytest.mark.spec('DL-22')
def test_refused_copy_is_sent_again_to_the_same_server(world):
    well = world.add('well')
    busy = world.add('busy', fakes.nack(envelope.NackReason.BUSY))
    world.after(1.0, lambda: setattr(busy, 'answer', fakes.ack))
    fanout(world)
    assert len(well.got) == 1
    assert len(busy.got) > 1
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-22')
def test_copy_is_not_sent_to_who_left_meanwhile(world):
    busy = world.add('busy', fakes.nack(envelope.NackReason.STOPPED))
    world.after(0.005, lambda: world.leave(busy))
    fanout(world)
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.parametrize(('retry', 'attempts'), [(0, 1), (2, 3)])
@pytest.mark.spec('DL-14')
@pytest.mark.spec('DL-23')
def test_copy_that_is_given_up_is_counted(world, retry, attempts, caplog):
    busy = world.add('busy', fakes.nack(envelope.NackReason.BUSY))
    fanout(world, retry=retry)
    assert len(busy.got) == attempts
    assert world.count('fanout_copies_failed') == 1
    assert 'busy' in caplog.text


@pytest.mark.spec('DL-03')
@pytest.mark.spec('DL-23')
def test_fanout_ends_at_its_deadline(world):
    for n in range(4):
        world.add(f's{n}', fakes.nack(envelope.NackReason.BUSY))
    start = world.clock()
    fanout(world, timeout=5.0)
    assert world.clock() - start == pytest.approx(5.0, abs=0.1)
    assert world.count('fanout_copies_failed') == 4


@pytest.mark.spec('DL-23')
@pytest.mark.spec('DL-56')
def test_fanout_does_not_wait_long_for_who_cannot_be_reached(world):
    dead = [world.add(f'd{n}') for n in range(4)]
    well = world.add('well')
    for peer in dead:
        peer.connects = False
    start = world.clock()
    fanout(world)
    first = world.clock() - start
    assert first <= fakes.CONNECT_TIMEOUT + 0.1
    fanout(world)
    assert world.clock() - start - first <= copies_.SUSPECT_PATIENCE + 0.1
    assert world.count('fanout_copies_failed') == 8
    assert len(well.got) == 2


@pytest.mark.spec('DL-22')
@pytest.mark.spec('DL-56')
def test_copy_to_who_can_be_reached_a_little_later(world):
    late = world.add('late')
    late.refuses = True
    world.after(
        fakes.CONNECT_TIMEOUT / 2, lambda: setattr(late, 'refuses', False)
    )
    fanout(world)
    assert len(late.got) == 1
    assert world.count('fanout_copies_failed') == 0
    assert world.count('requests_retried') > 0


@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-23')
def test_copy_that_is_not_acknowledged_is_not_sent_again(world, caplog):
    well, peer = world.add('well'), world.add('x', fakes.silence)
    fanout(world)
    assert (len(well.got), len(peer.got)) == (1, 1)
    assert world.count('fanout_copies_failed') == 1
    assert 'no reply' in caplog.text


def lose(peer, then):
    """Let *peer* lose the connection on the first copy it gets."""

    def answer(header):
        peer.answer = then
        peer.cut()
        return []

    peer.answer = answer


@pytest.mark.spec('DL-22')
@pytest.mark.spec('DL-48')
@pytest.mark.parametrize('losses', [1, 3])
def test_copy_whose_connection_was_lost_is_asked_for(world, losses):
    well, peer = world.add('well'), world.add('x')

    def answer(header):
        if len(peer.got) > losses:
            return fakes.ack(header)
        peer.cut()
        return []

    peer.answer = answer
    fanout(world)
    assert len(well.got) == 1
    (_, first), *again = peer.got
    assert len(again) == losses
    for _, header in again:
        assert header.message_id == first.message_id
        assert header.flags == first.flags | envelope.RESENT
    assert world.count('requests_resent') == losses
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-02')
@pytest.mark.spec('DL-23')
@pytest.mark.spec('DL-49')
@pytest.mark.parametrize('end', ['dies', 'forgot', 'moved', 'cut'])
def test_copy_that_may_have_arrived_is_given_up(world, end, caplog):
    well, peer = world.add('well'), world.add('x')
    lose(
        peer,
        {
            'forgot': fakes.nack(envelope.NackReason.FORGOTTEN),
            'moved': fakes.nack(envelope.NackReason.UNKNOWN_TARGET),
            'cut': lambda header: peer.cut() or [],
            'dies': fakes.ack,
        }[end],
    )
    if end == 'dies':
        first = peer.answer
        peer.answer = lambda header: peer.die() or first(header)
    fanout(world)
    assert len(well.got) == 1
    times = {'dies': 1, 'cut': 1 + sender_.RESEND_LOSSES}
    assert len(peer.got) == times.get(end, 2)
    assert world.count('fanout_copies_failed') == 1
    assert 'x' in caplog.text


@pytest.mark.spec('DL-49')
@pytest.mark.spec('DL-58')
def test_copy_that_was_not_taken_after_all_is_sent_again(world):
    peer = world.add('x')

    def busy(header):
        peer.answer = fakes.ack
        return fakes.nack(envelope.NackReason.BUSY)(header)

    lose(peer, busy)
    fanout(world)
    assert [h.flags & envelope.RESENT for _, h in peer.got] == [
        0,
        envelope.RESENT,
        envelope.RESENT,
    ]
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-23')
def test_copy_that_cannot_be_decoded_is_given_up(world):
    reason = envelope.NackReason.UNDECODABLE
    peer = world.add('old', fakes.nack(reason))
    fanout(world)
    assert len(peer.got) == 1
    assert world.count('fanout_copies_failed') == 1


def test_matchmaker_that_goes_down_during_a_fanout(world):
    busy = world.add('busy', fakes.nack(envelope.NackReason.BUSY))

    def recover():
        world.down = False
        busy.answer = fakes.ack

    world.after(0.001, lambda: setattr(world, 'down', True))
    world.after(2.0, recover)
    fanout(world)
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.parametrize(
    ('raised', 'expected'),
    [
        # Copies may have been sent before the driver was closed.
        (errors.DriverClosed('closed'), errors.DeliveryUnconfirmed),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.spec('DL-01')
@pytest.mark.spec('LC-05')
@pytest.mark.spec('LC-07')
def test_interrupted_fanout_gives_its_sockets_back(
    world, monkeypatch, raised, expected
):
    for n in range(3):
        world.add(f's{n}')
    checkout = world.sender.checkout

    def interrupted(route, deadline):
        if route.server == 's2':
            raise raised
        return checkout(route, deadline)

    monkeypatch.setattr(world.sender, 'checkout', interrupted)
    with pytest.raises(expected):
        fanout(world)
    assert world.pool.stats().in_use == 0


def test_interrupted_wait_of_a_fanout_gives_its_sockets_back(world):
    peers = [world.add(f's{n}', fakes.silence) for n in range(3)]

    def interrupt():
        raise KeyboardInterrupt

    world.after(1.0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fanout(world)
    assert all(socket.closed for socket in world.sockets)
    assert [len(peer.got) for peer in peers] == [1, 1, 1]


def test_no_socket_for_a_copy(world):
    world.add('a')
    leases = [
        world.pool.checkout(peer.route.endpoint, world.deadline())
        for peer in [world._peers['ipc:///tmp/a.ipc']] * 4
    ]
    fanout(world, timeout=0.0)
    assert world.count('fanout_copies_failed') == 1
    for lease in leases:
        lease.retire(pool.EvictReason.UNFINISHED)
        lease.release()


def many(world, count, first=0):
    return [world.add(f's{n:03}') for n in range(first, first + count)]


@pytest.mark.spec('DL-24')
def test_mute_servers_keep_no_copy_from_another(clock):
    world = fakes.World(clock, max_size=256)
    mute = many(world, 40)
    for peer in mute:
        peer.answer = fakes.silence
    well = many(world, 60, first=40)
    start = world.clock()
    times = []

    def answer(header):
        times.append(world.clock() - start)
        return fakes.ack(header)

    for peer in well:
        peer.answer = answer
    fanout(world, timeout=30.0)
    assert len(times) == len(well)
    assert max(times) < 2 * copies_.SLOW
    assert world.count('fanout_copies_failed') == len(mute)
    assert world.pool.stats().in_use == 0


@pytest.mark.spec('DL-24')
def test_only_copies_with_news_are_looked_at(clock):
    world = fakes.World(clock, max_size=64)
    peers = many(world, copies_.FANOUT_WINDOW)

    def answer_late(number, peer):
        def answer(header):
            (socket,) = (s for s in world.sockets if s.peer is peer)
            delay = (number + 1) * copies_.LOOK_INTERVAL / 2
            world.after(delay, lambda: socket.inbox.extend(fakes.ack(header)))
            return []

        return answer

    for number, peer in enumerate(peers):
        peer.answer = answer_late(number, peer)
    fanout(world)
    assert [socket.looks for socket in world.sockets] == [1] * len(peers)
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-24')
def test_answer_behind_a_late_one_is_found(world):
    def answer(header):
        late = (envelope.encode_ack(b'x' * envelope.ID_SIZE), b'')
        return [late, late, *fakes.ack(header)]

    world.add('a', answer)
    start = world.clock()
    fanout(world)
    assert world.clock() == start
    assert world.count('replies_late') == 2
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-24')
def test_servers_that_freeze_keep_no_copy_from_another(clock):
    world = fakes.World(clock, max_size=256)
    frozen = many(world, 160)
    for peer in frozen:
        peer.answer = fakes.silence
        world.after(1.5, peer.die)
    well = world.add('t')
    start = world.clock()
    fanout(world, timeout=30.0)
    (at, _), *_ = well.got
    assert at - start < 160 / copies_.FANOUT_WINDOW * copies_.SLOW + 0.1
    assert world.clock() - start < 1.5 + 2 * sender_.RESEND_WINDOW
    assert world.count('fanout_copies_failed') == len(frozen)


@pytest.mark.spec('DL-56')
def test_time_for_connections_is_the_fanouts_and_not_each_servers(world):
    off = many(world, 320)
    for peer in off:
        peer.connects = False
    well = world.add('z')
    start = world.clock()
    fanout(world, timeout=30.0)
    windows = 1 + len(off) // 8
    bound = fakes.CONNECT_TIMEOUT + windows * 2 * copies_.LATE_PATIENCE
    assert world.clock() - start < bound
    assert len(well.got) == 1


@pytest.mark.spec('DL-24')
def test_peer_without_a_free_socket_keeps_no_copy_from_another(
    world, monkeypatch
):
    full, *others = many(world, 3)
    checkout = world.sender.checkout
    exhausted = [True]

    def limited(route, deadline):
        if route == full.route and exhausted[0]:
            world.tick(deadline.left())
            raise errors.PeerNotReady('no socket is free')
        return checkout(route, deadline)

    monkeypatch.setattr(world.sender, 'checkout', limited)
    start = world.clock()
    world.after(2.0, exhausted.clear)
    world.after(2.0, lambda: exhausted.append(False))
    fanout(world, timeout=3.0)
    assert all(peer.got[0][0] - start < 0.1 for peer in others)
    assert len(full.got) == 1
    assert world.count('fanout_copies_failed') == 0


@pytest.mark.spec('DL-03')
def test_fanout_does_not_outlive_its_deadline(world):
    off = many(world, 400)
    for peer in off:
        peer.connects = False
    start = world.clock()
    fanout(world, timeout=1.0)
    assert world.clock() - start < 1.0 + 0.1
    # That the time was over is no fault of theirs.
    assert len(world.suspects.routes) < len(off)


@pytest.mark.spec('DL-57')
def test_failed_copies_are_told_in_one_line(clock, caplog):
    world = fakes.World(clock, max_size=256)
    for peer in many(world, 100):
        peer.answer = fakes.silence
    for _ in range(3):
        fanout(world, timeout=1.0)
    lines = [r for r in caplog.records if 'not delivered' in r.getMessage()]
    assert len(lines) == 1
    assert 'and 95 more' in lines[0].getMessage()


@pytest.mark.spec('DL-58')
def test_only_who_may_have_a_copy_is_sent_it_as_resent(world):
    lost, busy = world.add('lost'), world.add('busy')
    lose(lost, fakes.ack)
    busy.answer = fakes.nack(envelope.NackReason.BUSY)
    world.after(0.5, lambda: setattr(busy, 'answer', fakes.ack))
    fanout(world)
    assert not any(h.flags & envelope.RESENT for _, h in busy.got)
    assert world.count('fanout_copies_failed') == 0
