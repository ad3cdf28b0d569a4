# SPDX-License-Identifier: Apache-2.0
"""Connections that are cut while the processes at both ends are well."""

import collections
import threading
import time

import pytest

from tests.fixtures import cut
from tests.fixtures import waiting
from zmq_driver.client import sender as sender_

#: Seconds after which something that must end is taken for hung.
HANG = 60


class Background(threading.Thread):
    """Runs a function; keeps what it returned or raised."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.result = self.error = None
        self._function = function
        self.start()

    def run(self):
        try:
            self.result = self._function()
        except Exception as error:
            self.error = error

    def end(self):
        self.join(HANG)
        assert not self.is_alive(), f'runs for more than {HANG} s'
        if self.error is not None:
            raise self.error
        return self.result


def ran(*programs, what='ran'):
    """Count how often each id was executed."""
    return collections.Counter(
        line[what] for program in programs for line in program.all(what)
    )


def counted(user, name):
    return user.transport._driver._runtime.counters.snapshot()[name]


def sent_while_frozen(user, ipc_dir, programs, send, count=1):
    """Send to frozen processes, cut the connections, thaw them."""
    for program in programs:
        program.freeze()
    before = counted(user, 'requests_sent')
    sending = Background(send)
    waiting.until(
        lambda: counted(user, 'requests_sent') == before + count, 'requests'
    )
    assert cut.connections(ipc_dir) >= count
    for program in programs:
        program.thaw()
    return sending


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-50')
@pytest.mark.parametrize('cuts', [1, 3])
def test_call_outlives_its_connection(server, client, ipc_dir, cuts):
    program = server()
    one = client(timeout=HANG)
    call = Background(lambda: one.call({}, 'record', id=1, delay=2.5))
    program.wait_for('ran')
    for n in range(cuts):
        time.sleep(0.3)
        assert cut.connections(ipc_dir) == 1
        waiting.until(
            lambda n=n: counted(one, 'requests_resent') > n, 'second try'
        )
    assert call.end() == 1
    assert ran(program) == {1: 1}
    assert counted(one, 'peers_lost') == cuts


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-50')
def test_monitored_call_outlives_its_connection(server, client, ipc_dir):
    program = server()
    one = client(timeout=HANG, call_monitor_timeout=4)
    call = Background(lambda: one.call({}, 'record', id=1, delay=7))
    program.wait_for('ran')
    assert cut.connections(ipc_dir) == 1
    # It takes longer than the monitor waits: the heartbeats follow.
    assert call.end() == 1
    assert ran(program) == {1: 1}


@pytest.mark.spec('DL-50')
def test_reply_that_was_lost_is_sent_again(
    server, client, ipc_dir, monkeypatch
):
    # However slow the machine is, the reply is made before it is asked for.
    monkeypatch.setattr(sender_, 'RESEND_WINDOW', HANG)
    program = server()
    one = client(timeout=HANG)
    call = Background(lambda: one.call({}, 'record', id=1, delay=1.0))
    program.wait_for('ran')
    # The client hears nothing until the reply is on its way.
    held = threading.Event()
    release = threading.Event()
    driver = one.transport._driver._runtime
    sender = driver.rpc._delivery._sender
    checkout = sender.checkout

    def late(route, deadline):
        held.set()
        assert release.wait(HANG)
        return checkout(route, deadline)

    sender.checkout = late
    assert cut.connections(ipc_dir) == 1
    assert held.wait(HANG)
    time.sleep(1.5)
    sender.checkout = checkout
    release.set()
    assert call.end() == 1
    assert ran(program) == {1: 1}


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-50')
def test_cast_outlives_its_connection(server, client, ipc_dir):
    program = server()
    one = client()
    one.call({}, 'who')
    sent_while_frozen(
        one, ipc_dir, [program], lambda: one.cast({}, 'record', id=1)
    ).end()
    one.call({}, 'who')
    waiting.until(lambda: ran(program), 'cast')
    assert ran(program) == {1: 1}
    assert counted(one, 'requests_resent') >= 1


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-50')
def test_fanout_outlives_its_connections(server, client, ipc_dir):
    programs = [server(name) for name in 'abc']
    everybody = client().prepare(fanout=True)
    everybody.cast({}, 'record', id='first')
    sent_while_frozen(
        everybody,
        ipc_dir,
        programs,
        lambda: everybody.cast({}, 'record', id='second'),
        len(programs),
    ).end()
    waiting.until(
        lambda: all(ran(program)['second'] for program in programs), 'copies'
    )
    everybody.cast({}, 'record', id='third')
    waiting.until(
        lambda: all(ran(program)['third'] for program in programs), 'copies'
    )
    for program in programs:
        assert ran(program) == {'first': 1, 'second': 1, 'third': 1}
    assert counted(everybody, 'fanout_copies_failed') == 0
    assert counted(everybody, 'requests_resent') == len(programs)


@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-50')
def test_notification_outlives_its_connection(server, notifier, ipc_dir):
    programs = [
        server(name, '--notifications', '--listener-pool', 'pool')
        for name in 'ab'
    ]
    one = notifier()
    for n in range(2):
        one.info({}, 'event', f'before-{n}')
    sent_while_frozen(
        one, ipc_dir, programs, lambda: one.info({}, 'event', 'on the way')
    ).end()
    one.info({}, 'event', 'after')
    waiting.until(
        lambda: len(ran(*programs, what='notified')) == 4, 'notifications'
    )
    assert set(ran(*programs, what='notified').values()) == {1}


@pytest.mark.slow
@pytest.mark.spec('DL-48')
@pytest.mark.spec('DL-50')
def test_cuts_under_load_fail_nothing(server, client, ipc_dir):
    programs = [server(name) for name in 'ab']
    one = client(timeout=HANG)
    enough = threading.Event()
    done = collections.Counter()
    lock = threading.Lock()

    def load(thread):
        for number in range(1 << 30):
            if enough.is_set():
                return
            identity = f'{thread}-{number}'
            if number % 3:
                assert one.call({}, 'record', id=identity) == identity
            else:
                one.cast({}, 'record', id=identity)
            with lock:
                done[identity] += 1

    callers = [Background(lambda t=t: load(t)) for t in range(4)]
    for n in range(30):
        time.sleep(0.1)
        seen = sum(done.values())
        cut.connections(ipc_dir)
        waiting.until(
            lambda seen=seen: sum(done.values()) > seen + 4, f'load {n}'
        )
    enough.set()
    for caller in callers:
        caller.end()
    waiting.until(
        lambda: sum(ran(*programs).values()) >= len(done), 'executions'
    )
    assert ran(*programs) == done
    assert counted(one, 'requests_resent') > 0
