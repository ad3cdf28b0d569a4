# SPDX-License-Identifier: Apache-2.0
"""Subscriptions and listeners."""

import contextlib
import os
import random
import threading

import pytest

from tests.fixtures import clock as fake_clock
from tests.unit.server import fakes
from zmq_driver import clock as clocks
from zmq_driver import counters
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.server import backlog as backlogs
from zmq_driver.server import listener as listeners
from zmq_driver.server import subscription as subscriptions

SERVED = envelope.Header(
    envelope.Kind.REQUEST, bytes(16), 'exchange', 'topic', 'server'
)
BUSY = envelope.NackReason.BUSY
STOPPED = envelope.NackReason.STOPPED


def new_backlog(messages, size=2**20):
    return backlogs.Backlog(messages, size, backlogs.Unfinished())


class Condition:
    """A condition whose waiting lets time pass, and events happen."""

    def __init__(self, clock):
        self._clock = clock
        self._events = []
        self.waits = 0

    def after(self, seconds, action):
        self._events.append((self._clock() + seconds, action))
        self._events.sort(key=lambda event: event[0])

    def wait(self, timeout):
        self.waits += 1
        assert self.waits < 1000, 'this is a busy loop'
        end = self._clock() + timeout
        if self._events and self._events[0][0] <= end:
            at, action = self._events.pop(0)
            self._clock.tick(max(0.0, at - self._clock()))
            action()
        else:
            self._clock.tick(timeout)

    def notify(self):
        pass

    notify_all = notify

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


@pytest.fixture
def router():
    return fakes.Router()


@pytest.fixture
def registry(router):
    return fakes.Registry(router.story)


@pytest.fixture
def subscription(router, registry):
    return subscriptions.Subscription(router, registry, [fakes.RPC], 'server')


@pytest.fixture
def rpc(router, subscription):
    def make(backlog=10):
        return listeners.RpcListener(
            subscription, router, new_backlog(backlog), 4096
        )

    return make


@pytest.fixture
def notes(router, registry):
    """Give a factory of notification listeners for which no time passes."""

    def make(backlog=10, is_open=True):
        clock = fake_clock.FakeClock()
        subscription = subscriptions.Subscription(
            router, registry, [fakes.INFO, fakes.ERROR], 'pool'
        )
        listener = listeners.NotificationListener(
            subscription,
            router,
            new_backlog(backlog),
            counters.Counters(),
            clock,
        )
        listener.clock = clock
        listener._changed = Condition(clock)
        if is_open:
            listener.open(clocks.Deadline(30))
        return listener

    return make


def note(number):
    return fakes.delivery(flags=envelope.NOTIFICATION, number=number)


def answers(router):
    """Return the number of each message with the reason of its NACK."""
    return [
        (int.from_bytes(m.header.message_id, 'big'), m.header.reason)
        for _, m in router.sent
    ]


def numbers(batch):
    return [message.message['n'] for message in batch]


# Subscriptions


@pytest.mark.spec('LI-01')
def test_registration_has_both_endpoints(rpc, registry, router):
    listener = rpc()
    listener.start(lambda incoming: None)
    [registration] = registry.present
    assert registration.route.endpoint == router.endpoint
    assert registration.tcp_endpoint == router.tcp_endpoint
    listener.stop()


@pytest.mark.parametrize(
    'changes',
    [
        {'exchange': 'other'},
        {'topic': 'other'},
        {'topic': f'{SERVED.topic}_x'},
        {'topic': SERVED.topic[:-1]},
        {'server': 'other'},
        {'server': ''},
        {'flags': envelope.NOTIFICATION},
    ],
)
@pytest.mark.spec('DL-05')
@pytest.mark.spec('DL-09')
def test_only_its_own_address_is_served(subscription, changes):
    assert subscription.serves(SERVED)
    assert not subscription.serves(SERVED._replace(**changes))


@pytest.mark.spec('DL-09')
def test_notifications_are_served_by_topic_and_priority(notes):
    one = notes()
    mine = SERVED._replace(server='pool', flags=envelope.NOTIFICATION)
    assert one.serves(mine._replace(topic='topic.info'))
    assert one.serves(mine._replace(topic='topic.error'))
    assert not one.serves(mine._replace(topic='topic.debug'))
    assert not one.serves(mine._replace(topic='topic.info', flags=0))


def test_every_subscription_has_an_incarnation(router, registry):
    made = {
        subscriptions.Subscription(
            router, registry, [fakes.RPC], 'server'
        ).incarnation
        for _ in range(100)
    }
    assert len(made) == 100


@pytest.mark.spec('LC-09')
def test_it_receives_before_it_is_found_and_until_it_is_not(notes, router):
    notes().stop()
    assert router.story == [
        'attach',
        'register',
        'register',
        'unregister',
        'unregister',
        'detach',
    ]


def test_failed_registration_leaves_nothing(notes, router, registry):
    registry.fails = {'register', 'unregister'}
    one = notes(is_open=False)
    with pytest.raises(errors.ListenFailure) as caught:
        one.open(clocks.Deadline(30))
    assert caught.value.may_have_run is False
    assert router.story[-1] == 'detach'


@pytest.mark.spec('LC-09')
def test_silent_matchmaker_does_not_prevent_the_stop(
    rpc, router, registry, caplog
):
    one = rpc()
    one.start(lambda incoming: None)
    registry.fails = {'unregister'}
    one.stop()
    assert router.story[-1] == 'detach'
    assert 'ends by itself' in caplog.text


@pytest.mark.spec('TO-04')
def test_slow_matchmaker_leaves_time_to_stop_receiving(
    clock, router, subscription
):
    registry = fakes.Registry(router.story, clock)
    registry.slow = 60.0
    slow = subscriptions.Subscription(router, registry, [fakes.RPC], 'server')
    slow.open('sink', clocks.Deadline(30))
    slow.close('sink', clocks.Deadline(subscriptions.STOP_TIMEOUT))
    assert router.detach_left >= 1.0


def test_stop_is_idempotent(rpc, router):
    one = rpc()
    one.stop()
    one.start(lambda incoming: None)
    one.stop()
    one.cleanup()
    assert router.story.count('unregister') == 1


@pytest.mark.spec('LC-03')
def test_child_does_not_withdraw_what_its_parent_registered(
    rpc, notes, router, monkeypatch
):
    one, two = rpc(), notes()
    one.start(lambda incoming: None)
    monkeypatch.setattr(os, 'getpid', lambda: 0)
    one.stop()
    two.stop()
    two.cleanup()
    assert 'detach' not in router.story


# RPC


@pytest.mark.spec('DL-21')
def test_request_is_handed_over_at_once(rpc):
    got = []
    one = rpc()
    one.start(got.append)
    assert one.deliver(fakes.delivery(number=5)) is None
    [[message]] = got
    assert message.message == {'n': 5}
    assert message.ctxt == {'user': 'u'}


@pytest.mark.spec('TO-04')
def test_stopped_listener_refuses(rpc):
    one = rpc()
    assert one.deliver(fakes.delivery()) is STOPPED
    got = []
    one.start(got.append)
    one.stop()
    assert one.deliver(fakes.delivery()) is STOPPED
    assert not got


@pytest.mark.spec('DL-41')
def test_backlog_is_what_was_not_replied_to(rpc):
    got = []
    one = rpc(backlog=2)
    one.start(got.append)
    outcomes = [one.deliver(fakes.delivery()) for _ in range(4)]
    assert outcomes == [None, None, BUSY, BUSY]
    got[0][0].reply(1)
    assert one.deliver(fakes.delivery()) is None
    assert one.deliver(fakes.delivery()) is BUSY


@pytest.mark.spec('DL-01')
@pytest.mark.spec('DL-41')
@pytest.mark.spec('DL-75')
def test_executor_that_is_shut_down_refuses(rpc, registry, caplog):
    def refuse(incoming):
        raise RuntimeError('cannot schedule new futures after shutdown')

    outcomes = []
    one = rpc(backlog=1)
    one.start(refuse)
    # The server is stopped, and the router has not heard of it yet.
    withdraw = registry.unregister

    def unregister(*args):
        outcomes.extend(one.deliver(fakes.delivery()) for _ in range(3))
        withdraw(*args)

    registry.unregister = unregister
    one.stop()
    assert outcomes == [STOPPED] * 3
    assert not caplog.records


@pytest.mark.spec('DL-41')
@pytest.mark.spec('DL-75')
def test_executor_without_a_thread_is_no_stopped_listener(rpc, caplog):
    def refuse(incoming):
        raise RuntimeError("can't start new thread")

    one = rpc(backlog=1)
    one.start(refuse)
    for _ in range(3):
        outcome = one.deliver(fakes.delivery())
        assert outcome is envelope.NackReason.FAILED
    [line] = caplog.records
    assert line.levelname == 'WARNING'
    assert "can't start new thread" in line.getMessage()
    assert line.exc_info is None


@pytest.mark.spec('DL-41')
@pytest.mark.spec('TO-07')
def test_callback_that_fails_takes_no_place_of_the_backlog(rpc):
    def fail(incoming):
        raise KeyError('what nobody expects')

    one = rpc(backlog=1)
    one.start(fail)
    for _ in range(3):
        # The router makes a refusal of the exception.
        with contextlib.suppress(KeyError):
            assert one.deliver(fakes.delivery()) not in (None, BUSY)


# Notifications


@pytest.mark.parametrize('timeout', [0.0, 7.0, 12.0])
def test_poll_waits_for_the_first_one(notes, timeout):
    one = notes()
    start = one.clock()
    assert one.poll(timeout) == []
    assert one.clock() - start == pytest.approx(timeout)


def test_poll_returns_the_first_one_at_once(notes):
    one = notes()
    one._changed.after(3.0, lambda: one.deliver(note(1)))
    start = one.clock()
    assert numbers(one.poll()) == [1]
    assert one.clock() - start == pytest.approx(3.0)


@pytest.mark.spec('DL-34')
def test_batch_ends_when_it_is_full(notes):
    one = notes()
    for n in range(5):
        one._changed.after(1.0 + n, lambda n=n: one.deliver(note(n)))
    start = one.clock()
    assert numbers(one.poll(batch_size=3, batch_timeout=60)) == [0, 1, 2]
    assert one.clock() - start == pytest.approx(3.0)
    assert numbers(one.poll(batch_size=3, batch_timeout=60)) == [3, 4]
    assert one.clock() - start == pytest.approx(4.0 + 60)


@pytest.mark.spec('DL-34')
def test_batch_ends_in_time_after_its_first_one(notes):
    one = notes()
    for n in range(3):
        one._changed.after(10.0 + n, lambda n=n: one.deliver(note(n)))
    start = one.clock()
    assert numbers(one.poll(batch_size=9, batch_timeout=1.5)) == [0, 1]
    assert one.clock() - start == pytest.approx(11.5)


@pytest.mark.spec('DL-34')
def test_batch_without_time_out_waits_for_all(notes):
    one = notes()
    one.deliver(note(0))
    one._changed.after(100.0, lambda: one.deliver(note(1)))
    assert numbers(one.poll(batch_size=2, batch_timeout=None)) == [0, 1]


@pytest.mark.spec('DL-34')
@pytest.mark.spec('DL-82')
def test_no_more_than_a_batch(notes):
    one = notes()
    for n in range(5):
        one.deliver(note(n))
    assert numbers(one.poll(batch_size=2)) == [0, 1]
    assert numbers(one.poll(batch_size=2)) == [2, 3]


@pytest.mark.spec('DL-41')
def test_backlog_is_what_was_not_acknowledged(notes):
    one = notes(backlog=2)
    outcomes = [one.deliver(note(n)) for n in range(3)]
    assert outcomes == [None, None, BUSY]
    [first] = one.poll()
    assert one.deliver(note(3)) is BUSY
    first.acknowledge()
    assert one.deliver(note(3)) is None


@pytest.mark.spec('DL-41')
def test_requeued_one_keeps_its_place_of_the_backlog(notes):
    one = notes(backlog=1)
    one.deliver(note(0))
    one.poll()[0].requeue()
    assert one.deliver(note(1)) is BUSY
    [again] = one.poll()
    again.acknowledge()
    assert one.deliver(note(1)) is None


@pytest.mark.spec('DL-35')
def test_requeued_one_comes_back_after_pauses_that_grow(notes, monkeypatch):
    monkeypatch.setattr(random, 'uniform', lambda low, high: high)
    one = notes()
    one.deliver(note(0))
    pauses = []
    [message] = one.poll()
    for _ in range(10):
        start = one.clock()
        message.requeue()
        [again] = one.poll()
        assert again is message
        pauses.append(one.clock() - start)
    first, longest = listeners.REQUEUE_PAUSES
    assert pauses[:3] == [
        pytest.approx(first),
        pytest.approx(2 * first),
        pytest.approx(4 * first),
    ]
    assert pauses[-1] == pytest.approx(longest)
    assert one._counters.snapshot()['requeued'] == 10


@pytest.mark.spec('DL-35')
@pytest.mark.spec('DL-84')
def test_requeued_one_does_not_hold_up_the_others(notes):
    one = notes()
    one.deliver(note(0))
    one.poll()[0].requeue()
    one.deliver(note(1))
    start = one.clock()
    assert numbers(one.poll()) == [1]
    assert one.clock() == start
    assert numbers(one.poll()) == [0]


@pytest.mark.spec('DL-35')
def test_pauses_do_not_delay_a_batch(notes):
    one = notes()
    one.deliver(note(0))
    one.poll()[0].requeue()
    one.deliver(note(1))
    batch = one.poll(batch_size=2, batch_timeout=1.0)
    assert numbers(batch) == [1, 0]


@pytest.mark.spec('NS-34')
def test_stop_lets_poll_return_what_nobody_has_seen(notes, router):
    one = notes()
    for n in range(3):
        one.deliver(note(n))
    one.poll()[0].requeue()
    one.stop()
    assert answers(router) == [(0, STOPPED)]
    assert numbers(one.poll(batch_size=9, batch_timeout=60)) == [1, 2]
    assert one.poll() == []
    assert one._backlog._messages == 2


@pytest.mark.spec('NS-34')
def test_end_gives_back_what_nobody_has_polled(notes, router):
    one = notes()
    for n in range(3):
        one.deliver(note(n))
    [polled] = one.poll()
    for _ in range(2):
        one.cleanup()
    assert answers(router) == [(1, STOPPED), (2, STOPPED)]
    polled.acknowledge()
    assert answers(router)[2:] == [(0, 0)]
    assert one._backlog._messages == 0


def test_stop_ends_a_poll_that_waits(notes):
    one = notes()
    one._changed.after(3.0, one.stop)
    start = one.clock()
    assert one.poll() == []
    assert one.clock() - start == pytest.approx(3.0)


@pytest.mark.spec('TO-05')
def test_stop_ends_a_poll_of_another_thread(router, registry):
    subscription = subscriptions.Subscription(
        router, registry, [fakes.INFO], 'pool'
    )
    one = listeners.NotificationListener(
        subscription,
        router,
        new_backlog(10),
        counters.Counters(),
    )
    one.open(clocks.Deadline(30))
    got = []
    poller = threading.Thread(target=lambda: got.append(one.poll()))
    poller.start()
    one.deliver(note(4))
    poller.join(30)
    assert numbers(got.pop()) == [4]
    poller = threading.Thread(target=lambda: got.append(one.poll()))
    poller.start()
    one.stop()
    poller.join(listeners.POLL_INTERVAL - 1)
    assert not poller.is_alive()
    assert got == [[]]


@pytest.mark.spec('TO-04')
@pytest.mark.spec('DL-41')
def test_stopped_listener_refuses_notifications(notes):
    one = notes(backlog=1)
    one.stop()
    for _ in range(3):
        assert one.deliver(note(0)) is STOPPED
    assert one.poll() == []


def test_polls_after_the_stop_are_no_busy_loop(notes):
    # The adapter of oslo.messaging polls until it is itself told to stop,
    # which an application that only cleans up its transport never does.
    one = notes()
    one.withdraw(clocks.Deadline(1))
    start = one.clock()
    for _ in range(100):
        assert one.poll() == []
    assert one.clock() - start > 1.0


@pytest.mark.spec('DL-35')
def test_what_comes_back_after_the_stop_is_given_back(notes, router):
    one = notes()
    for n in range(2):
        one.deliver(note(n))
    batch = one.poll(batch_size=2)
    one.stop()
    assert not router.sent
    for message in batch:
        message.requeue()
    one.cleanup()
    assert answers(router) == [(0, STOPPED), (1, STOPPED)]
    assert one._backlog._messages == 0
