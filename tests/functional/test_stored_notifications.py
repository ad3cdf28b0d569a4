# SPDX-License-Identifier: Apache-2.0
"""Notifications that wait for a listener, among real processes."""

import collections
import contextlib
import shutil
import signal
import tempfile
import threading
import time

import oslo_messaging
import pytest

from tests.fixtures import process
from tests.fixtures import waiting
from zmq_driver import address

#: Seconds after which something hangs, on a machine that is busy.
HANG = 30


@pytest.fixture
def listener(server):
    """Give a factory of listener processes."""

    def start(name, *arguments, **kwargs):
        return server(name, '--notifications', *arguments, **kwargs)

    return start


@pytest.fixture
def notifying(url, topic):
    """Give a factory of processes that notify on request."""
    started = []

    def start(query='', *arguments):
        program = process.Program(
            'notifying', '--url', url + query, '--topic', topic, *arguments
        )
        started.append(program)
        return program.start()

    yield start
    for program in started:
        program.close()


@pytest.fixture
def listen_in_batches(conf, url, topic):
    """Give a factory of batch listeners in this process."""
    started = []

    def start(endpoint, **kwargs):
        transport = oslo_messaging.get_notification_transport(conf, url)
        one = oslo_messaging.get_batch_notification_listener(
            transport,
            [oslo_messaging.Target(topic=topic)],
            [endpoint],
            executor='threading',
            **kwargs,
        )
        started.append((one, transport))
        one.start()

    yield start
    for one, transport in started:
        one.stop()
        one.wait()
        transport.cleanup()


def notify(program, *payloads):
    """Let a program notify; wait until it has been accepted."""
    for payload in payloads:
        program.write(str(payload))
    waiting.until(
        lambda: (
            {line['accepted'] for line in program.all('accepted')}
            >= set(payloads)
        ),
        'acceptance',
        HANG,
    )


def payloads(*programs):
    return [
        line['notified']
        for program in programs
        for line in program.all('notified')
    ]


def wait_for(expected, *programs):
    """Wait until there is one of each, and then a little for more."""
    waiting.until(
        lambda: set(payloads(*programs)) >= set(expected), 'delivery', HANG
    )
    time.sleep(0.3)
    counts = collections.Counter(payloads(*programs))
    assert counts == collections.Counter(expected)


@pytest.mark.spec('NS-42')
def test_who_comes_first_gets_what_waits(notifying, listener):
    notify(notifying(), *range(20))
    wait_for(range(20), listener('late'))


@pytest.mark.spec('NS-42')
def test_every_pool_that_comes_first_gets_a_copy(notifying, listener):
    program = notifying()
    pools = [listener(p, '--listener-pool', p, wait=False) for p in 'ab']
    notify(program, *range(5))
    for pool in pools:
        pool.wait_for('ready', HANG)
    # Who comes later is told what is sent from then on.
    notify(program, 7)
    for pool in pools:
        waiting.until(lambda p=pool: 7 in payloads(p), 'the last', HANG)


@pytest.mark.spec('NS-43')
def test_notifier_that_is_killed_has_lost_nothing(notifying, listener):
    program = notifying()
    notify(program, *range(20))
    program.kill()
    wait_for(range(20), listener('late'))


@pytest.mark.spec('NS-03')
@pytest.mark.spec('NS-43')
def test_notifier_that_dies_when_notify_returns(notifying, listener):
    program = notifying('', '--die-after', 4)
    for number in range(10):
        program.write(str(number))
    assert program.wait(HANG) == -signal.SIGKILL
    wait_for(range(5), listener('late'))


@pytest.mark.spec('NS-43')
def test_who_only_notifies_delivers_what_another_stored(notifying, listener):
    notifying('', '--die-after', 0).write('0')
    other = notifying()
    notify(other, 1)
    late = listener('late')
    # Its thread may drain as well; then it goes on alone.
    wait_for([0, 1], late)
    other.kill()
    notify(notifying(), 2)
    wait_for(range(3), late)


@pytest.mark.spec('NS-03')
@pytest.mark.spec('NS-43')
def test_restart_of_the_host(notifying, topic, url, ipc_dir):
    """All processes are gone, and so is what was in /run."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(
            tempfile.TemporaryDirectory(prefix='zd')
        )
        query = f'&notification_store_directory={directory}'

        def listen(pool):
            program = process.Program(
                *('server', '--url', url + query, '--topic', topic),
                *('--notifications', '--listener-pool', pool),
            )
            stack.callback(program.close)
            return program.start()

        first = [listen(pool) for pool in 'ab']
        program = notifying(query, '--die-after', 9)
        notify(program, 0)
        for pool in first:
            wait_for([0], pool)
            pool.kill()
        for number in range(1, 10):
            program.write(str(number))
        assert program.wait(HANG) == -signal.SIGKILL
        for path in ipc_dir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for pool in [listen(pool) for pool in 'ab']:
            wait_for(range(1, 10), pool)


@pytest.mark.spec('NS-41')
def test_pool_that_is_away_gets_its_copies_later(notifying, listener):
    here = listener('here', '--listener-pool', 'here')
    away = listener('away', '--listener-pool', 'away')
    program = notifying()
    notify(program, 0)
    wait_for([0], away)
    away.stop()
    notify(program, *range(1, 10))
    wait_for(range(10), here)
    back = listener('back', '--listener-pool', 'away')
    wait_for(range(1, 10), back)
    wait_for(range(10), here)


@pytest.mark.spec('NS-41')
def test_pool_is_remembered_that_nobody_has_notified(notifying, listener):
    listener('away', '--listener-pool', 'away').stop()
    notify(notifying(), 1)
    # This one is no member of the pool that it is for.
    other = listener('other', '--listener-pool', 'other')
    wait_for([1], listener('back', '--listener-pool', 'away'))
    assert not payloads(other)


@pytest.mark.spec('NS-32')
@pytest.mark.spec('NS-45')
def test_listener_that_is_killed_has_lost_nothing(notifying, listener):
    first = listener('first', '--delay', HANG, '--executor-threads', 1)
    program = notifying()
    notify(program, *range(10))
    first.wait_for('entered')
    time.sleep(0.5)
    first.kill()
    wait_for(range(10), listener('second'))


@pytest.mark.spec('NS-45')
def test_slow_listener_gets_everything_once(notifying, listener):
    slow = listener('slow', '--delay', 0.3, '--executor-threads', 4)
    program = notifying()
    other = listener('other')
    notify(program, *range(30))
    wait_for(range(30), slow, other)


@pytest.mark.spec('NS-44')
@pytest.mark.spec('NS-45')
def test_another_process_goes_on_where_one_was_killed(notifying, listener):
    first, second = notifying(), notifying()
    # The first one drains; then the second one stores something too.
    notify(first, *range(10))
    time.sleep(1.5)
    notify(second, *range(10, 20))
    slow = listener('slow', '--delay', 1.0, '--executor-threads', 4)
    slow.wait_for('entered')
    first.kill()
    wait_for(range(20), slow)


@pytest.mark.spec('NS-40')
@pytest.mark.spec('NS-46')
def test_blocked_listener_does_not_block_the_notifier(notifying, listener):
    listener('blocked', '--delay', HANG, '--listener-pool', 'blocked')
    free = listener('free', '--listener-pool', 'free')
    program = notifying()
    start = time.monotonic()
    notify(program, *range(100))
    # A hundred times notify_timeout would be most of an hour.
    assert time.monotonic() - start < HANG
    wait_for(range(100), free)


@pytest.mark.spec('NS-40')
def test_direct_path_stores_nothing(notifier, listener):
    program = listener('l')
    # On a machine that is busy a listener may be late.
    one = notifier(f'&notification_direct_timeout={HANG}')
    for n in range(50):
        one.info({}, 'event', n)
    wait_for(range(50), program)
    counts = one.transport._driver.runtime().counters.snapshot()
    assert counts['notifications_stored'] == 0


class Batches:
    def __init__(self):
        self.batches = []
        self._lock = threading.Lock()

    def info(self, messages):
        with self._lock:
            self.batches.append([m['payload'] for m in messages])
        return oslo_messaging.NotificationResult.HANDLED


@pytest.mark.spec('NS-30')
@pytest.mark.spec('NS-46')
def test_batches_are_filled(notifying, listen_in_batches):
    recorder = Batches()
    listen_in_batches(recorder, batch_size=50, batch_timeout=HANG)
    notify(notifying(), *range(200))
    waiting.until(lambda: len(recorder.batches) == 4, 'batches', HANG)
    assert sorted(n for b in recorder.batches for n in b) == list(range(200))


@pytest.mark.spec('NS-43')
def test_end_of_a_process_gives_its_place_to_another(notifying, listener):
    first, second = notifying(), notifying()
    notify(first, 1)
    notify(second, 2)
    first._process.stdin.close()
    assert first.wait(HANG) == 0
    wait_for([1, 2], listener('late'))


@pytest.mark.spec('NS-44')
def test_another_process_goes_on_while_one_is_frozen(notifying, listener):
    first, second = notifying(), notifying()
    notify(first, *range(10))
    # It is its turn for certain.
    time.sleep(1.5)
    first.freeze()
    try:
        notify(second, *range(10, 20))
        late = listener('late')
        wait_for(range(20), late)
    finally:
        first.thaw()
    notify(first, 20)
    notify(second, 21)
    wait_for(range(22), late)


@pytest.mark.spec('NS-53')
def test_pool_is_not_forgotten_while_a_member_lives(notifier, listener, topic):
    query = '&notification_pool_retention=1'
    listener('quiet', '--listener-pool', 'quiet', query=query)
    driver = notifier(query).transport._driver
    where = driver._address(
        address.Scope.NOTIFICATION,
        oslo_messaging.Target(topic=topic),
        f'{topic}.info',
    )
    # Long after the retention, and nobody has notified.
    time.sleep(3.0)
    waiting.until(
        lambda: driver.runtime()._store.pools(where) == {'quiet'}, 'pool', HANG
    )


@pytest.mark.spec('NS-55')
@pytest.mark.parametrize('size', [1, 8])
def test_what_a_batch_waits_for_is_given_once(
    notifying, listen_in_batches, size
):
    recorder = Batches()
    listen_in_batches(recorder, batch_size=100, batch_timeout=1.0)
    first, second = notifying(), notifying()
    # Each is stored while it waits for the others of its batch.
    for n in range(0, 5 * size, size):
        notify(first if n % 2 else second, *range(n, n + size))
    expected = set(range(5 * size))
    waiting.until(
        lambda: {n for b in recorder.batches for n in b} >= expected,
        'batches',
        HANG,
    )
    time.sleep(2.0)
    counts = collections.Counter(n for b in recorder.batches for n in b)
    assert counts == collections.Counter(expected)


@pytest.mark.spec('NS-34', 'NS-56')
@pytest.mark.parametrize('drains', ['notifier', 'listener'])
def test_listener_that_leaves_leaves_nothing_in_doubt(
    notifying, listener, drains
):
    program = notifying()
    if drains == 'notifier':
        # It is its turn from now on.
        notify(program, 0)
        time.sleep(1.5)
    leaving = listener('leaving', '--delay', 0.2, '--executor-threads', 2)
    expected = list(range(drains == 'listener', 40))
    for n in range(1, 40):
        program.write(str(n))
        time.sleep(0.02)
    # What it had begun with is handled, and its notifier does not wait.
    leaving.stop()
    wait_for(expected, leaving, listener('staying'))


@pytest.mark.spec('NS-56')
def test_last_listener_answers_for_what_it_handled(notifying, listener):
    program = notifying()
    for round_ in range(5):
        leaving = listener(f'l{round_}', '--delay', 0.15)
        program.write(str(round_))
        leaving.wait_for('entered')
        # It handles it when nobody listens to its answer, and leaves.
        leaving.stop()
        assert payloads(leaving) == [round_]
    late = listener('late')
    notify(program, 7)
    wait_for([7], late)


@pytest.mark.spec('NS-58')
def test_listener_survives_that_it_was_frozen_with_many(notifying, listener):
    program = notifying()
    notify(program, 0)
    frozen = listener('frozen')
    # There is a connection for what was stored from now on.
    wait_for([0], frozen)
    frozen.freeze()
    try:
        notify(program, *range(1, 200))
        # Heartbeats are among it, until the connection is given up.
        time.sleep(4.0)
    finally:
        frozen.thaw()
    waiting.until(
        lambda: set(payloads(frozen)) >= set(range(200)), 'delivery', HANG
    )
    assert frozen.poll() is None
