# SPDX-License-Identifier: Apache-2.0
"""Servers that answer as a test says, reached over sockets that are none."""

import os

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import counters
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import pool
from zmq_driver.client import delivery
from zmq_driver.client import exchange
from zmq_driver.client import fanout
from zmq_driver.client import notifier
from zmq_driver.client import outbox
from zmq_driver.client import routing
from zmq_driver.client import rpc
from zmq_driver.client import sender
from zmq_driver.client import suspects
from zmq_driver.matchmaker import base
from zmq_driver.store import none

CONNECT_TIMEOUT = 2.0
RETRY_INTERVAL = 1.0
DIRECT_TIMEOUT = 0.05

WHERE = address.Address(address.Scope.RPC, 'exchange', 'topic')
NOTES = address.Address(address.Scope.NOTIFICATION, 'exchange', 'topic.info')
BODY = b'[{}, {"method": "m"}]'


def ack(header):
    return [(envelope.encode_ack(header.message_id), b'')]


def nack(reason):
    return lambda header: [
        (envelope.encode_nack(header.message_id, reason), b'')
    ]


def reply(body, failure=False):
    return lambda header: [
        (envelope.encode_reply(header.message_id, failure), body)
    ]


def silence(header):
    return []


class Peer:
    """A process with one listener."""

    def __init__(self, server, answer):
        self.route = address.Route(
            f'ipc:///tmp/{server}.ipc', os.urandom(16), server
        )
        #: Given a header, returns the messages that come back.
        self.answer = answer
        #: Whether new connections succeed, and old ones stand.
        self.connects = True
        #: Whether it says so when they do not.
        self.refuses = False
        #: How often somebody waited for a connection.
        self.attempts = 0
        self.stands = True
        #: Headers of what was sent here, with the time of sending.
        self.got = []

        #: Connections that were made before the last cut are gone.
        self.cuts = 0

    def die(self):
        self.connects = self.stands = False

    def cut(self):
        """Lose every connection; new ones can be made."""
        self.cuts += 1


class Socket:
    """What stands for a PeerSocket."""

    def __init__(self, world, peer):
        self.world = world
        self.peer = peer
        self.inbox = []
        self.closed = False
        self.used = False
        #: How often somebody tried to receive.
        self.looks = 0
        self._cuts = peer.cuts

    def hand_over(self, owner):
        pass

    def healthy(self):
        return self.connected() and not self.inbox

    def connected(self):
        return self.peer.stands and self.peer.cuts == self._cuts

    def wait_connected(self, timeout):
        self.peer.attempts += 1
        if self.peer.refuses:
            raise errors.PeerNotReady('nobody listens')
        if not self.peer.connects:
            self.world.tick(timeout)
        return self.peer.connects

    def send(self, frames):
        if not self.connected():
            raise errors.PeerNotReady('not connected')
        self.used = True
        header = envelope.decode(frames).header
        self.peer.got.append((self.world.clock(), header))
        self.inbox += self.peer.answer(header)

    def quiet(self):
        return self.connected() and not self.inbox

    def receive(self, timeout):
        self.looks += 1
        if self.inbox:
            return list(self.inbox.pop(0))
        self.world.tick(timeout)
        return None

    def close(self):
        self.closed = True


class Readiness:
    """What stands for a Readiness."""

    def __init__(self, world):
        self.world = world
        self.sockets = {}

    def add(self, owner, socket):
        self.sockets[owner] = socket

    def remove(self, owner):
        self.sockets.pop(owner, None)

    def wait(self, timeout):
        if not self.find():
            self.world.tick(timeout)
        return self.find()

    def find(self):
        return [o for o, s in self.sockets.items() if s.used and not s.quiet()]


class World:
    """Peers, a matchmaker and everything of the client."""

    def __init__(self, clock, store=None, **limits):
        self.clock = clock
        self.registered = []
        self.down = False
        self.lookups = 0
        self.invalidated = []
        self.slept = []
        self.sockets = []
        self._peers = {}
        self._events = []
        self.counters = counters.Counters()
        options = {'max_size': 8, 'max_per_peer': 4, 'max_waiters': 4}
        self.pool = pool.SocketPool(
            'fake',
            self._open,
            pool.PoolOptions(**{**options, **limits}),
            clock=clock,
        )
        self.suspects = suspects.Suspects(CONNECT_TIMEOUT, clock)
        self.routing = routing.Routing(
            self, RETRY_INTERVAL, self.sleep, self.suspects
        )
        self.sender = sender.Sender(
            self.pool,
            self.routing,
            self.counters,
            CONNECT_TIMEOUT,
            self.sleep,
        )
        self.delivery = delivery.Delivery(
            self.sender, self.routing, self.counters, self.sleep
        )
        ids = exchange.MessageIds()
        self.rpc = rpc.RpcClient(
            self.delivery,
            fanout.Fanout(
                self.sender,
                self.routing,
                self.counters,
                lambda: Readiness(self),
            ),
            ids,
            self.counters,
            [],
        )
        self.store = store or none.NoStore(None)
        self.outbox = outbox.Outbox('unit', self.store, lambda: None)
        # No thread: tests drain by hand.
        self.outbox.start = lambda: None
        self.notifier = notifier.Notifier(
            self.delivery,
            self.sender,
            self.routing,
            ids,
            self.outbox,
            DIRECT_TIMEOUT,
            clock,
        )

    def add(self, server, answer=ack):
        peer = Peer(server, answer)
        self._peers[peer.route.endpoint] = peer
        self.registered.append(peer.route)
        return peer

    def leave(self, peer):
        self.registered.remove(peer.route)

    def after(self, seconds, action):
        """Do something when the clock has moved on so far."""
        self._events.append((self.clock() + seconds, action))

    def tick(self, seconds):
        end = self.clock() + seconds
        for at, action in sorted(self._events, key=lambda event: event[0]):
            if at <= end:
                self._events.remove((at, action))
                self.clock.tick(max(0.0, at - self.clock()))
                action()
        self.clock.tick(max(0.0, end - self.clock()))

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.tick(seconds)

    def deadline(self, timeout=10.0):
        return clocks.Deadline(timeout)

    def attempts(self, retry=None, timeout=10.0):
        return self.delivery.attempts(retry, self.deadline(timeout))

    def count(self, name):
        return self.counters.snapshot()[name]

    # What the client needs of a matchmaker.

    def lookup(self, where, deadline):
        self.lookups += 1
        if self.down:
            raise base.MatchmakerUnavailable('it is down')
        return base.Routes(self.registered)

    def invalidate(self, where):
        self.invalidated.append(where)

    def _open(self, endpoint):
        socket = Socket(self, self._peers[endpoint])
        self.sockets.append(socket)
        return socket
