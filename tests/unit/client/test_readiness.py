# SPDX-License-Identifier: Apache-2.0
"""Which of several sockets have news, with real sockets."""

import socket as posix
import time

import pytest

from tests.fixtures import socket_samples
from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import sockets
from zmq_driver.client import readiness as readiness_

HANG = 30

OPTIONS = socket_samples.OPTIONS


@pytest.fixture
def peers(context, endpoint, router):
    made = []
    for number in range(4):
        one = sockets.PeerSocket(context, endpoint, OPTIONS)
        made.append(one)
        assert one.wait_connected(HANG)
        one.send([b'%d' % number, b''])
    yield made
    for one in made:
        one.close()


@pytest.fixture
def readiness():
    return readiness_.Readiness()


def hear(router, count):
    """Return the routing ids of *count* peers, by their numbers."""
    heard = {}
    while len(heard) < count:
        routing_id, *frames = waiting.until(router.receive, 'message', HANG)
        if len(frames) == 2:
            heard[int(frames[0])] = routing_id
    return [heard[number] for number in range(count)]


@pytest.mark.spec('DL-24')
def test_who_has_an_answer_is_found(router, peers, readiness):
    ids = hear(router, len(peers))
    for number, peer in enumerate(peers):
        assert peer.quiet()
        readiness.add(number, peer)
    assert readiness.wait(0.0) == []
    for _ in range(3):
        for number in (2, 0):
            router.send([ids[number], b'answer', b''])
            assert readiness.wait(HANG) == [number]
            assert peers[number].receive(0.0) == [b'answer', b'']
            assert peers[number].quiet()
            assert readiness.wait(0.0) == []


@pytest.mark.spec('DL-24')
def test_several_are_found_at_once(router, peers, readiness):
    ids = hear(router, len(peers))
    for number, peer in enumerate(peers):
        assert peer.quiet()
        readiness.add(number, peer)
    for number in (1, 3):
        router.send([ids[number], b'answer', b''])
    waiting.until(lambda: len(readiness.wait(1.0)) == 2, 'answers', HANG)
    readiness.remove(1)
    assert readiness.wait(HANG) == [3]
    readiness.remove(3)
    readiness.remove(3)
    assert readiness.wait(0.0) == []


def test_lost_connection_is_news(context, endpoint, readiness):
    router = sockets.RouterSocket(context, endpoint, OPTIONS)
    peer = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert peer.wait_connected(HANG)
    assert peer.quiet()
    readiness.add('peer', peer)
    router.close()
    assert readiness.wait(HANG) == ['peer']
    waiting.until(lambda: not peer.connected(), 'end', HANG)
    assert not peer.quiet()
    peer.close()


def test_end_of_the_handshake_is_news(context, readiness):
    with posix.create_server(('127.0.0.1', 0)) as listener:
        place = f'tcp://127.0.0.1:{listener.getsockname()[1]}'
        peer = sockets.PeerSocket(context, place, OPTIONS)
        assert not peer.wait_connected(0.0)
        readiness.add('peer', peer)
        assert readiness.wait(0.05) == []
        listener.accept()[0].close()
        assert readiness.wait(HANG) == ['peer']
    with pytest.raises(errors.PeerNotReady):
        peer.wait_connected(HANG)
    peer.close()


def test_name_that_is_looked_up_has_no_descriptor(
    context, readiness, monkeypatch
):
    monkeypatch.setattr(
        posix, 'getaddrinfo', lambda *args, **kwargs: time.sleep(0.2) or []
    )
    peer = sockets.PeerSocket(context, 'tcp://name:9', OPTIONS)
    assert peer.fileno() == -1
    readiness.add('peer', peer)
    assert readiness.wait(0.01) == []
    readiness.remove('peer')
    peer.close()
    context.resolver.close()


@pytest.mark.spec('LC-07')
@pytest.mark.parametrize('connected', [True, False])
def test_end_of_the_context(endpoint, readiness, connected):
    context = context_.DriverContext('tests', 1, 8)
    router = sockets.RouterSocket(context, endpoint, OPTIONS)
    peer = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert not connected or peer.wait_connected(HANG)
    readiness.add('peer', peer)
    assert not context.close(clock.Deadline(0.01))
    assert readiness.wait(HANG) == ['peer']
    assert not (peer.quiet() if connected else peer.wait_connected(0.0))
    assert peer.fileno() == -1
    peer.close()
    router.close()
    assert context.close(clock.Deadline(HANG))
