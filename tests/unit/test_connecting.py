# SPDX-License-Identifier: Apache-2.0
"""TCP connections that come about, or do not."""

import contextlib
import errno
import os
import socket as posix
import threading
import time

import pytest
import zmq

from tests.fixtures import ports
from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver import connecting
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import resolver
from zmq_driver import socket_options
from zmq_driver import sockets

HANG = 30

#: No test waits for it, except where it says so.
PATIENT = 25.0

OPTIONS = {
    'heartbeat_interval': 0.5,
    'heartbeat_timeout': 1.0,
    'linger': 0.0,
    'max_message_size': 4096,
}


def options(connect_timeout=PATIENT):
    return socket_options.SocketOptions(
        **OPTIONS, connect_timeout=connect_timeout
    )


@pytest.fixture
def names(monkeypatch):
    """Give the hosts that exist: names and their addresses."""
    known = {}

    def look(host):
        found = known.get(host)
        if found is None:
            raise posix.gaierror(posix.EAI_NONAME, 'no such name')
        return found() if callable(found) else found

    monkeypatch.setattr(resolver, '_addresses', look)
    return known


@pytest.fixture
def server(context):
    """Give a factory of ROUTERs at an address; it returns the port."""
    with contextlib.ExitStack() as opened:

        def make(address='127.0.0.1', port='*'):
            one = sockets.RouterSocket(
                context, f'tcp://{address}:{port}', options()
            )
            opened.callback(one.close)
            endpoint = one._socket.get(zmq.LAST_ENDPOINT).decode()
            return int(endpoint.rpartition(':')[2])

        yield make


@pytest.fixture
def peer(context):
    """Give a factory of sockets, closed after the test."""
    with contextlib.ExitStack() as opened:

        def make(endpoint, connect_timeout=PATIENT):
            one = sockets.PeerSocket(
                context, endpoint, options(connect_timeout)
            )
            opened.callback(one.close)
            return one

        yield make


@pytest.fixture
def acceptor():
    """Give a factory of TCP servers that are none of ours."""
    with contextlib.ExitStack() as opened:

        def make(greet):
            listener = posix.socket()
            listener.bind(('127.0.0.1', 0))
            listener.listen(8)
            accepted = []

            def run():
                with contextlib.suppress(OSError):
                    while True:
                        one, _ = listener.accept()
                        accepted.append(one)
                        greet(one)

            thread = threading.Thread(target=run)
            thread.start()

            def end():
                listener.shutdown(posix.SHUT_RDWR)
                listener.close()
                thread.join(HANG)
                for one in accepted:
                    one.close()

            opened.callback(end)
            return listener.getsockname()[1], accepted

        yield make


def descriptors():
    return len(os.listdir('/proc/self/fd'))


def fails(one, match, within=HANG):
    begin = time.monotonic()
    with pytest.raises(errors.PeerNotReady, match=match):
        one.wait_connected(PATIENT)
    assert time.monotonic() - begin < within
    # The monitor may tell of the end before the socket has seen it.
    waiting.until(lambda: not one.connected(), 'end', HANG)
    with pytest.raises(errors.PeerNotReady):
        one.send([b'header', b'body'])


@pytest.mark.spec('LI-10')
@pytest.mark.parametrize(
    'host', ['127.0.0.1', 'localhost', '[::1]', '224.0.0.1']
)
def test_connection_that_cannot_be_made_ends_at_once(peer, host):
    if host == '[::1]' and not ports.has_ipv6():
        pytest.skip('this host has no address ::1')
    # A multicast group is not routable for TCP.
    one = peer(f'tcp://{host}:{ports.free()}')
    fails(one, 'nobody listens there, or the host cannot', PATIENT / 2)
    # It goes on saying so.
    fails(one, 'nobody listens there, or the host cannot', PATIENT / 2)


@pytest.mark.spec('LI-11')
def test_listener_that_closes_ends_at_once(peer, acceptor):
    port, _ = acceptor(lambda one: one.close())
    fails(peer(f'tcp://127.0.0.1:{port}'), 'no server of this', PATIENT / 2)


@pytest.mark.spec('LI-11')
def test_web_server_ends_at_once(peer, acceptor):
    def answer(one):
        one.recv(64)
        one.sendall(b'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n')
        one.shutdown(posix.SHUT_RDWR)

    port, _ = acceptor(answer)
    fails(peer(f'tcp://127.0.0.1:{port}'), 'no server of this', PATIENT / 2)


@pytest.mark.spec('LI-11')
@pytest.mark.parametrize('greeting', [b'', b'SSH-2.0-OpenSSH\r\n' * 4])
def test_listener_that_speaks_something_else_is_given_up(
    peer, acceptor, greeting
):
    port, accepted = acceptor(lambda one: one.sendall(greeting))
    one = peer(f'tcp://127.0.0.1:{port}')
    assert not one.wait_connected(0.2)
    assert not one.wait_connected(0.0)
    one.close()
    [other] = accepted
    other.settimeout(HANG)
    got = b''
    with contextlib.suppress(ConnectionError):
        while part := other.recv(4096):
            got += part
    # At most a greeting, and never a message.
    assert len(got) <= 64


@pytest.mark.spec('LI-11')
def test_silent_listener_is_given_up_after_connect_timeout(peer, acceptor):
    port, _ = acceptor(lambda one: None)
    one = peer(f'tcp://127.0.0.1:{port}', connect_timeout=0.1)
    fails(one, 'no server of this', PATIENT / 2)


def test_connected_socket_works(peer, server):
    one = peer(f'tcp://127.0.0.1:{server()}')
    assert one.wait_connected(HANG)
    assert one.wait_connected(0.0)
    assert one.connected()
    assert one.healthy()
    one.send([b'header', b'body'])


@pytest.mark.spec('LI-13')
def test_slices_of_waiting_add_up(peer, server, names):
    go = threading.Event()
    names['slow'] = lambda: go.wait(HANG) and ('127.0.0.1',)
    one = peer(f'tcp://slow:{server()}')
    assert not one.wait_connected(0.0)
    assert not one.wait_connected(0.01)
    assert not one.connected()
    go.set()
    waiting.until(lambda: one.wait_connected(0.001), 'connection', HANG)


@pytest.mark.spec('LI-12')
def test_name_without_an_address_ends_at_once(peer, names):
    fails(peer('tcp://nonsense:9501'), "'nonsense' has no add", PATIENT / 2)


@pytest.mark.spec('LI-12')
def test_silent_name_server_holds_up_nobody(peer, server, names):
    go = threading.Event()
    names['mute'] = lambda: go.wait(HANG) and ('127.0.0.1',)
    port = server()
    mute = peer(f'tcp://mute:{port}')
    assert not mute.wait_connected(0.01)
    other = peer(f'tcp://127.0.0.1:{port}')
    assert other.wait_connected(HANG)
    go.set()


@pytest.mark.spec('LI-13')
@pytest.mark.parametrize('host', ['127.0.0.2', '224.0.0.1', '[::1]'])
def test_next_address_is_tried_when_one_fails(peer, server, names, host):
    port = server()
    names['both'] = (host, '127.0.0.3', '127.0.0.1')
    one = peer(f'tcp://both:{port}')
    assert one.wait_connected(HANG)
    one.send([b'header', b'body'])
    assert one.healthy()


@pytest.mark.spec('LI-13')
def test_next_address_is_tried_when_one_is_silent(
    peer, server, acceptor, names
):
    port, accepted = acceptor(lambda one: None)
    # Another address of this host, the same port.
    server('127.0.0.2', port)
    names['both'] = ('127.0.0.1', '127.0.0.2')
    one = peer(f'tcp://both:{port}')
    assert one.wait_connected(HANG)
    assert len(accepted) == 1
    accepted[0].settimeout(HANG)
    # The first connection is closed before the second is made.
    with contextlib.suppress(ConnectionError):
        while accepted[0].recv(4096):
            pass


@pytest.mark.spec('LI-13')
def test_last_address_gets_all_the_time(peer, names):
    names['both'] = ('127.0.0.2', '127.0.0.3')
    one = peer(f'tcp://both:{ports.free()}')
    fails(one, 'nobody listens there', PATIENT / 2)


@pytest.mark.spec('LI-15')
def test_useless_addresses_are_forgotten(peer, server, names):
    port = server()
    names['moved'] = ('127.0.0.2',)
    fails(peer(f'tcp://moved:{port}'), 'nobody listens there')
    names['moved'] = ('127.0.0.1',)
    assert peer(f'tcp://moved:{port}').wait_connected(HANG)


@pytest.mark.spec('LI-14')
def test_used_socket_has_no_monitor(context, peer, server):
    port = server()
    first = peer(f'tcp://127.0.0.1:{port}')
    assert first.wait_connected(HANG)
    before = descriptors()
    more = [peer(f'tcp://127.0.0.1:{port}') for _ in range(4)]
    for one in more:
        assert one.wait_connected(HANG)
    # For each an eventfd, and both ends of its connection.
    waiting.until(lambda: descriptors() <= before + 4 * 3, 'end', HANG)


@pytest.mark.spec('LI-14')
@pytest.mark.parametrize('host', ['127.0.0.1', 'name'])
def test_socket_that_was_opened_ahead(context, peer, server, names, host):
    names['name'] = ('127.0.0.1',)
    # The addresses of a host that is connected to are known.
    context.resolver.lookup('name').wait(HANG)
    port = server()
    before = descriptors()
    one = peer(f'tcp://{host}:{port}')
    waiting.until(one.healthy, 'connection', HANG)
    one.send([b'header', b'body'])
    # The monitor has ended: an eventfd and both ends of the connection.
    waiting.until(lambda: descriptors() <= before + 3, 'end', HANG)


@pytest.mark.spec('LI-11')
def test_socket_that_was_opened_ahead_to_something_else(peer, acceptor, names):
    port, _ = acceptor(lambda one: one.sendall(b'SSH-2.0\r\n' * 8))
    one = peer(f'tcp://127.0.0.1:{port}')
    waiting.until(one.connected, 'what libzmq takes for a peer', HANG)
    assert not one.healthy()
    assert not peer(f'tcp://127.0.0.1:{ports.free()}').healthy()
    assert not peer('tcp://nonsense:9501').healthy()


@pytest.mark.spec('LI-14')
@pytest.mark.parametrize(
    'endpoint',
    ['tcp://127.0.0.1:1', 'tcp://mute:9501', 'tcp://silent:{port}'],
)
def test_socket_may_be_closed_at_any_time(context, acceptor, names, endpoint):
    go = threading.Event()
    port, _ = acceptor(lambda one: None)
    names['mute'] = lambda: go.wait(HANG) and ('127.0.0.1',)
    names['silent'] = ('127.0.0.1', '127.0.0.1')
    for waits in range(3):
        one = sockets.PeerSocket(
            context, endpoint.format(port=port), options()
        )
        for _ in range(waits):
            with contextlib.suppress(errors.PeerNotReady):
                one.wait_connected(0.01)
        one.close()
        one.close()
    go.set()
    # The fixtures see that the context ends and that nothing is left.


@pytest.mark.spec('LI-14')
def test_end_of_the_context_while_it_connects(acceptor):
    port, _ = acceptor(lambda one: None)
    context = context_.DriverContext('tests', 1, 8)
    one = sockets.PeerSocket(context, f'tcp://127.0.0.1:{port}', options())
    assert not context.close(clock.Deadline(0.01))
    assert not one.wait_connected(HANG)
    assert not one.connected()
    one.close()
    assert context.close(clock.Deadline(HANG))


@pytest.mark.spec('LI-14')
def test_bad_endpoint_leaves_no_socket(context):
    with pytest.raises(zmq.ZMQError):
        sockets.PeerSocket(context, 'tcp://127.0.0.1:x', options())


@pytest.mark.spec('LI-14')
@pytest.mark.parametrize('at', range(4))
def test_no_descriptor_is_left(context, names, monkeypatch, at):
    names['both'] = ('127.0.0.2', '127.0.0.3')
    original, opened = context.socket, []

    def socket(kind):
        opened.append(kind)
        if len(opened) > at:
            raise zmq.ZMQError(errno.EMFILE)
        return original(kind)

    monkeypatch.setattr(context, 'socket', socket)
    try:
        one = sockets.PeerSocket(
            context, f'tcp://both:{ports.free()}', options()
        )
    except zmq.ZMQError:
        return
    with pytest.raises(errors.PeerNotReady):
        one.wait_connected(HANG)
    one.close()


@pytest.mark.spec('LI-14')
def test_address_that_libzmq_does_not_take(context, peer, names):
    go = threading.Event()
    names['odd'] = lambda: go.wait(HANG) and ('no address',)
    one = peer('tcp://odd:9501')
    go.set()
    fails(one, 'cannot open a socket')
    # Now the addresses are known when the socket is made.
    context.resolver.lookup('odd').wait(HANG)
    with pytest.raises(zmq.ZMQError):
        peer('tcp://odd:9501')


def test_what_is_an_address():
    assert connecting._is_address('127.0.0.1')
    assert connecting._is_address('[::1]')
    assert not connecting._is_address('host')
    assert not connecting._is_address('1.2.3')
    assert not connecting._is_address('')


@pytest.mark.spec('NS-57')
@pytest.mark.parametrize('free', [0, connecting.SPARE_DESCRIPTORS - 1])
def test_nothing_is_connected_with_the_last_descriptors(monkeypatch, free):
    made = []
    original = os.eventfd

    def eventfd(*args):
        if len(made) >= free:
            raise OSError(errno.EMFILE, 'too many')
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(os, 'eventfd', eventfd)
    with pytest.raises(zmq.ZMQError) as caught:
        connecting._need_descriptors()
    assert caught.value.errno == errno.EMFILE
    # Those that were found are free again; a test sees what it leaves.
    assert len(made) == free
