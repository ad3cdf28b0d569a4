# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows about keepalive, asked at its own sockets."""

import contextlib
import os
import socket as posix

import pytest
import zmq

from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import socket_options
from zmq_driver import sockets

HANG = 30

OPTIONS = {
    'heartbeat_interval': 0.5,
    'heartbeat_timeout': 1.0,
    'connect_timeout': 2.0,
    'linger': 0.0,
    'max_message_size': 4096,
}


def connections(port):
    """Return a copy of each connection of this process over *port*."""
    with contextlib.ExitStack() as opened:
        for entry in os.listdir('/proc/self/fd'):
            with contextlib.suppress(OSError):
                if not os.readlink(f'/proc/self/fd/{entry}').startswith('soc'):
                    continue
                one = posix.socket(fileno=os.dup(int(entry)))
                opened.enter_context(one)
                if port in (one.getsockname()[1], one.getpeername()[1]):
                    yield one


def asked(port):
    """Return what the kernel says about each end."""
    return [
        (
            one.getsockopt(posix.SOL_SOCKET, posix.SO_KEEPALIVE),
            one.getsockopt(posix.IPPROTO_TCP, posix.TCP_KEEPIDLE),
            one.getsockopt(posix.IPPROTO_TCP, posix.TCP_KEEPCNT),
            one.getsockopt(posix.IPPROTO_TCP, posix.TCP_KEEPINTVL),
        )
        for one in connections(port)
    ]


@pytest.fixture
def connected():
    """Give a function that connects two sockets, and returns the port."""
    with contextlib.ExitStack() as opened:

        def connect(keepalive):
            options = socket_options.SocketOptions(
                **OPTIONS, keepalive=keepalive
            )
            context = context_.DriverContext('tests', 1, 8)
            opened.callback(context.close, clock.Deadline(HANG))
            router = sockets.RouterSocket(
                context, 'tcp://127.0.0.1:*', options
            )
            opened.callback(router.close)
            endpoint = router._socket.get(zmq.LAST_ENDPOINT).decode()
            peer = sockets.PeerSocket(context, endpoint, options)
            opened.callback(peer.close)
            assert peer.wait_connected(HANG)
            peer.send([b'header', b'body'])
            waiting.until(router.receive, 'message', HANG)
            return int(endpoint.rpartition(':')[2])

        yield connect


def test_both_ends_are_probed_as_configured(connected):
    port = connected(
        socket_options.Keepalive(True, idle=11, count=4, interval=3)
    )
    assert asked(port) == [(1, 11, 4, 3)] * 2


def test_what_is_not_configured_is_the_system_s(connected):
    found = asked(connected(socket_options.Keepalive()))
    # A server looks for clients in any case: it sends no heartbeats.
    server = (1, 60, 6, 10)
    assert server in found
    found.remove(server)
    (system,) = found
    assert system[0] == 0
    port = connected(socket_options.Keepalive(True, idle=-1))
    assert asked(port) == [(1, *system[1:])] * 2
