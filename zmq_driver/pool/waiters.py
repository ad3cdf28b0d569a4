# SPDX-License-Identifier: Apache-2.0
"""The wait queue: who waits for a socket, and in which order."""

import collections
from collections.abc import Iterator
import threading
from typing import Generic

from zmq_driver.pool import entry as entries
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT


class Waiter(Generic[PeerT, SocketT]):
    """A thread that waits for an entry.

    It is offered at most one entry, and only while it is in the queue; it
    leaves the queue under the same lock. So an entry is never given to a
    thread that has stopped waiting.

    Thread: caller holds the pool lock, except where a method says otherwise.
    """

    __slots__ = ('_wake', 'entry', 'owner', 'peer', 'ticket')

    def __init__(self, peer: PeerT, owner: threading.Thread) -> None:
        """Describe a waiter that is in no queue yet.

        :param peer: to whom it wants a socket
        :param owner: the thread that waits
        """
        self.peer = peer
        self.owner = owner
        #: What it was given; None until then, and for ever if refused.
        self.entry: entries.PoolEntry[PeerT, SocketT] | None = None
        #: Its place among all waiters.
        self.ticket = 0
        self._wake = threading.Lock()
        self._wake.acquire()

    def offer(self, entry: entries.PoolEntry[PeerT, SocketT]) -> None:
        """Give it *entry* and wake it up."""
        self.entry = entry
        self._wake.release()

    def refuse(self) -> None:
        """Wake it up with empty hands."""
        self._wake.release()

    def wait(self, timeout: float) -> None:
        """Sleep until woken up; called by the waiting thread, without lock.

        :param timeout: at most so many seconds
        """
        self._wake.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))


class WaitQueue(Generic[PeerT, SocketT]):
    """Waiters in the order of their arrival, by peer.

    Thread: caller holds the pool lock.
    """

    __slots__ = ('_by_peer', '_size', '_tickets')

    def __init__(self) -> None:
        """Make an empty queue."""
        self._by_peer: dict[
            PeerT, collections.OrderedDict[int, Waiter[PeerT, SocketT]]
        ] = {}
        self._size = 0
        self._tickets = 0

    def __len__(self) -> int:
        return self._size

    def add(self, waiter: Waiter[PeerT, SocketT]) -> None:
        """Put *waiter* behind everybody else."""
        self._tickets += 1
        waiter.ticket = self._tickets
        queue = self._by_peer.setdefault(
            waiter.peer, collections.OrderedDict()
        )
        queue[waiter.ticket] = waiter
        self._size += 1

    def remove(self, waiter: Waiter[PeerT, SocketT]) -> bool:
        """Take *waiter* out.

        :returns: False if it was not in the queue (any more)
        """
        queue = self._by_peer.get(waiter.peer)
        if queue is None or queue.pop(waiter.ticket, None) is None:
            return False
        if not queue:
            del self._by_peer[waiter.peer]
        self._size -= 1
        return True

    def heads(self) -> Iterator[Waiter[PeerT, SocketT]]:
        """Yield the longest waiting waiter of each peer."""
        for queue in self._by_peer.values():
            yield next(iter(queue.values()))

    def drain(self) -> list[Waiter[PeerT, SocketT]]:
        """Take all waiters out, the longest waiting first."""
        waiters = [w for q in self._by_peer.values() for w in q.values()]
        self._by_peer.clear()
        self._size = 0
        return sorted(waiters, key=lambda waiter: waiter.ticket)
