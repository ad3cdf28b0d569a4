# SPDX-License-Identifier: Apache-2.0
"""Stored notifications on their way to listeners that are not there."""

import errno

import pytest
import zmq

from tests.unit.client import fakes
from tests.unit.client import stores
from tests.unit.store import samples
from zmq_driver import clock as clocks
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import drain as drains
from zmq_driver.client import stream as streams
from zmq_driver.client import waiting
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.store import base

Reason = envelope.NackReason
HOLDING = 4


class Site:
    """A world with a store, and what drains it."""

    def __init__(self, clock):
        self.clock = clock
        self.store = stores.MemoryStore()
        self.world = fakes.World(clock, self.store)
        self.drain = self.make_drain()
        self.stored = 0

    def make_drain(self):
        return drains.Drain(
            self.store,
            self.world.routing,
            self.world._open,
            self.world.counters,
            HOLDING,
            self.clock,
        )

    def add(self, pool='pool', holder=None, size=0, where=fakes.NOTES):
        self.stored += 1
        self.store.add(
            where,
            self.stored.to_bytes(16, 'big'),
            fakes.BODY + b' ' * size,
            [base.Copy(pool, holder)],
            clocks.Deadline(10),
        )

    def member(self, answer=fakes.ack, pool='pool'):
        """Add a listener of a pool on an endpoint of its own."""
        peer = self.world.add(f'm{len(self.world._peers)}', answer)
        self.world.leave(peer)
        peer.route = peer.route._replace(server=pool)
        self.world.registered.append(peer.route)
        return peer

    def run(self, seconds=3.0, until=lambda: False):
        """Make passes for so long, or until something is true."""
        end = self.clock() + seconds
        while self.clock() < end and not until():
            self.world.tick(self.drain.run())

    def run_empty(self, seconds=30.0):
        self.run(seconds, lambda: not self.store.rows)
        assert not self.store.rows


def holder(peer):
    return base.Holder(peer.route.endpoint, peer.route.incarnation)


def ids(peer):
    return [int.from_bytes(header.message_id, 'big') for _, header in peer.got]


def flags(peer):
    return [bool(header.flags & envelope.RESENT) for _, header in peer.got]


def first(answer, then=fakes.ack):
    """Answer so once, and then otherwise."""
    answers = [answer]

    def give(header):
        return (answers.pop() if answers else then)(header)

    return give


@pytest.fixture
def site(clock):
    return Site(clock)


@pytest.mark.spec('NS-42')
def test_each_pool_that_is_there_gets_what_is_for_whoever_comes(site):
    for _ in range(3):
        site.add(pool=None)
    site.run(5.0)
    assert len(site.store.rows) == 3
    a, b = site.member(pool='a'), site.member(pool='b')
    site.run_empty()
    assert ids(a) == ids(b) == [1, 2, 3]
    assert {h.server for _, h in a.got} == {'a'}
    assert site.world.count('notifications_delivered_late') == 6


@pytest.mark.spec('NS-41')
def test_pool_without_a_member_waits_and_delays_no_other(site):
    site.add('away')
    site.add('here')
    here = site.member(pool='here')
    site.run(5.0, lambda: len(site.store.rows) == 1)
    assert ids(here) == [2]
    away = site.member(pool='away')
    site.run_empty()
    assert ids(away) == [1]


@pytest.mark.spec('NS-66')
def test_what_has_no_listener_is_put_back(site):
    site.add()
    member = site.member(fakes.nack(Reason.BUSY))
    site.run(1.0)
    assert not site.store.put_backs
    site.world.registered.remove(member.route)
    site.world.routing.invalidate(fakes.NOTES)
    site.run(3.0)
    assert site.store.put_backs
    site.member()
    site.run_empty()


@pytest.mark.spec('NS-45')
def test_holder_is_written_down_before_it_is_sent(site):
    member = site.member()
    held = []

    def look(header):
        held.extend(site.store.held)
        return fakes.ack(header)

    member.answer = look
    site.add()
    site.run_empty()
    assert [h for _, h in held] == [holder(member)]
    assert flags(member) == [False]


@pytest.mark.spec('NS-45')
def test_holder_is_asked_before_anybody_else(site):
    had, other = site.member(), site.member()
    site.world.leave(had)
    for _ in range(3):
        site.add(holder=holder(had))
    site.run_empty()
    assert (ids(had), ids(other)) == ([1, 2, 3], [])
    assert flags(had) == [True] * 3
    assert not site.store.held


@pytest.mark.spec('NS-45')
@pytest.mark.parametrize('refuses', [True, False])
def test_holder_that_is_gone_leaves_it_to_another(site, refuses):
    had, other = site.member(), site.member()
    had.connects = False
    had.refuses = refuses
    site.add(holder=holder(had))
    site.run_empty()
    assert (ids(had), ids(other)) == ([], [1])
    assert flags(other) == [False]


@pytest.mark.spec('NS-45')
@pytest.mark.parametrize('reason', [Reason.FORGOTTEN, Reason.UNKNOWN_TARGET])
def test_holder_that_does_not_know_leaves_it_to_anybody(site, reason):
    had = site.member(fakes.nack(reason))
    site.world.leave(had)
    other = site.member()
    site.add(holder=holder(had))
    site.run_empty()
    assert ids(other) == [1]
    assert flags(other) == [False]
    # It may have had it, so that attempt counts.
    assert not site.store.released


@pytest.mark.spec('NS-45')
def test_who_refused_when_asked_is_sent_it_as_resent(site):
    had = site.member(fakes.nack(Reason.BUSY))
    site.add(holder=holder(had))
    site.run(2.0)
    assert len(had.got) > 1
    assert all(flags(had))
    other = site.member()
    site.run_empty()
    assert flags(other) == [False]


@pytest.mark.spec('NS-45')
def test_lost_connection_is_asked_over_again(site):
    member = site.member(fakes.silence)
    for _ in range(3):
        site.add()
    site.run(1.0)
    assert ids(member) == [1, 2, 3]
    member.answer = fakes.ack
    member.cut()
    site.run_empty()
    assert ids(member) == [1, 2, 3, 1, 2, 3]
    assert flags(member) == [False] * 3 + [True] * 3
    assert len(site.store.held) == 3


@pytest.mark.spec('NS-32')
@pytest.mark.spec('NS-45')
def test_killed_listener_leaves_all_to_another(site):
    member = site.member(fakes.silence)
    for _ in range(3):
        site.add()
    site.run(1.0)
    member.refuses = True
    member.die()
    other = site.member()
    site.run_empty()
    assert ids(other) == [1, 2, 3]
    assert flags(other) == [False] * 3
    assert {h for _, h in site.store.held[3:]} == {holder(other)}


@pytest.mark.spec('NS-45')
def test_next_drain_asks_whom_the_last_one_sent_to(site):
    member, other = site.member(fakes.silence), site.member(fakes.silence)
    for _ in range(4):
        site.add()
    site.run(1.0)
    before = {n: peer for peer in (member, other) for n in ids(peer)}
    site.drain = site.make_drain()
    member.answer = other.answer = fakes.ack
    site.run_empty()
    for peer in (member, other):
        again = ids(peer)[len(ids(peer)) // 2 :]
        assert all(before[n] is peer for n in again)


@pytest.mark.parametrize(
    'reason', [Reason.BUSY, Reason.STALLED, Reason.EXPIRED]
)
def test_listener_that_does_not_take_it_is_given_it_later(site, reason):
    member = site.member(first(fakes.nack(reason)))
    site.add()
    site.run_empty()
    assert ids(member) == [1, 1]
    assert flags(member) == [False, reason is not Reason.BUSY]


@pytest.mark.parametrize('reason', [Reason.STOPPED, Reason.UNKNOWN_TARGET])
def test_listener_that_stopped_is_not_sent_more(site, reason):
    member = site.member(fakes.nack(reason))
    site.add()
    site.run(1.0)
    other = site.member()
    site.run_empty()
    assert (len(member.got), ids(other)) == (1, [1])
    assert len(site.store.released) == 1


@pytest.mark.spec('DL-70')
@pytest.mark.spec('LC-31')
def test_farewell_is_the_answer_to_all(site):
    def leave(header):
        return [
            (
                envelope.encode_nack(bytes(16), Reason.UNKNOWN_TARGET),
                b'',
            )
        ]

    member = site.member(fakes.silence)
    site.add()
    site.run(1.0)
    member.answer = leave
    site.add()
    site.run(0.5)
    got = len(member.got)
    # Nobody reads what is sent behind it.
    site.add()
    site.run(0.5)
    assert len(member.got) == got
    other = site.member()
    site.run_empty()
    assert sorted(ids(other)) == [1, 2, 3]


@pytest.mark.spec('NS-41', 'NS-45')
def test_one_who_leaves_slowly_keeps_nothing_from_who_comes(site):
    leaves = site.member(fakes.silence)
    site.world.leave(leaves)
    site.add()
    site.add(holder=holder(leaves))
    site.run(2.0)
    assert (ids(leaves), flags(leaves)) == ([2], [True])
    comes = site.member()
    site.run(2.0, lambda: len(site.store.rows) == 1)
    assert ids(comes) == [1]
    # What the other one has is still its own.
    leaves.answer = fakes.ack
    leaves.cut()
    site.run_empty()
    assert (ids(leaves), ids(comes)) == ([2, 2], [1])


@pytest.mark.spec('NS-48')
def test_what_nobody_handles_becomes_a_dead_letter(site, caplog):
    members = [site.member(fakes.nack(Reason.FAILED)) for _ in range(2)]
    site.add()
    site.run_empty()
    assert sum(len(member.got) for member in members) == HOLDING
    assert [row.message_id[-1] for row in site.store.dead] == [1]
    assert 'dead letters' in caplog.text


@pytest.mark.spec('NS-48')
def test_busy_listeners_make_no_dead_letters(site):
    member = site.member(fakes.nack(Reason.BUSY))
    site.add()
    site.run(60.0)
    assert len(member.got) > HOLDING
    # It is not asked all the time.
    assert len(member.got) < 120
    assert not site.store.dead


@pytest.mark.spec('NS-46')
def test_blocked_pool_delays_no_other(site):
    blocked = site.member(fakes.silence, 'blocked')
    free = site.member(pool='free')
    for _ in range(1000):
        site.add('blocked')
    site.add('free')
    site.run(2.0)
    assert ids(free) == [1001]
    assert ids(blocked) == list(range(1, streams.WINDOW + 1))


@pytest.mark.spec('NS-50')
def test_no_more_is_in_memory_than_the_bounds_say(site):
    site.member(fakes.silence)
    for _ in range(2000):
        site.add()
    site.run(2.0)
    [queue] = site.drain._queues.values()
    assert queue.items == waiting.TAKEN
    site.world.registered.clear()
    for socket in site.world.sockets:
        socket.peer.die()
    site.run(10.0)
    assert (queue.items, len(queue.waiting)) == (0, 0)
    site.member()
    site.run_empty(60.0)


@pytest.mark.spec('NS-92')
def test_listener_that_may_have_one_is_asked_before_a_backlog(site):
    """It remembers only for a while, and may be gone then."""
    site.member(fakes.silence)
    slow = site.member()
    site.world.registered.remove(slow.route)
    for _ in range(2000):
        site.add()
    site.run(2.0)
    site.add(holder=holder(slow))
    site.run(1.0, lambda: slow.got)
    assert (ids(slow), flags(slow)) == ([2001], [True])


@pytest.mark.spec('NS-92')
def test_what_was_taken_out_of_turn_is_not_taken_again(site):
    member = site.member()
    slow = site.member()
    site.world.registered.remove(slow.route)
    for number in range(2000):
        site.add(holder=holder(slow) if number % 3 else None)
    site.run_empty(60.0)
    assert sorted(ids(member) + ids(slow)) == list(range(1, 2001))
    assert all(flags(slow))
    assert not any(flags(member))
    assert not [q for q in site.drain._queues.values() if q.items or q.size]


@pytest.mark.spec('NS-50', 'NS-92')
def test_what_is_taken_out_of_turn_is_bounded(site):
    slow = site.member(fakes.silence)
    for _ in range(4000):
        site.add(holder=holder(slow))
    site.run(5.0)
    [queue] = site.drain._queues.values()
    assert queue.items <= 2 * waiting.TAKEN


@pytest.mark.spec('NS-46', 'NS-92')
@pytest.mark.parametrize('more', [1, 250])
def test_member_that_is_stuck_keeps_nothing_from_another(site, more):
    stuck = site.member(fakes.silence)
    for _ in range(streams.WINDOW + more):
        site.add(holder=holder(stuck))
    site.run(2.0)
    assert len(stuck.got) == streams.WINDOW
    free = site.member()
    for _ in range(600):
        site.add()
    site.run(10.0)
    assert len(free.got) == 600
    [queue] = site.drain._queues.values()
    assert queue.items == streams.WINDOW + more


@pytest.mark.spec('NS-07', 'NS-08')
@pytest.mark.parametrize('dead', [True, False])
def test_what_comes_with_an_old_number_is_not_overlooked(site, tmp_path, dead):
    """While a listener keeps one for long, or waits for a batch."""
    site.store = samples.make(str(tmp_path))
    site.drain = site.make_drain()
    site.add('pool' if dead else None)
    site.add()
    pending = site.store.pending(10)
    [queue] = [q for q in pending if (q.pool == 'pool') is dead]
    copies = [one.key for one in site.store.take(queue.number, 1)]
    if dead:
        site.store.bury(copies)
    member = site.member(fakes.silence)
    if not dead:
        # It was looked up before the member was there.
        site.drain._queues[queue.number] = waiting.WaitingQueue(
            queue, site.clock() + 5.0
        )
    site.run(3.0)
    assert ids(member) == [2]
    if dead:
        [grave] = site.store.pending(10, dead=True)
        assert site.store.replay(grave.number, 1) == 1
    site.run(10.0)
    assert ids(member) == [2, 1]
    site.store.close()


@pytest.mark.spec('NS-50')
def test_large_ones_are_taken_one_by_one(site):
    site.member(fakes.silence)
    for _ in range(30):
        site.add(size=waiting.TAKEN_SIZE * 3 // 10)
    site.run(2.0)
    [stream] = [stream for _, stream in site.drain._streams]
    # One more than the bound allows, or a large one would never go.
    assert len(stream.under_way) == 4


@pytest.mark.spec('NS-50')
@pytest.mark.parametrize('held', [True, False])
def test_what_is_taken_already_counts_to_the_size(site, held):
    member = site.member(fakes.silence)
    had = holder(member) if held else None
    for count in (3, 30):
        for _ in range(count):
            site.add(holder=had, size=waiting.TAKEN_SIZE * 3 // 10)
        site.run(2.0)
    [queue] = site.drain._queues.values()
    assert queue.items == (8 if held else 4)


def test_members_share(site):
    members = [site.member() for _ in range(3)]
    for _ in range(30):
        site.add()
        site.run(0.5)
    assert min(len(member.got) for member in members) >= 5


@pytest.mark.spec('NS-49')
@pytest.mark.parametrize(
    'name', ['changed', 'pending', 'take', 'hold', 'done', 'claim']
)
def test_store_that_fails_for_a_while(site, name):
    member = site.member()
    for _ in range(5):
        site.add()
    site.store.fails.add(name)
    for _ in range(5):
        try:
            site.world.tick(site.drain.run())
        except base.StoreError:
            site.world.tick(0.1)
    site.store.fails.clear()
    site.run_empty()
    assert ids(member) == [1, 2, 3, 4, 5]


@pytest.mark.spec('NS-49')
def test_release_that_fails_is_made_up_for(site):
    site.member(first(fakes.nack(Reason.BUSY)))
    site.add()
    site.store.fails.add('release')
    for _ in range(5):
        try:
            site.world.tick(site.drain.run())
        except base.StoreError:
            site.world.tick(0.1)
    site.store.fails.clear()
    site.run_empty()
    assert len(site.store.released) == 1


@pytest.mark.spec('NS-44')
def test_process_that_lost_its_turn_sends_nothing(site):
    member = site.member()
    site.add()
    site.store.mine = False
    with pytest.raises(base.StoreUnavailable):
        site.run(2.0)
    assert not member.got


@pytest.mark.spec('NS-49')
def test_matchmaker_that_is_down_is_waited_for(site):
    member = site.member()
    site.add()
    site.world.down = True
    site.run(5.0)
    assert not member.got
    site.world.down = False
    site.run_empty()


def test_end_takes_the_answers_that_come(site):
    member = site.member(fakes.silence)
    site.add()
    site.add()
    site.run(1.0)
    [socket] = site.world.sockets
    socket.inbox += fakes.ack(member.got[0][1])
    site.drain.close(clocks.Deadline(0.0))
    assert len(site.store.rows) == 1
    assert socket.closed


def test_idle_connections_are_closed(site):
    site.member()
    site.add()
    site.run_empty()
    site.run(streams.IDLE + 1)
    assert all(socket.closed for socket in site.world.sockets)
    assert not list(site.drain._streams)


def test_garbage_is_no_answer(site):
    member = site.member(
        first(lambda header: [(b'garbage', b''), *fakes.ack(header)])
    )
    site.add()
    site.run_empty()
    assert ids(member) == [1]


@pytest.mark.spec('NS-45', 'NS-57')
def test_who_has_no_descriptor_lets_another_drain(site):
    had, other = site.member(), site.member()
    open_ = site.world._open

    def fail(endpoint):
        raise zmq.ZMQError(errno.EMFILE)

    site.world._open = fail
    site.drain = site.make_drain()
    site.add(holder=holder(had))
    for _ in range(3):
        with pytest.raises(drains.Starved):
            site.run(30.0)
        site.world.tick(10.0)
    # That says nothing about the listener, which is asked first.
    site.drain.close(clocks.Deadline(0.0))
    site.world._open = open_
    site.drain = site.make_drain()
    site.run_empty()
    assert (ids(had), ids(other)) == ([1], [])


@pytest.mark.spec('NS-44', 'NS-49')
def test_matchmaker_that_hangs_holds_up_a_pass_once(site, monkeypatch):
    member = site.member()
    for number in range(20):
        where = fakes.NOTES._replace(topic=f'topic{number}.info')
        site.add(where=where)
    lookup = site.world.lookup
    hung = []

    def hang(where, deadline):
        hung.append(deadline.left())
        site.world.tick(deadline.left())
        if where.topic != 'topic9.info':
            raise matchmaker_base.MatchmakerUnavailable('it hangs')
        # As of a while ago.
        return lookup(where, deadline)

    monkeypatch.setattr(drains, 'LOOKUP_TIMEOUT', 0.1)
    monkeypatch.setattr(site.world, 'lookup', hang)
    site.drain.run()
    assert len(hung) == 20
    assert sum(hung) < 0.2
    site.drain.run()
    assert ids(member) == [10]


@pytest.mark.spec('NS-49', 'NS-57')
def test_endpoint_that_is_none_keeps_nobody_from_draining(site):
    bad, good = site.member(), site.member(pool='other')
    open_ = site.world._open

    def fail(endpoint):
        if endpoint == bad.route.endpoint:
            raise zmq.ZMQError(errno.EINVAL)
        return open_(endpoint)

    site.world._open = fail
    site.drain = site.make_drain()
    site.add()
    site.add(holder=holder(bad))
    site.add('other')
    site.run(5.0)
    assert ids(good) == [3]
    member = site.member()
    site.run_empty()
    assert sorted(ids(member)) == [1, 2]


@pytest.mark.spec('NS-57')
def test_descriptors_that_come_back_are_used(site):
    member = site.member()
    open_ = site.world._open

    def fail(endpoint):
        raise zmq.ZMQError(errno.EMFILE)

    site.world._open = fail
    site.drain = site.make_drain()
    site.add()
    with pytest.raises(drains.Starved):
        site.run()
    for stream in dict(site.drain._streams).values():
        stream._open_socket = open_
    site.world.tick(2.0)
    site.drain._streams.are_starved = lambda: False
    site.run_empty()
    assert ids(member) == [1]


def test_connection_that_goes_before_it_is_used(site):
    member = site.member(fakes.silence)
    site.add()
    site.run(1.0)
    site.add()
    hold = site.store.hold

    def hold_and_cut(keys, holder):
        site.store.hold = hold
        hold(keys, holder)
        member.cut()

    site.store.hold = hold_and_cut
    member.answer = fakes.ack
    site.run_empty()
    # The first one has to be asked for, the second one was never sent.
    assert sorted(zip(ids(member), flags(member), strict=True)) == [
        (1, False),
        (1, True),
        (2, False),
    ]
    assert len(site.store.released) == 1


def test_answers_to_nothing_are_left_alone(site):
    member = site.member(
        lambda header: [*fakes.ack(header), *fakes.ack(header)]
    )
    for _ in range(3):
        site.add()
    site.run_empty()
    assert ids(member) == [1, 2, 3]
    assert site.world.count('notifications_delivered_late') == 3


def test_end_without_a_context_is_no_answer(site, monkeypatch):
    site.member(fakes.silence)
    site.add()
    site.run(1.0)

    def ended(timeout):
        raise errors.PeerLost('the context ends')

    [socket] = site.world.sockets
    socket.receive = ended
    site.drain.close(clocks.Deadline(0.0))
    assert len(site.store.rows) == 1


def test_listener_without_an_incarnation_is_not_gone_for_good(site):
    member = site.member(first(fakes.nack(Reason.STOPPED)))
    site.world.registered.clear()
    site.world.registered.append(
        member.route._replace(incarnation=envelope.ANY_INCARNATION)
    )
    site.add()
    site.run_empty()
    assert ids(member) == [1, 1]


def test_many_queues_are_looked_at_page_by_page(site, monkeypatch):
    monkeypatch.setattr(drains, 'QUEUES', 2)
    member = site.member()
    for n in range(9):
        where = fakes.NOTES._replace(topic=f'topic-{n}.info')
        site.add(where=where)
    site.run_empty()
    assert sorted(ids(member)) == list(range(1, 10))


def test_total_in_memory_is_bounded(site, monkeypatch):
    monkeypatch.setattr(drains, 'TOTAL_SIZE', 10)
    slow, other = site.member(fakes.silence), site.member(pool='other')
    site.add(size=100)
    site.run(0.5)
    site.add('other')
    site.run(1.0)
    assert not other.got
    slow.answer = fakes.ack
    slow.cut()
    site.run_empty()
    assert ids(other) == [2]


@pytest.mark.spec('NS-45', 'NS-56')
def test_holder_is_asked_though_its_pool_has_no_member(site):
    had = site.member()
    site.world.leave(had)
    for _ in range(3):
        site.add()
    for _ in range(3):
        site.add(holder=holder(had))
    site.run(2.0)
    # It is found by nobody, but it can say what it has done.
    assert ids(had) == [4, 5, 6]
    assert flags(had) == [True] * 3
    assert sorted(row.message_id[-1] for row in site.store.rows.values()) == [
        1,
        2,
        3,
    ]
    [queue] = site.drain._queues.values()
    assert not queue.items
    other = site.member()
    site.run_empty()
    assert ids(other) == [1, 2, 3]


@pytest.mark.spec('NS-45', 'NS-56')
def test_holder_that_is_gone_is_not_asked_all_the_time(site):
    had = site.member()
    site.world.leave(had)
    had.connects = False
    had.refuses = True
    site.add(holder=holder(had))
    opened = len(site.world.sockets)
    site.run(60.0)
    assert len(site.world.sockets) - opened <= 4
    other = site.member()
    site.run_empty()
    assert ids(other) == [1]


@pytest.mark.spec('NS-45', 'NS-56')
def test_member_comes_while_a_holder_is_asked(site):
    had = site.member(fakes.silence)
    site.world.leave(had)
    for n in range(6):
        site.add(holder=holder(had) if n % 2 else None)
    site.run(2.0)
    assert ids(had) == [2, 4, 6]
    other = site.member()
    site.run(2.0)
    had.refuses = True
    had.die()
    site.run_empty()
    assert sorted(ids(other)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.spec('NS-45')
def test_holders_that_are_gone_are_forgotten_at_a_bound(site, monkeypatch):
    monkeypatch.setattr(waiting, 'MAX_GONE', 2)
    site.add()
    site.run(0.1)
    [queue] = site.drain._queues.values()
    holders = [base.Holder(f'ipc:///{n}', bytes(16)) for n in range(3)]
    for one in holders:
        queue.give_up(one)
    assert [queue.may_have(one) for one in holders] == [True, True, False]
