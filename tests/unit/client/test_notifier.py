# SPDX-License-Identifier: Apache-2.0
"""One copy of a notification to each listener pool."""

import pytest

from tests.unit.client import fakes
from zmq_driver import envelope
from zmq_driver import errors


def notify(world, timeout=10.0, retry=None):
    world.notifier.notify(
        fakes.NOTES,
        fakes.BODY,
        deadline=world.deadline(timeout),
        retry=retry,
    )


def refused(world, **kwargs):
    with pytest.raises(errors.DeliveryRefused) as caught:
        notify(world, **kwargs)
    return caught.value


class Members:
    """Several listeners of one listener pool, on peers of their own."""

    def __init__(self, world, name, *answers):
        self.peers = []
        for n, answer in enumerate(answers):
            peer = world.add(f'{name}-{n}', answer)
            world.leave(peer)
            peer.route = peer.route._replace(server=name)
            world.registered.append(peer.route)
            self.peers.append(peer)

    def got(self):
        return sum(len(peer.got) for peer in self.peers)


@pytest.mark.spec('DL-30')
def test_one_member_of_each_pool_gets_it(world):
    pools = [
        Members(world, name, fakes.ack, fakes.ack, fakes.ack)
        for name in ('', 'audit', 'billing')
    ]
    notify(world)
    assert [members.got() for members in pools] == [1, 1, 1]
    _, header = next(p for p in pools[1].peers if p.got).got[0]
    assert header.flags == envelope.NOTIFICATION | envelope.WANT_ACK
    assert header.server == 'audit'


@pytest.mark.spec('DL-31')
def test_members_take_turns(world):
    members = Members(world, 'audit', fakes.ack, fakes.ack, fakes.ack)
    for _ in range(30):
        notify(world)
    assert [len(peer.got) for peer in members.peers] == [10, 10, 10]


@pytest.mark.spec('DL-32')
def test_nobody_listens_until_the_deadline(world):
    start = world.clock()
    error = refused(world)
    assert world.clock() - start == pytest.approx(10.0)
    assert 'nobody listens' in str(error)


@pytest.mark.spec('DL-32')
def test_nobody_listens_and_no_retry(world):
    start = world.clock()
    refused(world, retry=0)
    assert world.clock() == start


@pytest.mark.spec('DL-32')
def test_listener_that_appears_gets_it(world):
    world.after(3.0, lambda: world.add('late'))
    notify(world)
    assert len(world._peers['ipc:///tmp/late.ipc'].got) == 1


def test_matchmaker_that_is_down_is_named(world):
    world.down = True
    assert 'cannot be asked' in str(refused(world))


@pytest.mark.spec('DL-33')
def test_notification_of_a_lost_member_goes_to_another(world):
    members = Members(world, 'audit', fakes.ack, fakes.ack)

    def die(header):
        dying = next(p for p in members.peers if p.got)
        dying.die()
        for peer in members.peers:
            peer.answer = fakes.ack
        return []

    for peer in members.peers:
        peer.answer = die
    notify(world)
    assert [len(peer.got) for peer in members.peers] == [1, 1]


@pytest.mark.spec('DL-01')
@pytest.mark.spec('DL-33')
def test_lost_member_and_no_retry_may_have_run(world):
    members = Members(world, 'audit', fakes.silence)
    world.after(1.0, members.peers[0].die)
    with pytest.raises(errors.DeliveryUnconfirmed) as caught:
        notify(world, retry=0)
    assert caught.value.may_have_run is True


@pytest.mark.spec('DL-01')
def test_member_that_does_not_acknowledge_may_have_run(world):
    Members(world, 'audit', fakes.silence)
    with pytest.raises(errors.DeliveryUnconfirmed) as caught:
        notify(world)
    assert caught.value.may_have_run is True


@pytest.mark.spec('DL-01')
def test_pool_that_refuses_while_another_was_served_has_run(world):
    served = Members(world, 'audit', fakes.ack)
    Members(world, 'full', fakes.nack(envelope.NackReason.BUSY))
    with pytest.raises(errors.DeliveryUnconfirmed) as caught:
        notify(world)
    assert caught.value.may_have_run is True
    assert served.got() == 1
    assert "'full'" in str(caught.value)


@pytest.mark.spec('DL-30')
def test_pool_that_does_not_answer_leaves_the_others_their_share(world):
    Members(world, 'a', fakes.silence)
    others = [Members(world, name, fakes.ack) for name in 'bc']
    start = world.clock()
    with pytest.raises(
        (errors.DeliveryRefused, errors.DeliveryUnconfirmed), match="'a'"
    ):
        notify(world)
    assert [members.got() for members in others] == [1, 1]
    assert world.clock() - start <= 10.0 / 3 + 0.1


@pytest.mark.spec('DL-32')
def test_pool_that_vanishes_is_not_waited_for(world):
    gone = Members(world, 'a', fakes.silence)
    served = Members(world, 'b', fakes.ack)

    def leave(header):
        world.leave(gone.peers[0])
        return fakes.nack(envelope.NackReason.STOPPED)(header)

    gone.peers[0].answer = leave
    start = world.clock()
    notify(world)
    assert served.got() == 1
    assert world.clock() - start < 1.0


@pytest.mark.spec('DL-32')
def test_last_listener_that_leaves_is_replaced_by_the_next(world):
    first = Members(world, 'a', fakes.silence)

    def leave(header):
        world.leave(first.peers[0])
        return fakes.nack(envelope.NackReason.STOPPED)(header)

    first.peers[0].answer = leave
    world.after(2.0, lambda: world.add('b'))
    notify(world)
    assert len(world._peers['ipc:///tmp/b.ipc'].got) == 1


@pytest.mark.spec('DL-32')
def test_last_listener_that_leaves_and_no_retry(world):
    members = Members(world, 'a', fakes.silence)

    def leave(header):
        world.leave(members.peers[0])
        return fakes.nack(envelope.NackReason.STOPPED)(header)

    members.peers[0].answer = leave
    with pytest.raises(errors.DeliveryRefused) as caught:
        notify(world, retry=0)
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-01')
def test_only_member_that_died_with_it_may_have_run_it(world):
    members = Members(world, 'audit', fakes.silence)

    def die():
        members.peers[0].die()
        world.leave(members.peers[0])

    world.after(1.0, die)
    with pytest.raises(errors.DeliveryUnconfirmed) as caught:
        notify(world)
    assert caught.value.may_have_run is True
    assert members.got() == 1
