# SPDX-License-Identifier: Apache-2.0
"""What is given to listeners at once, and what is stored."""

import pytest

from tests.unit.client import fakes
from tests.unit.client import stores
from tests.unit.store import samples
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import slow_pools
from zmq_driver.store import base
from zmq_driver.store import durable


@pytest.fixture
def store():
    return stores.MemoryStore()


@pytest.fixture
def real_store(tmp_path, monkeypatch):
    """Return a real store, which asks for durable pools each time."""
    monkeypatch.setattr(durable, 'KNOWN_TTL', 0.0)
    store = samples.make(str(tmp_path / 'ipc'))
    yield store
    store.close()


def busy(*_arguments):
    raise base.StoreUnavailable('it is busy')


@pytest.fixture
def world(clock, store):
    return fakes.World(clock, store)


def notify(world):
    world.notifier.notify(
        fakes.NOTES, fakes.BODY, deadline=world.deadline(), retry=None
    )


def copies(store):
    return [(row.pool, row.holder) for row in store.rows.values()]


def member(world, pool, answer=fakes.ack):
    peer = world.add(f'{pool}-{len(world._peers)}', answer)
    world.leave(peer)
    peer.route = peer.route._replace(server=pool)
    world.registered.append(peer.route)
    return peer


def holder(peer):
    return base.Holder(peer.route.endpoint, peer.route.incarnation)


@pytest.mark.spec('NS-40')
def test_what_all_pools_handle_is_not_stored(world, store):
    pools = [member(world, name) for name in 'abc']
    notify(world)
    assert [len(peer.got) for peer in pools] == [1, 1, 1]
    assert not store.rows
    assert store.durable == {fakes.NOTES: {'a', 'b', 'c'}}


@pytest.mark.spec('NS-42')
def test_nobody_is_known(world, store):
    start = world.clock()
    notify(world)
    assert copies(store) == [(None, None)]
    assert world.clock() - start <= fakes.DIRECT_TIMEOUT
    assert world.outbox._wanted.is_set()


@pytest.mark.spec('NS-41')
def test_pool_that_is_away_gets_a_copy(world, store):
    store.saw(fakes.NOTES, ['away', 'here'])
    here = member(world, 'here')
    notify(world)
    assert copies(store) == [('away', None)]
    assert len(here.got) == 1


@pytest.mark.spec('NS-40')
@pytest.mark.spec('NS-46')
def test_late_pool_is_stored_with_who_may_have_it(world, store):
    late = member(world, 'a', fakes.silence)
    others = [member(world, name) for name in 'bc']
    start = world.clock()
    notify(world)
    assert copies(store) == [('a', holder(late))]
    assert [len(peer.got) for peer in others] == [1, 1]
    assert world.clock() - start == pytest.approx(fakes.DIRECT_TIMEOUT / 3)


@pytest.mark.spec('NS-46')
def test_late_pool_is_not_waited_for_again_for_a_while(world, store):
    late = member(world, 'a', fakes.silence)
    notify(world)
    start = world.clock()
    for _ in range(10):
        notify(world)
    assert world.clock() == start
    assert copies(store) == [('a', holder(late)), *[('a', None)] * 10]
    world.tick(slow_pools.PAUSES[0])
    late.answer = fakes.ack
    notify(world)
    assert len(store.rows) == 11


@pytest.mark.spec('NS-46')
def test_nothing_overtakes_what_could_not_be_sent_in_time(world, store):
    late = member(world, 'a')
    late.connects = None
    notify(world)
    late.connects = True
    notify(world)
    assert copies(store) == [('a', None)] * 2
    assert not late.got


@pytest.mark.spec('NS-40')
@pytest.mark.parametrize(
    'reason',
    [
        envelope.NackReason.BUSY,
        envelope.NackReason.STOPPED,
        envelope.NackReason.UNDECODABLE,
    ],
)
def test_what_all_members_refuse_is_stored(world, store, reason):
    peers = [member(world, 'a', fakes.nack(reason)) for _ in range(2)]
    notify(world)
    assert copies(store) == [('a', None)]
    tries = 1 if reason is envelope.NackReason.UNDECODABLE else 2
    assert sum(len(peer.got) for peer in peers) == tries


@pytest.mark.spec('NS-40')
def test_other_member_gets_what_one_refuses(world, store):
    for answer in (fakes.nack(envelope.NackReason.BUSY), fakes.ack):
        member(world, 'a', answer)
    for _ in range(4):
        notify(world)
    assert not store.rows


@pytest.mark.spec('NS-40')
def test_member_that_cannot_be_reached_delays_no_longer(world, store):
    member(world, 'a').connects = False
    start = world.clock()
    notify(world)
    assert copies(store) == [('a', None)]
    assert world.clock() - start == pytest.approx(fakes.DIRECT_TIMEOUT)


@pytest.mark.spec('NS-32')
def test_member_that_dies_with_it_may_have_it(world, store):
    dying = member(world, 'a', fakes.silence)
    world.after(0.01, dying.die)
    notify(world)
    assert copies(store) == [('a', holder(dying))]


@pytest.mark.spec('NS-40')
def test_nothing_is_known_while_the_matchmaker_is_down(world, store):
    world.down = True
    notify(world)
    assert copies(store) == [(None, None)]
    store.saw(fakes.NOTES, ['a'])
    notify(world)
    assert copies(store)[1:] == [('a', None)]


@pytest.mark.spec('NS-40')
def test_matchmaker_that_goes_down_in_between(world, store, monkeypatch):
    member(world, 'a')
    look = world.lookup

    def look_once(where, deadline):
        routes = look(where, deadline)
        world.down = True
        return routes

    monkeypatch.setattr(world, 'lookup', look_once)
    notify(world)
    assert copies(store) == [('a', None)]


@pytest.mark.spec('NS-47')
def test_refusal_of_the_store_is_the_error(world, store):
    store.fails.add('add')
    with pytest.raises(errors.DeliveryRefused, match='add fails') as caught:
        notify(world)
    assert caught.value.may_have_run is False


@pytest.mark.spec('NS-47')
@pytest.mark.parametrize('answer', [fakes.ack, fakes.silence])
def test_refusal_while_a_listener_may_have_it(world, store, answer):
    store.fails.add('add')
    member(world, 'a', answer)
    member(world, 'b', fakes.nack(envelope.NackReason.BUSY))
    with pytest.raises(errors.DeliveryUnconfirmed, match='add fails'):
        notify(world)


@pytest.mark.spec('NS-47')
@pytest.mark.parametrize('name', ['pools', 'saw'])
def test_store_that_fails_keeps_nothing_from_who_is_there(
    world, store, name, caplog
):
    store.fails.add(name)
    peer = member(world, 'a')
    notify(world)
    assert len(peer.got) == 1
    assert f'{name} fails' in caplog.text


@pytest.mark.spec('NS-51')
def test_what_may_be_stored_may_be_delivered(world, store):
    store.fails.add('add')
    store.failure = base.StoreUncertain
    with pytest.raises(errors.DeliveryUnconfirmed, match='may have been'):
        notify(world)


@pytest.mark.spec('NS-54')
def test_that_nobody_is_known_is_told_once(world, caplog):
    for _ in range(3):
        notify(world)
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    assert str(fakes.NOTES) in record.message
    member(world, 'a', fakes.silence)
    notify(world)
    assert len(caplog.records) == 1


class AwayStore(stores.MemoryStore):
    """Does not answer for a while."""

    def __init__(self, answers):
        super().__init__()
        self.answers = list(answers)

    def add(self, where, message_id, body, copies, deadline):
        if self.answers:
            raise base.StoreAway('away', may_be_done=self.answers.pop())
        super().add(where, message_id, body, copies, deadline)


@pytest.mark.spec('NS-47')
def test_cleanup_meanwhile_does_not_deny_what_was_sent(world, store):
    member(world, 'a')
    request = world.sender.request

    def close_then(route, *rest):
        if route.server == 'b':
            raise errors.DriverClosed('the transport was cleaned up')
        return request(route, *rest)

    world.sender.request = close_then
    for name in 'bc':
        member(world, name)
    notify(world)
    assert copies(store) == [('b', None)]
    store.fails.add('add')
    with pytest.raises(errors.DeliveryUnconfirmed, match='2 of 3'):
        notify(world)


@pytest.mark.spec('NS-47', 'NS-67')
@pytest.mark.parametrize('may_be_done', [True, False])
def test_cleanup_while_a_store_is_away_tells_what_is_known(clock, may_be_done):
    world = fakes.World(clock, AwayStore([may_be_done] * 9))

    def end(seconds):
        raise errors.DriverClosed('the transport was cleaned up')

    world.delivery._sleep = end
    with pytest.raises(
        errors.DeliveryUnconfirmed if may_be_done else errors.DeliveryRefused
    ):
        notify(world)


@pytest.mark.spec('NS-67')
def test_store_that_is_away_is_asked_again(clock):
    store = AwayStore([False] * 3)
    world = fakes.World(clock, store)
    notify(world)
    assert copies(store) == [(None, None)]
    assert world.clock() > 0


@pytest.mark.spec('NS-67')
@pytest.mark.parametrize(
    ('may_be_done', 'failure'),
    [
        ([False, False], errors.DeliveryRefused),
        ([False, True], errors.DeliveryUnconfirmed),
        ([True, False], errors.DeliveryUnconfirmed),
    ],
)
def test_store_that_is_away_is_asked_as_often_as_retry_says(
    clock, may_be_done, failure
):
    store = AwayStore(may_be_done)
    world = fakes.World(clock, store)
    with pytest.raises(failure, match='away'):
        world.notifier.notify(
            fakes.NOTES, fakes.BODY, deadline=world.deadline(), retry=1
        )
    assert not store.answers


@pytest.mark.spec('NS-67')
def test_store_that_is_away_is_asked_until_the_deadline(clock):
    store = AwayStore([False] * 1000)
    world = fakes.World(clock, store)
    with pytest.raises(errors.DeliveryRefused, match='away'):
        notify(world)


@pytest.mark.spec('NS-67')
def test_durable_pools_are_served_though_presence_cannot_be_told(world, store):
    store.saw(fakes.NOTES, ['away'])
    store.fails.add('saw')
    here = member(world, 'here')
    notify(world)
    assert copies(store) == [('away', None)]
    assert len(here.got) == 1


@pytest.mark.spec('NS-91')
@pytest.mark.parametrize('name', ['_find_pools', 'saw'])
def test_busy_store_makes_nobody_forget_who_is_away(
    clock, real_store, name, monkeypatch
):
    store = real_store
    store.saw(fakes.NOTES, ['away'])
    world = fakes.World(clock, store)
    here = member(world, 'here')
    notify(world)
    assert store.counts().copies == 1
    monkeypatch.setattr(store, name, busy)
    notify(world)
    assert store.counts().copies == 2
    assert len(here.got) == 2


@pytest.mark.spec('NS-91')
def test_who_is_away_is_asked_for_twice(world, store, monkeypatch):
    store.durable[fakes.NOTES] = {'away'}
    member(world, 'here')
    failures = [base.StoreUnavailable('it is busy')]
    read = store.pools

    def pools(where):
        if failures:
            raise failures.pop()
        return read(where)

    monkeypatch.setattr(store, 'pools', pools)
    notify(world)
    assert copies(store) == [('away', None)]


@pytest.mark.spec('NS-91')
def test_nobody_is_here_and_who_was_is_not_known(world, store):
    """What the first to come would get, another pool may wait for."""
    store.fails.add('pools')
    with pytest.raises(errors.DeliveryRefused, match='pools fails') as caught:
        notify(world)
    assert caught.value.may_have_run is False
    assert not store.rows
