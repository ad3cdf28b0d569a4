# SPDX-License-Identifier: Apache-2.0
"""Sockets for many messages at once, over real connections."""

import contextlib

import pytest
import zmq

from tests.fixtures import waiting
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import errors
from zmq_driver import socket_options
from zmq_driver import streaming

OPTIONS = socket_options.SocketOptions(
    heartbeat_interval=0.5,
    heartbeat_timeout=1.0,
    connect_timeout=5.0,
    linger=0.0,
    max_message_size=1000,
)


@pytest.fixture
def context():
    one = context_.DriverContext('unit', 1, 100)
    yield one
    one.close(clock.Deadline(30))


@pytest.fixture
def peer(context, tmp_path):
    """Give a ROUTER and its endpoint."""
    router = context.socket(zmq.ROUTER)
    endpoint = f'ipc://{tmp_path}/r'
    router.bind(endpoint)
    yield router, endpoint
    router.close(0)


@pytest.fixture
def stream(context, peer):
    one = streaming.StreamSocket(context, peer[1], OPTIONS)
    with contextlib.closing(one):
        assert one.wait_connected(30)
        yield one


@pytest.mark.spec('NS-58')
def test_heartbeats_go_beside_the_messages(stream, peer):
    router, _ = peer
    assert stream.connected()
    assert stream._socket.get(zmq.HEARTBEAT_IVL) == 0
    assert stream._pulse._socket.get(zmq.HEARTBEAT_IVL) == 500
    stream.send([b'header', b'body'])
    # Both connections are told of before.
    got = [router.recv_multipart()[1:] for _ in range(3)]
    assert sorted(got) == [[b''], [b''], [b'header', b'body']]


@pytest.mark.spec('NS-58')
@pytest.mark.parametrize('lost', ['_pulse', 'self'])
def test_one_that_is_lost_ends_both(stream, peer, lost):
    _router, endpoint = peer
    one = stream if lost == 'self' else stream._pulse
    one._socket.disconnect(endpoint)
    waiting.until(lambda: not stream.connected(), 'end')


@pytest.mark.spec('NS-58')
def test_nobody_is_there(context, tmp_path):
    one = streaming.StreamSocket(context, f'ipc://{tmp_path}/none', OPTIONS)
    with contextlib.closing(one), pytest.raises(errors.PeerNotReady):
        one.wait_connected(30)


@pytest.mark.spec('NS-57')
def test_no_descriptor_for_the_second_leaves_none(context, peer, monkeypatch):
    original, made = context.socket, []

    def fail(kind):
        if kind == zmq.DEALER:
            if made:
                raise zmq.ZMQError(24)
            made.append(original(kind))
            return made[0]
        return original(kind)

    monkeypatch.setattr(context, 'socket', fail)
    with pytest.raises(zmq.ZMQError):
        streaming.StreamSocket(context, peer[1], OPTIONS)
    assert made[0].closed
