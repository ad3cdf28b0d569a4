# SPDX-License-Identifier: Apache-2.0
"""Which descriptors a forked child closes, shown without a fork."""

import contextlib
import os
import pathlib
import socket as posix

import pytest

from zmq_driver import inherited


@pytest.fixture
def sockets():
    """Give an exit stack for sockets, some of which are closed meanwhile."""
    with contextlib.ExitStack() as stack:
        yield stack


def listening(stack, family, name):
    one = stack.enter_context(posix.socket(family, posix.SOCK_STREAM))
    one.bind(name)
    one.listen()
    return one


def connection(stack, family, listener, name=None):
    """Return both ends, that of the listener first."""
    client = stack.enter_context(posix.socket(family, posix.SOCK_STREAM))
    client.connect(name or listener.getsockname())
    accepted, _ = listener.accept()
    stack.enter_context(accepted)
    return accepted, client


def closed(*sockets):
    """Return which are closed; Python does not know of it."""
    found = []
    for one in sockets:
        try:
            os.fstat(one.fileno())
        except OSError:
            one.detach()
            found.append(one)
    return found


@pytest.mark.spec('LC-20')
def test_ipc_endpoint_and_its_connections(sockets, tmp_path):
    path = str(tmp_path / 'a.ipc')
    ours = listening(sockets, posix.AF_UNIX, path)
    accepted, client = connection(sockets, posix.AF_UNIX, ours)
    other = listening(sockets, posix.AF_UNIX, str(tmp_path / 'b.ipc'))
    pair = posix.socketpair()
    datagram = posix.socket(posix.AF_UNIX, posix.SOCK_DGRAM)
    everything = [ours, accepted, client, other, *pair, datagram]
    for one in everything:
        sockets.enter_context(one)
    with pathlib.Path(os.devnull).open() as file:
        assert inherited.close_sockets(f'ipc://{path}', '') == 2
        os.fstat(file.fileno())
    assert closed(*everything) == [ours, accepted]


@pytest.mark.spec('LC-20')
@pytest.mark.parametrize('spelling', ['127.0.0.1', '[::ffff:127.0.0.1]'])
def test_tcp_endpoint_at_an_address(sockets, spelling):
    ours = listening(sockets, posix.AF_INET, ('127.0.0.1', 0))
    port = ours.getsockname()[1]
    accepted, client = connection(sockets, posix.AF_INET, ours)
    # Another program part may have the port at another address.
    other = listening(sockets, posix.AF_INET, ('127.0.0.2', port))
    endpoint = f'tcp://{spelling}:{port}'
    assert inherited.close_sockets('ipc:///nowhere', endpoint) == 2
    assert closed(ours, accepted, client, other) == [ours, accepted]


@pytest.mark.spec('LC-20')
@pytest.mark.parametrize('spelling', ['[::ffff:0.0.0.0]', '[::]', '0.0.0.0'])
def test_tcp_endpoint_at_a_wildcard(sockets, spelling):
    ours = listening(sockets, posix.AF_INET, ('0.0.0.0', 0))
    port = ours.getsockname()[1]
    accepted, client = connection(
        sockets, posix.AF_INET, ours, ('127.0.0.1', port)
    )
    other = listening(sockets, posix.AF_INET, ('127.0.0.1', 0))
    endpoint = f'tcp://{spelling}:{port}'
    assert inherited.close_sockets('ipc:///nowhere', endpoint) == 2
    assert closed(ours, accepted, client, other) == [ours, accepted]


def test_interface_in_an_endpoint():
    assert (
        inherited.close_sockets('ipc:///nowhere', 'tcp://[fe80::1%lo]:1') == 0
    )


def test_socket_that_cannot_be_looked_at(sockets, tmp_path, monkeypatch):
    path = str(tmp_path / 'a.ipc')
    listening(sockets, posix.AF_UNIX, path)

    def refuse(fileno):
        raise OSError('of no kind that is known')

    monkeypatch.setattr(inherited.posix, 'socket', refuse)
    assert inherited.close_sockets(f'ipc://{path}', '') == 0


def test_system_without_proc(sockets, tmp_path, monkeypatch):
    path = str(tmp_path / 'a.ipc')
    listening(sockets, posix.AF_UNIX, path)

    def refuse(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(inherited.os, 'listdir', refuse)
    assert inherited.close_sockets(f'ipc://{path}', '') == 0
