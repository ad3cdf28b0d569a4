# SPDX-License-Identifier: Apache-2.0
"""Notifications between processes, and in one."""

import collections
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import waiting
from zmq_driver import errors

#: Seconds after which something hangs, on a machine that is busy.
HANG = 30

#: What makes the driver do without a store.
UNSTORED = '&notification_store=none'

PRIORITIES = ['audit', 'debug', 'info', 'warn', 'error', 'critical', 'sample']


class Recorder:
    """Records every notification; may ask to see some of them again."""

    def __init__(self, requeue=0):
        self.seen = []
        self._requeue = requeue
        self._lock = threading.Lock()

    def _note(self, priority, publisher_id, event_type, payload, metadata):
        with self._lock:
            self.seen.append((priority, event_type, payload))
            if self._requeue > 0:
                self._requeue -= 1
                return oslo_messaging.NotificationResult.REQUEUE
        return oslo_messaging.NotificationResult.HANDLED


def _endpoint_method(priority):
    def method(self, ctxt, publisher_id, event_type, payload, metadata):
        return self._note(
            priority, publisher_id, event_type, payload, metadata
        )

    return method


for _priority in PRIORITIES:
    setattr(Recorder, _priority, _endpoint_method(_priority))


class BatchRecorder:
    def __init__(self):
        self.batches = []

    def info(self, messages):
        self.batches.append(
            ([m['payload'] for m in messages], time.monotonic())
        )
        return oslo_messaging.NotificationResult.HANDLED


@pytest.fixture
def transport_of(conf, url):
    """Give a factory of notification transports, cleaned up afterwards."""
    made = []

    def make(query=''):
        made.append(
            oslo_messaging.get_notification_transport(conf, url + query)
        )
        return made[-1]

    yield make
    for one in made:
        one.cleanup()


@pytest.fixture
def listen(transport_of, topic):
    """Give a factory of listeners in this process."""
    started = []

    def start(endpoint, topics=None, pool=None):
        started.append(
            oslo_messaging.get_notification_listener(
                transport_of(),
                [oslo_messaging.Target(topic=t) for t in topics or [topic]],
                [endpoint],
                executor='threading',
                pool=pool,
                allow_requeue=True,
            )
        )
        started[-1].start()
        return started[-1]

    yield start
    for listener in started:
        listener.stop()
        listener.wait()


@pytest.fixture
def listen_in_batches(transport_of, topic):
    """Give a factory of batch listeners in this process."""
    started = []

    def start(endpoint, **kwargs):
        started.append(
            oslo_messaging.get_batch_notification_listener(
                transport_of(),
                [oslo_messaging.Target(topic=topic)],
                [endpoint],
                executor='threading',
                **kwargs,
            )
        )
        started[-1].start()
        return started[-1]

    yield start
    for listener in started:
        listener.stop()
        listener.wait()


@pytest.fixture
def send(transport_of, topic):
    """Send as the messaging driver of oslo.messaging does; it may raise."""

    def send(
        payload=None, retry=None, query='', transport=None, priority='info'
    ):
        (transport or transport_of(query))._send_notification(
            oslo_messaging.Target(topic=f'{topic}.{priority}'),
            {},
            {
                'event_type': 'event',
                'publisher_id': 'tests',
                'priority': priority.upper(),
                'payload': payload,
            },
            version=2.0,
            retry=retry,
        )

    return send


@pytest.fixture
def listener(server):
    """Give a factory of listener processes."""

    def start(name, *arguments, **kwargs):
        return server(name, '--notifications', *arguments, **kwargs)

    return start


def at_once(notifier, payloads):
    """Notify on threads, because each waits until its one is handled."""
    for payload in payloads:
        threading.Thread(
            target=notifier.info, args=[{}, 'event', payload], daemon=True
        ).start()


def payloads(program):
    return [line['notified'] for line in program.all('notified')]


@pytest.mark.spec('DL-30')
@pytest.mark.parametrize('driver', ['messaging', 'messagingv2'])
def test_notification_reaches_the_endpoint(listener, notifier, driver):
    program = listener('l')
    payload = {'a': [1, 'ä', None]}
    notifier(driver=driver).info({}, 'compute.start', payload)
    found = program.wait_for('notified')
    assert found['notified'] == payload
    assert found['event_type'] == 'compute.start'
    assert found['priority'] == 'info'


@pytest.mark.spec('DL-30')
def test_every_priority_reaches_its_method_only(listen, notifier):
    recorder = Recorder()
    listen(recorder)
    one = notifier()
    for priority in PRIORITIES:
        getattr(one, priority)({}, f'event.{priority}', {})
    waiting.until(
        lambda: len(recorder.seen) == len(PRIORITIES), 'notifications'
    )
    assert sorted((p, e) for p, e, _ in recorder.seen) == sorted(
        (p, f'event.{p}') for p in PRIORITIES
    )


@pytest.mark.spec('DL-30')
def test_priority_that_no_endpoint_has_is_refused(listener, send):
    listener('l')  # has methods for info and error
    with pytest.raises(errors.DeliveryRefused):
        send(priority='sample', retry=0, query=UNSTORED)


@pytest.mark.spec('DL-30')
def test_several_topics_of_one_listener(listen, transport_of, topic):
    recorder = Recorder()
    topics = [topic, f'{topic}-other']
    listen(recorder, topics)
    oslo_messaging.Notifier(
        transport_of(), publisher_id='p', driver='messagingv2', topics=topics
    ).info({}, 'event', 1)
    waiting.until(lambda: len(recorder.seen) == 2, 'a copy of each topic')


@pytest.mark.spec('DL-30')
def test_each_listener_pool_gets_one_copy(listener, notifier):
    pools = {
        name: [listener(f'{name}-{n}', *arguments) for n in range(2)]
        for name, arguments in [
            ('a', ['--listener-pool', 'a']),
            ('b', ['--listener-pool', 'b']),
            ('none', []),
        ]
    }
    one = notifier()
    for n in range(10):
        one.info({}, 'event', n)

    def found(name):
        return sorted(p for one in pools[name] for p in payloads(one))

    for name in pools:
        waiting.until(lambda n=name: len(found(n)) >= 10, f'copies of {name}')
    # Whoever got too much has it by now: notify() waited for all of them.
    for name in pools:
        assert found(name) == list(range(10))


@pytest.mark.spec('DL-31')
@pytest.mark.parametrize('pool', [[], ['--listener-pool', 'p']])
def test_members_of_a_pool_share(listener, notifier, pool):
    members = [listener(f'm{n}', *pool) for n in range(3)]
    one = notifier()
    for n in range(9):
        one.info({}, 'event', n)
    for member in members:
        waiting.until(lambda m=member: len(payloads(m)) >= 3, 'its share')
    everything = [p for member in members for p in payloads(member)]
    assert sorted(everything) == list(range(9))


@pytest.mark.spec('DL-32')
def test_nobody_listens_until_the_timeout(send):
    start = time.monotonic()
    with pytest.raises(
        errors.DeliveryRefused, match='nobody listens'
    ) as caught:
        send(query=f'{UNSTORED}&notify_timeout=0.5')
    assert 0.5 <= time.monotonic() - start < 5
    assert caught.value.may_have_run is False


@pytest.mark.spec('DL-32')
def test_nobody_listens_and_no_retry(send):
    start = time.monotonic()
    with pytest.raises(errors.DeliveryRefused):
        send(retry=0, query=UNSTORED)
    assert time.monotonic() - start < 10


@pytest.mark.spec('DL-32')
def test_notifier_of_oslo_logs_what_nobody_took(notifier, caplog):
    notifier(UNSTORED, retry=0).info({}, 'event', {})
    assert 'nobody listens' in caplog.text


@pytest.mark.spec('DL-32')
def test_listener_that_appears_gets_what_waits(listen, transport_of, send):
    recorder = Recorder()
    transport = transport_of(UNSTORED)
    sender = threading.Thread(
        target=send, args=['late'], kwargs={'transport': transport}
    )
    sender.start()
    waiting.until(lambda: transport._driver._runtime, 'first use')
    listen(recorder)
    sender.join(HANG)
    assert not sender.is_alive()
    waiting.until(lambda: recorder.seen, 'notification')
    assert [payload for _, _, payload in recorder.seen] == ['late']


@pytest.mark.spec('DL-32')
def test_nothing_is_stored(listen, send):
    with pytest.raises(errors.DeliveryRefused):
        send('lost', retry=0, query=UNSTORED)
    recorder = Recorder()
    listen(recorder)
    send('seen')
    waiting.until(lambda: recorder.seen, 'notification')
    assert [payload for _, _, payload in recorder.seen] == ['seen']


@pytest.mark.spec('DL-33')
def test_frozen_listener_leaves_it_to_another_member(
    listener, send, transport_of
):
    members = [listener(f'm{n}') for n in range(2)]
    transport = transport_of()
    # If one is late, what follows is drained, to whoever has room.
    for n in range(-10, 2):
        send(n, transport=transport)
    waiting.until(lambda: all(payloads(m) for m in members), 'shares')
    members[0].freeze()
    try:
        for n in range(2, 8):
            send(n, transport=transport)
        waiting.until(
            lambda: set(payloads(members[1])) >= set(range(2, 8)),
            'what the frozen one did not take',
        )
    finally:
        members[0].thaw()


@pytest.mark.spec('DL-33')
def test_killed_listener_leaves_it_to_another_member(
    listener, send, transport_of
):
    members = [listener(f'm{n}') for n in range(2)]
    transport = transport_of()
    for n in range(2):
        send(n, transport=transport)
    waiting.until(lambda: all(payloads(m) for m in members), 'shares')
    members[0].kill()
    for n in range(2, 8):
        send(n, transport=transport)
    waiting.until(
        lambda: set(payloads(members[1])) >= set(range(2, 8)), 'the rest'
    )


@pytest.mark.spec('DL-33')
@pytest.mark.spec('NS-32')
def test_listener_that_is_killed_has_lost_nothing(listener, send):
    # One is handled for long; the others wait for the only thread.
    first = listener('first', '--delay', HANG, '--executor-threads', 1)
    senders = [threading.Thread(target=send, args=[n]) for n in range(3)]
    for sender in senders:
        sender.start()
    first.wait_for('entered')
    time.sleep(0.5)
    second = listener('second')
    first.kill()
    waiting.until(
        lambda: sorted(payloads(second)) == [0, 1, 2], 'all three', HANG
    )
    for sender in senders:
        sender.join(HANG)
        assert not sender.is_alive()
    assert not payloads(first)


@pytest.mark.spec('NS-30')
def test_notifier_without_a_store_waits_until_it_is_handled(listen, send):
    stubborn = Stubborn()
    listen(stubborn)
    sender = threading.Thread(
        target=send, args=['only'], kwargs={'query': UNSTORED}
    )
    sender.start()
    assert stubborn.entered.wait(HANG)
    sender.join(0.5)
    assert sender.is_alive()
    stubborn._requeue = 0
    stubborn.go.set()
    sender.join(HANG)
    assert not sender.is_alive()


@pytest.mark.spec('DL-34')
def test_batch_ends_with_its_size(listen_in_batches, notifier):
    recorder = BatchRecorder()
    listen_in_batches(recorder, batch_size=3, batch_timeout=HANG)
    start = time.monotonic()
    at_once(notifier(), range(6))
    waiting.until(lambda: len(recorder.batches) == 2, 'two batches')
    assert time.monotonic() - start < HANG
    batches = [batch for batch, _ in recorder.batches]
    assert [len(batch) for batch in batches] == [3, 3]
    assert sorted(batches[0] + batches[1]) == list(range(6))


@pytest.mark.spec('DL-34')
def test_batch_ends_with_its_time(listen_in_batches, notifier):
    recorder = BatchRecorder()
    listen_in_batches(recorder, batch_size=100, batch_timeout=1.0)
    start = time.monotonic()
    at_once(notifier(), range(2))
    waiting.until(lambda: recorder.batches, 'a batch')
    ((batch, at),) = recorder.batches
    assert sorted(batch) == [0, 1]
    assert 1.0 <= at - start < 10


@pytest.mark.spec('DL-34')
def test_stopped_listener_gives_its_unfinished_batch(
    listen_in_batches, notifier
):
    recorder = BatchRecorder()
    one = listen_in_batches(recorder, batch_size=100, batch_timeout=HANG)
    at_once(notifier(), ['only'])
    waiting.until(lambda: one.listener._poll_style_listener._ready, 'it')
    one.stop()
    one.wait()
    assert [batch for batch, _ in recorder.batches] == [['only']]


@pytest.mark.spec('DL-35')
def test_requeued_notification_is_seen_again(listen, send):
    recorder = Recorder(requeue=3)
    listen(recorder)
    start = time.monotonic()
    send('again')
    waiting.until(lambda: len(recorder.seen) == 4, 'four looks')
    # Half of 0.05, 0.1 and 0.2 s at least.
    assert time.monotonic() - start >= 0.175
    assert {payload for _, _, payload in recorder.seen} == {'again'}


@pytest.mark.spec('DL-35')
def test_requeued_notification_of_a_process(listener, send):
    program = listener('l', '--requeue', 2)
    send('again')
    waiting.until(lambda: len(payloads(program)) == 3, 'three looks')


class Stubborn(Recorder):
    """Is asked while its listener stops, and then does not want it."""

    def __init__(self):
        super().__init__(requeue=1000)
        self.entered = threading.Event()
        self.go = threading.Event()

    def _note(self, *args):
        self.entered.set()
        assert self.go.wait(HANG)
        return super()._note(*args)


@pytest.mark.spec('DL-35')
def test_requeue_at_a_stopped_listener_reaches_another_member(
    listen, listener, send
):
    stubborn = Stubborn()
    leaving = listen(stubborn)
    sender = threading.Thread(target=send, args=['moved'])
    sender.start()
    assert stubborn.entered.wait(HANG)
    leaving.stop()
    other = listener('other')
    stubborn.go.set()
    leaving.wait()
    assert other.wait_for('notified')['notified'] == 'moved'
    sender.join(HANG)
    assert not sender.is_alive()


@pytest.mark.slow
@pytest.mark.spec('DL-30')
@pytest.mark.spec('DL-31')
def test_many_notifiers_lose_nothing(listener, notifier):
    members = [listener(f'm{n}') for n in range(2)]
    one = notifier()
    threads = [
        threading.Thread(
            target=lambda t=t: [
                one.info({}, 'event', f'{t}-{n}') for n in range(40)
            ]
        )
        for t in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * HANG)
        assert not thread.is_alive()
    waiting.until(
        lambda: sum(len(payloads(m)) for m in members) >= 320, 'all of them'
    )
    counts = collections.Counter(p for m in members for p in payloads(m))
    assert set(counts.values()) == {1}
    assert len(counts) == 320
