# SPDX-License-Identifier: Apache-2.0
"""Hearing from Redis that listeners joined or left an address."""

from collections.abc import Callable
import logging
import math
import threading
from typing import Any

import redis

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import threads
from zmq_driver.client import retry
from zmq_driver.matchmaker.redis import connections as connections_
from zmq_driver.matchmaker.redis import link as link_
from zmq_driver.matchmaker.redis import scripts

LOG = logging.getLogger(__name__)

#: Seconds after which a new address is subscribed to, and stop() is heard.
POLL = 0.2
#: Seconds of silence after which the connection is tested, and then closed.
SILENCE = 10.0
#: Seconds that connecting and logging in may take in total.
CONNECT_TIMEOUT = 5.0
#: Pauses between two attempts to connect, in seconds: the first, the longest.
PAUSES = (0.2, 5.0)
#: Addresses that nobody has asked Redis about for so long are not listened
#: to any more; in seconds. Those in use are asked about more often.
UNUSED = 600.0
#: Addresses that are listened to at once.
MAX_ADDRESSES = 10_000
#: Messages between two looks at what is wanted.
_BATCH = 1000
#: Channels in one command.
_CHUNK = 500
#: Seconds between two warnings.
WARNING_INTERVAL = 30.0

OnChanged = Callable[[address.Address], object]


class Watch:
    """A subscription to the changes of the addresses that were looked up.

    Messages can be lost; then the TTL of the cache rules. Whenever a
    subscription has begun, the address counts as changed.

    Thread: any.
    """

    def __init__(
        self,
        member: str,
        connections: connections_.Connections,
        keys: scripts.Keys,
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Subscribe to nothing yet."""
        self._member = member
        self._connections = connections
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threads.LazyThread('watch', member)
        self._wanted: dict[address.Address, float] = {}
        #: Called with each address that has changed.
        self.on_changed: OnChanged | None = None
        self._warn_at = -math.inf

    def want(self, where: address.Address) -> None:
        """Listen for changes of an address, if anybody wants to know."""
        if self.on_changed is None:
            return
        now = self._clock()
        with self._lock:
            if where in self._wanted or len(self._wanted) < MAX_ADDRESSES:
                self._wanted[where] = now
        if not self._stop.is_set():
            self._thread.start(self._run)

    def stop(self, deadline: clocks.Deadline) -> bool:
        """End; return whether it has ended."""
        self._stop.set()
        return self._thread.end(deadline)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stop.set()
        self._thread = threads.LazyThread('watch', self._member)
        self._wanted = {}

    def _run(self) -> None:
        backoff = retry.Backoff(*PAUSES)
        while not self._stop.is_set():
            subscription = _Subscription(self._keys, self._changed)
            try:
                self._listen(subscription)
            except redis.RedisError as exc:
                self._complain(exc)
            except Exception:
                LOG.exception('Listening for changes failed by a defect')
            if subscription.worked:
                backoff = retry.Backoff(*PAUSES)
            self._stop.wait(backoff.pause())

    def _listen(self, subscription: '_Subscription') -> None:
        """Listen until there is a reason to connect anew.

        :raises redis.RedisError: the connection broke
        """
        link = self._connections.connect(clocks.Deadline(CONNECT_TIMEOUT))
        heard_at = self._clock()
        tested = False
        try:
            while not self._stop.is_set():
                subscription.adjust(link, self._take_wanted())
                if link.wait(POLL):
                    for _ in range(_BATCH):
                        subscription.handle(link.receive())
                        if not link.wait(0.0):
                            break
                    heard_at, tested = self._clock(), False
                elif self._clock() - heard_at > SILENCE:
                    if tested:
                        raise redis.TimeoutError(f'{link.server} is silent')
                    link.send('PING')
                    heard_at, tested = self._clock(), True
                if link.server != self._connections.latest:
                    return  # Another Redis is the master now.
        finally:
            link.close()

    def _take_wanted(self) -> tuple[address.Address, ...]:
        """Return what to listen to, without what nobody uses."""
        oldest = self._clock() - UNUSED
        with self._lock:
            unused = [w for w, at in self._wanted.items() if at < oldest]
            for where in unused:
                del self._wanted[where]
            return tuple(self._wanted)

    def _changed(self, where: address.Address) -> None:
        if self.on_changed is not None:
            self.on_changed(where)

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        if now >= self._warn_at:
            self._warn_at = now + WARNING_INTERVAL
            LOG.warning(
                'Joins and leaves are not heard of until this is over, '
                'lookup_ttl bounds how late they are seen: %s',
                self._connections.unavailable('subscribe', error),
            )


class _Subscription:
    """What one connection is subscribed to.

    Thread: owner only.
    """

    def __init__(
        self,
        keys: scripts.Keys,
        on_changed: OnChanged,
    ) -> None:
        self._keys = keys
        self._on_changed = on_changed
        self._channels: dict[address.Address, bytes] = {}
        self._addresses: dict[bytes, address.Address] = {}
        self.worked = False

    def adjust(
        self, link: link_.Link, wanted: tuple[address.Address, ...]
    ) -> None:
        """Subscribe to what is new, and from the rest unsubscribe."""
        if wanted != tuple(self._channels):
            missing = [w for w in wanted if w not in self._channels]
            unused = set(self._channels).difference(wanted)
            for where in missing:
                channel = self._keys.channel(self._keys.name(where)).encode()
                self._channels[where] = channel
                self._addresses[channel] = where
            self._send(link, 'SUBSCRIBE', missing)
            self._send(link, 'UNSUBSCRIBE', list(unused))
            for where in unused:
                del self._addresses[self._channels.pop(where)]

    def handle(self, message: Any) -> None:
        """Tell of the change that a message is about."""
        if not isinstance(message, list) or len(message) < 2:
            return
        kind, channel = message[0], message[1]
        if kind in (b'subscribe', b'message') and channel in self._addresses:
            self.worked = True
            self._on_changed(self._addresses[channel])

    def _send(
        self, link: link_.Link, command: str, places: list[address.Address]
    ) -> None:
        for start in range(0, len(places), _CHUNK):
            part = places[start : start + _CHUNK]
            link.send(command, *(self._channels[where] for where in part))
