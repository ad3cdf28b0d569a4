# SPDX-License-Identifier: Apache-2.0
"""The sockets of the driver, two of them in one process."""

import select
import socket as posix
import threading
import time

import pytest
import zmq

from tests.fixtures import socket_samples
from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import holding
from zmq_driver import ownership
from zmq_driver import socket_options
from zmq_driver import sockets

HANG = 30

OPTIONS = socket_samples.OPTIONS


@pytest.fixture
def peer(context, endpoint, router):
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert one.wait_connected(HANG)
    yield one
    one.close()


def receive(router):
    return waiting.until(router.receive, 'message', HANG)


@pytest.mark.spec('WP-26')
def test_router_hears_of_a_connection(router, peer):
    assert receive(router)[1:] == [b'']


def test_messages_go_there_and_back(router, peer):
    receive(router)
    assert router.receive() is None
    assert peer.receive(0.0) is None
    peer.send([b'header', b'body'])
    routing_id, *frames = receive(router)
    assert frames == [b'header', b'body']
    assert router.send([routing_id, b'answer', b''])
    assert peer.receive(HANG) == [b'answer', b'']
    assert peer.healthy()


def test_idle_socket_with_something_to_read_is_not_healthy(router, peer):
    assert peer.healthy()
    peer.send([b'header', b'body'])
    routing_id = receive(router)[0]
    router.send([routing_id, b'unasked', b''])
    router.send([routing_id, b'unasked', b''])
    assert peer.receive(HANG)
    assert peer.receive(HANG)
    assert peer.healthy()
    router.send([routing_id, b'unasked', b''])
    peer._socket.poll(HANG * 1000, zmq.POLLIN)
    assert not peer.healthy()


@pytest.mark.spec('LC-31')
@pytest.mark.parametrize('tcp', [False, True])
def test_client_that_is_late_reads_the_last_message(
    context, endpoint, monkeypatch, tcp
):
    monkeypatch.setattr(holding, 'READ_TIME', 2.0)
    router = sockets.RouterSocket(context, endpoint, OPTIONS)
    if tcp:
        router.bind('tcp://127.0.0.1:*')
        endpoint = router.bound_to()
    peer = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert peer.wait_connected(HANG)
    routing_id = receive(router)[0]
    router.send([routing_id, b'last', b''])

    def close():
        router.hand_over(threading.current_thread())
        router.close_when_read(0.0)

    thread = threading.Thread(target=close)
    thread.start()
    # Longer than libzmq needs to close the socket.
    time.sleep(0.5)
    assert peer.connected()
    assert peer.receive(0.0) == [b'last', b'']
    thread.join(HANG)
    waiting.until(lambda: not peer.connected(), 'end of the connection', HANG)
    peer.close()


def test_router_tells_that_its_client_is_gone(router):
    assert not router.send([b'nobody', b'answer', b''])


def test_router_tells_that_there_is_no_room(router, peer):
    peer.send((b'request', b''))
    routing_id, *_ = receive(router)
    assert not router.full
    while router.send((routing_id, b'x' * 4096, b'')):
        # The peer reads nothing, but its I/O thread and the kernel do.
        assert not router.full
    assert router.full
    assert not router.send((b'nobody', b''))
    assert not router.full


@pytest.mark.spec('DL-06')
def test_nobody_at_the_endpoint_is_seen_at_once(context, endpoint):
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    with pytest.raises(errors.PeerNotReady, match='nobody listens there'):
        one.wait_connected(HANG)
    assert not one.connected()
    with pytest.raises(errors.PeerNotReady, match='not connected'):
        one.send([b'header', b'body'])
    one.close()


@pytest.mark.spec('DL-06')
def test_listener_that_does_not_answer_is_given_up(
    context, endpoint, directory
):
    with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as silent:
        silent.bind(f'{directory}/s.ipc')
        silent.listen(8)
        one = sockets.PeerSocket(context, endpoint, OPTIONS)
        assert not one.wait_connected(0.05)
        one.close()


def test_file_without_a_listener_refuses(context, endpoint, directory):
    with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as gone:
        gone.bind(f'{directory}/s.ipc')
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    with pytest.raises(errors.PeerNotReady, match='nobody listens there'):
        one.wait_connected(HANG)
    one.close()


@pytest.mark.spec('LI-10')
def test_attempt_that_was_refused_stays_refused(context, endpoint):
    """Somebody listens by the time that its owner waits for it."""
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert one._connector._watch._events.poll(HANG * 1000)
    router = sockets.RouterSocket(context, endpoint, OPTIONS)
    begin = time.monotonic()
    with pytest.raises(errors.PeerNotReady, match='nobody listens there'):
        one.wait_connected(HANG)
    assert time.monotonic() - begin < HANG / 2
    one.close()
    router.close()


@pytest.mark.spec('LI-10')
def test_listener_that_dies_is_seen_at_once(context, endpoint, directory):
    """It had the connection in its queue."""
    with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as dying:
        dying.bind(f'{directory}/s.ipc')
        dying.listen(8)
        one = sockets.PeerSocket(context, endpoint, OPTIONS)
        select.select([dying], [], [], HANG)
    begin = time.monotonic()
    with pytest.raises(errors.PeerNotReady, match='closed it'):
        one.wait_connected(HANG)
    assert time.monotonic() - begin < HANG / 2
    one.close()


@pytest.mark.spec('DL-02')
def test_socket_does_not_reconnect(context, endpoint):
    first = sockets.RouterSocket(context, endpoint, OPTIONS)
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert one.wait_connected(HANG)
    first.close()
    waiting.until(lambda: not one.connected(), 'end', HANG)
    second = sockets.RouterSocket(context, endpoint, OPTIONS)
    probe = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert probe.wait_connected(HANG)
    # By default libzmq would be back after 0.1 s.
    assert not one.wait_connected(0.5)
    for socket in (probe, one, second):
        socket.close()


@pytest.mark.spec('LC-07')
def test_receive_ends_with_the_context(endpoint):
    context = context_.DriverContext('tests', 1, 8)
    router = sockets.RouterSocket(context, endpoint, OPTIONS)
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert one.wait_connected(HANG)
    router.close()
    assert not context.close(clock.Deadline(0.01))
    with pytest.raises(errors.PeerLost, match='may have run'):
        one.receive(HANG)
    one.close()
    assert context.close(clock.Deadline(HANG))


@pytest.mark.spec('LC-07')
@pytest.mark.parametrize(
    'use',
    [
        lambda one: one.connected(),
        lambda one: one.wait_connected(0.1),
        lambda one: one.send([b'header', b'body']),
        lambda one: one.receive(0.0),
        lambda one: one.healthy(),
    ],
    ids=['connected', 'wait_connected', 'send', 'receive', 'healthy'],
)
def test_nothing_else_shows_the_end_of_the_context(endpoint, use):
    context = context_.DriverContext('tests', 1, 8)
    router = sockets.RouterSocket(context, endpoint, OPTIONS)
    one = sockets.PeerSocket(context, endpoint, OPTIONS)
    assert one.wait_connected(HANG)
    assert not context.close(clock.Deadline(0.01))
    try:
        use(one)
    except (errors.PeerNotReady, errors.PeerLost):
        pass
    finally:
        router.close()
        one.close()
        assert context.close(clock.Deadline(HANG))


def test_bad_endpoints_leave_no_socket(context):
    for kind in (sockets.PeerSocket, sockets.RouterSocket):
        with pytest.raises(zmq.ZMQError):
            kind(context, 'nonsense://', OPTIONS)
    # The fixture sees that the context ends.


def test_too_large_message_breaks_its_connection(router, peer):
    receive(router)
    peer.send([b'header', b'x' * 5000])
    waiting.until(lambda: not peer.connected(), 'end', HANG)
    assert router.receive() is None


def test_another_thread_may_not_use_a_socket(router, peer):
    peer.hand_over(None)
    with pytest.raises(ownership.OwnershipError, match='PeerSocket ipc'):
        peer.connected()
    peer.hand_over(threading.current_thread())
    router.hand_over(None)
    with pytest.raises(ownership.OwnershipError, match='RouterSocket ipc'):
        router.receive()
    router.hand_over(threading.current_thread())


def test_milliseconds_are_rounded_up():
    assert socket_options.milliseconds(0.0) == 0
    assert socket_options.milliseconds(0.0001) == 1
    assert socket_options.milliseconds(1.5) == 1500
