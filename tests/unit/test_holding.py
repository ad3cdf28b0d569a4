# SPDX-License-Identifier: Apache-2.0
"""Which connections are kept open, and for how long."""

import contextlib
import os
import socket as posix

import pytest

from zmq_driver import clock
from zmq_driver import holding
from zmq_driver import inherited

pytestmark = pytest.mark.spec('LC-31')

HANG = 30.0


@pytest.fixture(autouse=True)
def read_time(monkeypatch):
    monkeypatch.setattr(holding, 'READ_TIME', 0.02)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'a.ipc')


@pytest.fixture
def ends(path):
    """Give a listener, and both ends of a connection to it."""
    with contextlib.ExitStack() as stack:
        listener = posix.socket(posix.AF_UNIX, posix.SOCK_STREAM)
        stack.enter_context(listener)
        listener.bind(path)
        listener.listen()
        client = posix.socket(posix.AF_UNIX, posix.SOCK_STREAM)
        stack.enter_context(client)
        client.connect(path)
        accepted, _ = listener.accept()
        stack.enter_context(accepted)
        yield listener, accepted, client


@pytest.fixture
def held(ends, path):
    held = holding.Held(f'ipc://{path}', '')
    yield held
    held.close()


def test_connection_outlives_the_one_who_made_it(ends, held, path):
    listener, accepted, client = ends
    client.setblocking(False)
    accepted.close()
    with pytest.raises(BlockingIOError):
        client.recv(1)
    held.close()
    assert client.recv(1) == b''
    # Nobody is to connect any more.
    listener.close()
    with (
        posix.socket(posix.AF_UNIX) as other,
        pytest.raises(ConnectionRefusedError),
    ):
        other.connect(path)


def test_wait_ends_when_the_client_has_taken_all(ends, held):
    _, accepted, client = ends
    accepted.send(b'last')
    slow = clock.Deadline(0.0)
    held.wait(slow)
    assert client.recv(4) == b'last'
    end = clock.Deadline(HANG)
    held.wait(end)
    assert not end.passed()


def test_client_has_a_moment_to_read(ends, held, monkeypatch):
    moment = clock.Deadline(0.3)
    monkeypatch.setattr(holding, 'READ_TIME', 0.3)
    held.wait(clock.Deadline(0.0))
    assert moment.passed()


def test_wait_ends_when_all_clients_have_closed(ends, held, monkeypatch):
    _, _, client = ends
    monkeypatch.setattr(holding, 'READ_TIME', 2 * HANG)
    end = clock.Deadline(HANG)
    client.close()
    held.wait(end)
    assert not end.passed()


def test_as_long_as_clients_close_the_others_may_read(path, ends, monkeypatch):
    """One of them closes right before each time that has passed."""
    listener, _, first = ends
    clients = [first]
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            clients.append(stack.enter_context(posix.socket(posix.AF_UNIX)))
            clients[-1].connect(path)
            stack.enter_context(listener.accept()[0])
        held = holding.Held(f'ipc://{path}', '')
        stack.callback(held.close)
        now = [0.0]
        deadline = clock.Deadline
        monkeypatch.setattr(
            holding.clock,
            'Deadline',
            lambda timeout: deadline(timeout, lambda: now[0]),
        )
        monkeypatch.setattr(holding, 'READ_TIME', 1.0)

        def sleep(_):
            now[0] += 0.9
            if len(clients) > 1:
                clients.pop().close()

        monkeypatch.setattr(holding.time, 'sleep', sleep)
        held.wait(holding.clock.Deadline(HANG))
    assert now[0] == pytest.approx(0.9 * 6)


def test_without_connections_nothing_is_waited_for(path, monkeypatch):
    monkeypatch.setattr(holding.time, 'sleep', None)
    held = holding.Held(f'ipc://{path}', '')
    held.wait(clock.Deadline(HANG))
    held.close()


def test_lack_of_descriptors_is_no_error(ends, path, monkeypatch):
    def refuse(fd):
        raise OSError(24, 'too many open files')

    monkeypatch.setattr(holding.os, 'dup', refuse)
    holding.Held(f'ipc://{path}', '').wait(clock.Deadline(HANG))
    monkeypatch.setattr(holding.os, 'listdir', refuse)
    holding.Held(f'ipc://{path}', '').wait(clock.Deadline(HANG))


def test_others_find_descriptors_too(ends, path, monkeypatch):
    listener, _, _ = ends
    with contextlib.ExitStack() as stack:
        for _ in range(9):
            client = stack.enter_context(posix.socket(posix.AF_UNIX))
            client.connect(path)
            stack.enter_context(listener.accept()[0])
        used = len(os.listdir('/proc/self/fd'))
        monkeypatch.setattr(
            holding.resource, 'getrlimit', lambda _: (used + 8, used + 8)
        )
        held = holding.Held(f'ipc://{path}', '')
        more = len(os.listdir('/proc/self/fd')) - used
        held.close()
        assert 2 <= more <= 4
        monkeypatch.setattr(holding.resource, 'getrlimit', lambda _: (-1, -1))
        held = holding.Held(f'ipc://{path}', '')
        assert len(os.listdir('/proc/self/fd')) - used == 10
        held.close()


def test_descriptor_that_became_something_else_is_let_go(
    ends, path, monkeypatch
):
    read, write = os.pipe()
    monkeypatch.setattr(inherited, 'find_sockets', lambda *_: iter([read]))
    before = len(os.listdir('/proc/self/fd'))
    holding.Held(f'ipc://{path}', '').wait(clock.Deadline(HANG))
    assert len(os.listdir('/proc/self/fd')) == before
    os.close(read)
    os.close(write)


def test_descriptor_that_cannot_tell_is_not_waited_for(ends, held):
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*args):
            raise OSError

        patch.setattr(holding.fcntl, 'ioctl', refuse)
        end = clock.Deadline(HANG)
        held.wait(end)
        assert not end.passed()
