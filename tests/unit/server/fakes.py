# SPDX-License-Identifier: Apache-2.0
"""What a listener and a channel stand on, without a network."""

import collections
import contextlib
import os
import threading

from zmq_driver import address
from zmq_driver import envelope
from zmq_driver.matchmaker import base
from zmq_driver.server import abandoned
from zmq_driver.server import recent
from zmq_driver.server import sink

RPC = address.Address(address.Scope.RPC, 'exchange', 'topic')
INFO = address.Address(address.Scope.NOTIFICATION, 'exchange', 'topic.info')
ERROR = address.Address(address.Scope.NOTIFICATION, 'exchange', 'topic.error')


def delivery(
    flags=envelope.WANT_REPLY,
    monitor_timeout=0.0,
    message=None,
    number=0,
    ttl=0.0,
):
    header = envelope.Header(
        envelope.Kind.REQUEST,
        number.to_bytes(16, 'big'),
        'exchange',
        'topic',
        'server',
        ttl=ttl,
        monitor_timeout=monitor_timeout,
        flags=flags,
        codec=envelope.CODEC_JSON,
    )
    return sink.Delivery(
        recent.Record(header.message_id, b'client'),
        header,
        b'[{}, {}]',
        {'user': 'u'},
        message or {'n': number},
    )


class Router:
    """Keeps what was sent, and tells a story of what was done."""

    endpoint = 'ipc:///tmp/member.ipc'
    tcp_endpoint = 'tcp://host:9501'

    def __init__(self):
        self.sent = []
        #: It answers notifications itself.
        self.settlement = self
        self.story = []
        self.abandoned = abandoned.Abandoned()
        self.detach_left = None

    def send(self, routing_id, header, body=b''):
        message = envelope.decode([header, body])
        self.sent.append((routing_id, message))

    def reply(self, record, header, body):
        self.send(record.routing_id, header, body)

    def acknowledge(self, record, header):
        ack = envelope.encode_ack(header.message_id)
        self.send(record.routing_id, ack)

    def turn_away(self, record, header, reason):
        nack = envelope.encode_nack(header.message_id, reason)
        self.send(record.routing_id, nack)

    def expire(self, record, message_id):
        nack = envelope.encode_nack(message_id, envelope.NackReason.EXPIRED)
        self.reply(record, nack, b'')

    def attach(self, sink):
        self.story.append('attach')

    def detach(self, sink, deadline):
        self.story.append('detach')
        self.detach_left = deadline.left()


class Registry:
    """A matchmaker that can be down, and slow."""

    def __init__(self, story, clock=None):
        self.story = story
        self.fails = set()
        self.slow = 0.0
        self.present = []
        self._clock = clock

    def register(self, registration, deadline):
        self._called('register', deadline)
        self.present.append(registration)

    def unregister(self, registration, deadline):
        self._called('unregister', deadline)
        self.present.remove(registration)

    def _called(self, name, deadline):
        self.story.append(name)
        if self._clock is not None:
            self._clock.tick(min(self.slow, deadline.left()))
        if name in self.fails:
            raise base.MatchmakerUnavailable('it is down')


class RouterSocket:
    """A ROUTER whose descriptor is edge-triggered, as that of libzmq is.

    The signal of a message is gone as soon as anybody uses the socket.
    """

    def __init__(self):
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._owner = threading.current_thread()
        self._lock = threading.Lock()
        self._arrived = collections.deque()
        self._raises = []
        self.sent = []
        self.senders = set()
        self.problems = []
        self.routable = True
        self.full = False
        self.closed = False
        self.waited_for_clients = False

    def arrive(self, frames):
        """Let a message come in, from the network."""
        self._arrived.append(frames)
        os.eventfd_write(self._fd, 1)

    def fail(self, error):
        self._raises.append(error)

    def hand_over(self, owner):
        self._owner = owner

    def fileno(self):
        return self._fd

    def readable(self):
        with self._use():
            self._swallow()
            return bool(self._arrived)

    def receive(self):
        with self._use():
            self._swallow()
            return self._arrived.popleft() if self._arrived else None

    def send(self, frames):
        with self._use():
            self._swallow()
            if self._raises:
                raise self._raises.pop()
            if self.full:
                return False
            self.sent.append(frames)
            self.senders.add(threading.current_thread())
            return self.routable

    def close(self, sending):
        with self._use():
            self.closed = True
            os.close(self._fd)

    def close_when_read(self, sending):
        self.waited_for_clients = True
        self.close(sending)

    def _swallow(self):
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def _use(self):
        return _Use(self)


class _Use:
    """Takes note when two threads use a socket at once."""

    def __init__(self, socket):
        self._socket = socket

    def __enter__(self):
        socket = self._socket
        if not socket._lock.acquire(blocking=False):
            socket.problems.append('used by two threads at once')
            socket._lock.acquire()
        if socket._owner is not threading.current_thread():
            socket.problems.append('used by a thread that does not own it')
        if socket.closed:
            socket.problems.append('used after its end')

    def __exit__(self, *args):
        self._socket._lock.release()
