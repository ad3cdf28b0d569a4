# SPDX-License-Identifier: Apache-2.0
"""The proxy does to connections what the laboratory asks it to."""

import contextlib
import socket as posix
import threading
import time

import pytest

from tests.fault import framing
from tests.fault import proxy
from tests.fixtures import waiting

#: Seconds; what takes longer hangs.
PATIENCE = 10.0

GREETING = bytes(framing.GREETING)


def frame(data, flags=0):
    if len(data) > 255:
        return bytes([flags | framing.LONG]) + len(data).to_bytes(8) + data
    return bytes([flags, len(data)]) + data


class Peer:
    """Accepts one connection after the other, and keeps what comes."""

    def __init__(self):
        self._listener = posix.create_server(('127.0.0.1', 0))
        self.address = self._listener.getsockname()
        self.connections = []
        self.received = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.received.append(b'')
            self.connections.append(connection)
            thread = threading.Thread(
                target=self._read,
                args=[connection, len(self.received) - 1],
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def _read(self, connection, number):
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.received[number] += data
        self.received[number] += b'END'

    def close(self):
        self._listener.shutdown(posix.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(posix.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for connection in self.connections:
            connection.close()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def between(peer):
    with posix.create_server(('127.0.0.1', 0)) as trial:
        listen = trial.getsockname()
    between = proxy.TcpProxy(listen, peer.address)
    yield between
    between.close()


@pytest.fixture
def connect(between):
    with contextlib.ExitStack() as stack:

        def connect():
            made = posix.create_connection(
                ('127.0.0.1', between.port), PATIENCE
            )
            stack.enter_context(made)
            return made

        yield connect


def got(peer, data, number=0):
    def look():
        return peer.received[number : number + 1] == [data]

    waiting.until(look, f'{data!r}, but {peer.received}', PATIENCE)


def ended(connection):
    """Return what came before the end of *connection*."""
    data = b''
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            data += part
    return data


@pytest.mark.spec('FL-10')
def test_passes_in_both_directions(peer, connect):
    one = connect()
    one.sendall(b'there')
    got(peer, b'there')
    peer.connections[0].sendall(b'back')
    assert one.recv(100) == b'back'
    one.close()
    got(peer, b'thereEND')


@pytest.mark.spec('FL-10')
def test_stops_and_goes_on(peer, connect, between):
    one = connect()
    one.sendall(b'1')
    got(peer, b'1')
    between.set_mode(proxy.Mode.STOP)
    one.sendall(b'2')
    peer.connections[0].sendall(b'back')
    another = connect()
    another.sendall(b'3')
    one.settimeout(0.2)
    with pytest.raises(TimeoutError):
        one.recv(100)
    assert peer.received[0] == b'1'
    assert peer.received[1:] in ([], [b''])
    between.set_mode(proxy.Mode.PASS)
    got(peer, b'12')
    got(peer, b'3', 1)
    assert one.recv(100) == b'back'


@pytest.mark.spec('FL-10')
def test_delays(peer, connect, between):
    one = connect()
    between.delay = 0.3
    start = time.monotonic()
    one.sendall(b'late')
    got(peer, b'late')
    assert time.monotonic() - start >= 0.3
    peer.connections[0].sendall(b'later')
    assert one.recv(100) == b'later'
    assert time.monotonic() - start >= 0.6


@pytest.mark.spec('FL-10')
def test_passes_on_what_came_before_the_end(peer, connect, between):
    one = connect()
    one.sendall(b'1')
    got(peer, b'1')
    between.delay = 0.2
    peer.connections[0].sendall(b'last words')
    peer.connections[0].shutdown(posix.SHUT_WR)
    assert ended(one) == b'last words'


@pytest.mark.spec('FL-10')
def test_refuses(peer, connect, between):
    one = connect()
    one.sendall(b'1')
    got(peer, b'1')
    between.set_mode(proxy.Mode.REFUSE)
    assert ended(one) == b''
    with pytest.raises(ConnectionRefusedError):
        connect()
    between.set_mode(proxy.Mode.PASS)
    connect().sendall(b'2')
    got(peer, b'2', 1)


@pytest.mark.spec('FL-10')
def test_accepts_without_a_word(peer, connect, between):
    one = connect()
    one.sendall(b'1')
    got(peer, b'1')
    between.set_mode(proxy.Mode.SILENT)
    assert ended(one) == b''
    silent = connect()
    silent.sendall(b'2')
    silent.settimeout(0.2)
    with pytest.raises(TimeoutError):
        silent.recv(100)
    assert len(peer.received) == 1
    between.set_mode(proxy.Mode.PASS)
    silent.settimeout(PATIENCE)
    assert ended(silent) == b''
    connect().sendall(b'3')
    got(peer, b'3', 1)


MESSAGE = frame(b'header', framing.MORE) + frame(b'body')

CUTS = {
    proxy.Cut.MID_FRAME: frame(b'header', framing.MORE)[:4],
    proxy.Cut.BETWEEN_FRAMES: frame(b'header', framing.MORE),
}


@pytest.mark.parametrize('where', proxy.Cut)
@pytest.mark.spec('FL-10')
def test_cuts_a_request(peer, connect, between, where):
    one = connect()
    begin = GREETING + frame(b'READY', framing.COMMAND)
    one.sendall(begin)
    got(peer, begin)
    between.cut(where, proxy.Direction.REQUEST)
    ping = frame(b'PING', framing.COMMAND)
    one.sendall(ping)
    got(peer, begin + ping)
    one.sendall(MESSAGE)
    got(peer, begin + ping + CUTS[where] + b'END')
    assert ended(one) == b''
    assert between.cuts == 1
    # What is opened after that lives.
    connect().sendall(GREETING + MESSAGE)
    got(peer, GREETING + MESSAGE, 1)


@pytest.mark.parametrize('where', proxy.Cut)
@pytest.mark.spec('FL-10')
def test_cuts_a_reply(peer, connect, between, where):
    one = connect()
    one.sendall(GREETING)
    got(peer, GREETING)
    peer.connections[0].sendall(GREETING)
    received = one.recv(100)
    assert received == GREETING
    between.cut(where, proxy.Direction.REPLY)
    one.sendall(MESSAGE)
    got(peer, GREETING + MESSAGE)
    peer.connections[0].sendall(MESSAGE)
    assert ended(one) == CUTS[where]


@pytest.mark.spec('FL-10')
def test_cuts_at_once(peer, connect, between):
    one = connect()
    one.sendall(b'1')
    got(peer, b'1')
    between.cut_now()
    assert ended(one) == b''
    got(peer, b'1END')


@pytest.mark.parametrize('size', [1, 2, 3, 7, 9, 64, 1000])
def test_frames_are_found_however_the_bytes_are_divided(size):
    long = b'x' * 700
    parts = [
        (b'READY', framing.COMMAND),
        (b'header', framing.MORE),
        (long, 0),
        (b'', 0),
        (b'end', 0),
    ]
    stream = GREETING + b''.join(frame(data, flags) for data, flags in parts)
    follower = framing.Framing()
    found = []
    for offset in range(0, len(stream), size):
        found += [
            (offset + one.start, offset + one.end, one.flags & ~framing.LONG)
            for one in follower.feed(stream[offset : offset + size])
        ]
    start = len(GREETING)
    for (begin, end, flags), (data, expected) in zip(
        found, parts, strict=True
    ):
        assert begin == start
        assert end == start + len(frame(data))
        assert flags == expected
        start = end
