# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that misbehaves when it is asked to."""

import collections
import contextlib
import enum
import os
import selectors
import socket as posix
import struct
import threading
import time

from tests.fault import framing

CHUNK = 65536

#: Close with a reset: what a crashed host or a firewall sends.
_RESET = struct.pack('ii', 1, 0)

#: Seconds; the loop looks at its mode this often while nothing comes.
_LOOK = 0.005


class Mode(enum.Enum):
    """What happens to bytes and to new connections."""

    PASS = 'pass'
    #: Black hole: nothing passes, and goes on when it is passed again.
    STOP = 'stop'
    #: Connections are accepted and never served; old ones are cut.
    SILENT = 'silent'
    #: Nobody listens; old connections are cut.
    REFUSE = 'refuse'


class Cut(enum.Enum):
    """Where a connection is cut."""

    MID_FRAME = 'in the middle of a frame'
    BETWEEN_FRAMES = 'between two frames of a message'


class Direction(enum.Enum):
    """Whose bytes are meant."""

    REQUEST = 'request'
    REPLY = 'reply'


class TcpProxy:
    """Forwards from one address to another; `mode` and `delay` may change.

    Thread: any; the connections belong to the proxy's own thread.
    """

    def __init__(self, listen, target):
        """Listen at *listen* and forward to *target*: (host, port) each."""
        self._listen = listen
        self._target = target
        self._lock = threading.Lock()
        self._mode = Mode.PASS
        self._cut = None
        self._cut_now = False
        self._end = False
        #: Seconds that bytes are held in each direction.
        self.delay = 0.0
        #: Connections that were cut.
        self.cuts = 0
        self._selector = selectors.DefaultSelector()
        self._links = set()
        self._listener = None
        self._wake_end, self._wake = os.pipe()
        self._selector.register(self._wake_end, selectors.EVENT_READ, None)
        self._open()
        self._thread = threading.Thread(
            target=self._run, name=f'proxy-{listen[1]}', daemon=True
        )
        self._thread.start()

    @property
    def port(self):
        return self._listen[1]

    def set_mode(self, mode):
        """Go over to *mode*; it holds when this returns."""
        with self._lock:
            self._mode = mode
            self._cut = None
        self._kick()
        end = time.monotonic() + 5
        while self._applied is not mode:
            assert time.monotonic() < end, f'the proxy did not go to {mode}'
            time.sleep(0.002)

    def cut(self, where, direction):
        """Cut each connection at its next message in *direction*."""
        with self._lock:
            self._cut = (where, direction)
            # Those that exist; what is opened meanwhile lives.
            for link in list(self._links):
                link.armed = True

    def cut_now(self):
        """Cut all connections wherever they are."""
        with self._lock:
            self._cut_now = True
        self._kick()

    def close(self):
        self._end = True
        self._kick()
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self._wake)

    # -- the proxy's thread

    _applied = Mode.PASS

    def _kick(self):
        os.write(self._wake, b'x')

    def _run(self):
        try:
            while not self._end:
                for key, events in self._selector.select(_LOOK):
                    self._handle(key, events)
                self._apply()
                now = time.monotonic()
                for link in list(self._links):
                    self._advance(link, now)
        finally:
            for link in list(self._links):
                self._drop(link)
            self._close_listener()
            self._selector.close()
            os.close(self._wake_end)

    def _handle(self, key, events):
        if key.fileobj == self._wake_end:
            os.read(self._wake_end, 4096)
        elif key.data is None:
            self._accept()
        elif events & selectors.EVENT_READ and self._mode is Mode.PASS:
            self._read(*key.data)

    def _apply(self):
        with self._lock:
            mode, cut_now = self._mode, self._cut_now
            self._cut_now = False
        if mode is not self._applied:
            if mode in (Mode.SILENT, Mode.REFUSE):
                cut_now = True
            if mode is Mode.REFUSE:
                self._close_listener()
            elif self._listener is None:
                self._open()
            if self._applied is Mode.SILENT:
                cut_now = True
            for link in self._links:
                self._watch(link, mode is Mode.PASS)
        if cut_now:
            for link in list(self._links):
                self._drop(link)
        self._applied = mode

    def _open(self):
        self._listener = posix.create_server(self._listen, backlog=512)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _close_listener(self):
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        link = _Link(client)
        if self._mode is not Mode.SILENT:
            link.dial(self._target)
        self._links.add(link)
        self._watch(link, self._mode is Mode.PASS)

    def _watch(self, link, on):
        if on and not link.watched and link.server is not None:
            for source, direction in (
                (link.client, Direction.REQUEST),
                (link.server, Direction.REPLY),
            ):
                self._selector.register(
                    source, selectors.EVENT_READ, (link, direction)
                )
            link.watched = True
        elif not on and link.watched:
            self._unwatch(link)

    def _unwatch(self, link):
        for source in (link.client, link.server):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(source)
        link.watched = False

    def _read(self, link, direction):
        if link not in self._links:
            return
        stream = link.streams[direction]
        try:
            data = stream.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            link.dying = link.reset = True
            return
        if not data:
            # What came before is passed on before.
            link.dying = True
        if link.dying:
            return
        frames = stream.framing.feed(data)
        with self._lock:
            cut = self._cut
        if cut and link.armed and cut[1] is direction:
            end = _place(cut[0], frames, len(data))
            if end is not None:
                stream.queue.append((time.monotonic(), data[:end]))
                link.dying = True
                self.cuts += 1
                return
        stream.queue.append((time.monotonic() + self.delay, data))

    def _advance(self, link, now):
        if self._mode is not Mode.PASS or link.server is None:
            return
        if not link.established():
            if link.dying:
                self._drop(link)
            return
        for stream in link.streams.values():
            while stream.queue and stream.queue[0][0] <= now:
                due, data = stream.queue.popleft()
                try:
                    sent = stream.target.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._drop(link)
                    return
                if sent < len(data):
                    stream.queue.appendleft((due, data[sent:]))
                    break
        if link.dying and not any(s.queue for s in link.streams.values()):
            self._drop(link, link.reset)

    def _drop(self, link, reset=True):
        self._links.discard(link)
        if link.watched:
            self._unwatch(link)
        link.close(reset)


class Proxies:
    """The proxies of a server, one for each port: all do the same.

    Thread: any.
    """

    def __init__(self, listen_host, target_host, ports):
        """Forward *ports* of one host to those of another."""
        self._all = []
        try:
            for port in ports:
                self._all.append(
                    TcpProxy((listen_host, port), (target_host, port))
                )
        except BaseException:
            self.close()
            raise

    def set_mode(self, mode):
        for one in self._all:
            one.set_mode(mode)

    def set_delay(self, seconds):
        for one in self._all:
            one.delay = seconds

    def cut(self, where, direction):
        for one in self._all:
            one.cut(where, direction)

    def cut_now(self):
        for one in self._all:
            one.cut_now()

    @property
    def cuts(self):
        return sum(one.cuts for one in self._all)

    def close(self):
        for one in self._all:
            one.close()


def _place(where, frames, size):
    """Return where to cut *size* bytes; None: not among these."""
    for frame in frames:
        if not frame.is_message:
            continue
        if where is Cut.MID_FRAME:
            middle = (frame.start + frame.end) // 2
            if 0 < middle <= size:
                return middle
        elif where is Cut.BETWEEN_FRAMES and frame.has_more:
            return frame.end if frame.end <= size else None
    return None


class _Stream:
    """One direction of a connection.

    Thread: owner only.
    """

    def __init__(self, source, target):
        self.source = source
        self.target = target
        self.framing = framing.Framing()
        self.queue = collections.deque()


class _Link:
    """A connection on both sides of the proxy.

    Thread: the proxy's, except `armed`.
    """

    def __init__(self, client):
        self.client = client
        client.setblocking(False)
        self.server = None
        self.streams = {}
        self.watched = False
        self.armed = False
        #: To be dropped when what waits is sent, and how.
        self.dying = False
        self.reset = False
        self._established = False

    def dial(self, target):
        self.server = posix.socket(posix.AF_INET, posix.SOCK_STREAM)
        self.server.setblocking(False)
        for one in (self.client, self.server):
            one.setsockopt(posix.IPPROTO_TCP, posix.TCP_NODELAY, 1)
        self.server.connect_ex(target)
        self.streams = {
            Direction.REQUEST: _Stream(self.client, self.server),
            Direction.REPLY: _Stream(self.server, self.client),
        }

    def established(self):
        if not self._established:
            try:
                self.server.getpeername()
            except OSError:
                return False
            self._established = True
        return True

    def close(self, reset):
        for one in (self.client, self.server):
            if one is None:
                continue
            if reset:
                with contextlib.suppress(OSError):
                    one.setsockopt(posix.SOL_SOCKET, posix.SO_LINGER, _RESET)
            one.close()
