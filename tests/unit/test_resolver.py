# SPDX-License-Identifier: Apache-2.0
"""Names and their addresses."""

import socket as posix
import threading

import pytest

from tests.fixtures import clock as fake_clock
from tests.fixtures import waiting
from zmq_driver import errors
from zmq_driver import resolver
from zmq_driver import threads

HANG = 30


class Names:
    """A name server that can be silent."""

    def __init__(self):
        self.asked = []
        self.known = {'host': ('10.0.0.1', '[fd00::1]')}
        self.speak = threading.Event()
        self.speak.set()

    def look(self, host):
        self.asked.append(host)
        assert self.speak.wait(HANG)
        try:
            return self.known[host]
        except KeyError:
            raise posix.gaierror(posix.EAI_NONAME, 'no such name') from None


@pytest.fixture
def names(monkeypatch):
    one = Names()
    monkeypatch.setattr(resolver, '_addresses', one.look)
    yield one
    one.speak.set()


@pytest.fixture
def clock():
    return fake_clock.FakeClock()


@pytest.fixture
def one(clock, names):
    one = resolver.Resolver('tests', clock)
    yield one
    one.close()


@pytest.mark.spec('LI-12')
def test_name_is_looked_up_once(one, names):
    for _ in range(3):
        assert one.lookup('host').wait(HANG) == ('10.0.0.1', '[fd00::1]')
    assert names.asked == ['host']


@pytest.mark.spec('LI-12')
def test_those_who_ask_together_share_the_answer(one, names):
    names.speak.clear()
    lookups = [one.lookup('host') for _ in range(5)]
    assert lookups[0].wait(0.0) is None
    names.speak.set()
    assert {lookup.wait(HANG) for lookup in lookups} == {
        ('10.0.0.1', '[fd00::1]')
    }
    assert names.asked == ['host']


@pytest.mark.spec('LI-12')
def test_unknown_name_is_an_error_and_not_remembered(one, names):
    for _ in range(2):
        with pytest.raises(errors.PeerNotReady, match="'nobody' has no addr"):
            one.lookup('nobody').wait(HANG)
    assert names.asked == ['nobody', 'nobody']


@pytest.mark.spec('LI-15')
def test_addresses_are_forgotten_after_a_while(one, names, clock):
    one.lookup('host').wait(HANG)
    clock.tick(resolver.TTL - 1)
    one.lookup('host').wait(HANG)
    assert len(names.asked) == 1
    clock.tick(2)
    one.lookup('host').wait(HANG)
    assert len(names.asked) == 2


@pytest.mark.spec('LI-15')
def test_addresses_are_forgotten_when_asked_to(one, names):
    one.lookup('host').wait(HANG)
    one.forget('host')
    one.forget('unknown')
    one.lookup('host').wait(HANG)
    assert len(names.asked) == 2


@pytest.mark.spec('LI-12')
def test_threads_are_few_and_end(one, names):
    names.speak.clear()
    count = resolver.MAX_THREADS + 5
    names.known = {f'h{n}': (f'10.0.0.{n}',) for n in range(count)}
    lookups = [one.lookup(f'h{n}') for n in range(count)]
    waiting.until(
        lambda: len(names.asked) == resolver.MAX_THREADS, 'look-ups', HANG
    )
    running = [
        thread
        for thread in threading.enumerate()
        if thread.name == 'zmq-resolver-tests'
    ]
    assert len(running) == resolver.MAX_THREADS
    names.speak.set()
    for n, lookup in enumerate(lookups):
        assert lookup.wait(HANG) == (f'10.0.0.{n}',)
    for thread in running:
        thread.join(HANG)
        assert not thread.is_alive()
    # A new one starts when it is needed.
    one.forget('h0')
    assert one.lookup('h0').wait(HANG)


@pytest.mark.spec('LI-12')
def test_end_is_told_to_those_who_wait(one, names):
    names.speak.clear()
    count = resolver.MAX_THREADS + 1
    lookups = [one.lookup(f'h{n}') for n in range(count)]
    one.close()
    for lookup in [*lookups, one.lookup('host')]:
        with pytest.raises(errors.PeerNotReady, match='cleaned up'):
            lookup.wait(HANG)
    one.close()
    assert len(names.asked) <= resolver.MAX_THREADS


@pytest.mark.spec('LI-12')
def test_limit_of_threads_is_an_error_for_those_who_wait(
    one, names, monkeypatch
):
    start = threads.ServiceThread.start

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.ServiceThread, 'start', refuse)
    with pytest.raises(errors.PeerNotReady, match="can't start new thread"):
        one.lookup('host').wait(HANG)
    monkeypatch.setattr(threads.ServiceThread, 'start', start)
    assert one.lookup('host').wait(HANG)


@pytest.mark.spec('LI-12')
def test_other_threads_do_what_one_could_not(one, names, monkeypatch):
    names.known['late'] = ('10.0.0.9',)
    names.speak.clear()
    first = one.lookup('host')

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.ServiceThread, 'start', refuse)
    late = one.lookup('late')
    names.speak.set()
    assert first.wait(HANG)
    assert late.wait(HANG) == ('10.0.0.9',)


@pytest.mark.spec('LI-12')
@pytest.mark.parametrize('host', ['', 'a..b', 'x' * 70, '\ud800', 'a\0b'])
def test_what_is_no_name_at_all(host):
    one = resolver.Resolver('tests')
    with pytest.raises(errors.PeerNotReady):
        one.lookup(host).wait(HANG)
    one.close()


def test_the_system_knows_localhost():
    found = resolver._addresses('localhost')
    assert '127.0.0.1' in found or '[::1]' in found
    assert len(found) == len(set(found)) <= resolver.MAX_ADDRESSES


def test_other_families_are_left_out(monkeypatch):
    monkeypatch.setattr(
        posix,
        'getaddrinfo',
        lambda *args, **kwargs: [
            (posix.AF_PACKET, 1, 6, '', ('x',)),
            (posix.AF_INET, 1, 6, '', ('10.0.0.1', 0)),
            (posix.AF_INET, 1, 6, '', ('10.0.0.1', 0)),
            (posix.AF_INET6, 1, 6, '', ('fd00::1', 0, 0, 0)),
        ],
    )
    assert resolver._addresses('host') == ('10.0.0.1', '[fd00::1]')
