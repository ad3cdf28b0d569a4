# SPDX-License-Identifier: Apache-2.0
"""Closes sockets, without the lock, and sees to it that their slots go on."""

import logging
import threading
from typing import Generic

from zmq_driver import clock as clocks
from zmq_driver.pool import allocator
from zmq_driver.pool import entry as entries
from zmq_driver.pool import events
from zmq_driver.pool import state as states
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

Entry = entries.PoolEntry

LOG = logging.getLogger(__name__)


class Closer(Generic[PeerT, SocketT]):
    """The way out of the pool, for entries that were set apart for it.

    Whatever a socket raises while it is closed, its slot comes free.

    Thread: any.
    """

    def __init__(
        self,
        lock: threading.Lock,
        desk: allocator.Allocator[PeerT, SocketT],
        announcer: events.Announcer,
        clock: clocks.Clock,
    ) -> None:
        """Close sockets for the pool whose parts these are."""
        self._lock = lock
        self._desk = desk
        self._books = desk.books
        self._announcer = announcer
        self._clock = clock
        #: Set when the pool is closing and its last entry has gone.
        self.drained = threading.Event()

    def finish(
        self, doomed: list[Entry[PeerT, SocketT]], owner: threading.Thread
    ) -> None:
        """Close RETIRING entries, and NEW ones that will not be opened.

        :param owner: the current thread, for which they were set apart
        """
        try:
            for entry in doomed:
                self._close_socket(entry, owner)
        except BaseException:
            # An interrupt; it can wait, for closing does not block.
            for entry in doomed:
                self._close_socket(entry, owner)
            raise
        finally:
            now = self._clock()
            with self._lock:
                self._books.holder = owner
                self._desk.bury_locked(doomed, now)
            self.signal_if_drained()
            for entry in doomed:
                self._tell_closed(entry)

    def replace(
        self, entry: Entry[PeerT, SocketT], owner: threading.Thread
    ) -> Entry[PeerT, SocketT] | None:
        """Close an IN_USE entry that is not fit to be lent.

        :param owner: the current thread, which owns it
        :returns: another entry for the same peer, IN_USE or NEW, or None if
            the pool is closing
        """
        now = self._clock()
        with self._lock:
            self._books.holder = owner
            self._books.totals.replaced += 1
            self._books.retire_locked(
                entry,
                owner,
                entry.reason or states.EvictReason.UNHEALTHY,
                now,
            )
        self._close_socket(entry, owner)
        self._tell_closed(entry)
        with self._lock:
            self._books.holder = owner
            found = self._desk.replace_locked(entry, owner, now)
        if found is None:
            self.signal_if_drained()
        return found

    def abort(
        self,
        entry: Entry[PeerT, SocketT] | None,
        waiter: object,
        owner: threading.Thread,
    ) -> None:
        """Give up what a failed or interrupted operation got hold of.

        :param entry: what it had, if it had got so far
        :param waiter: in whose name it waited, if it is a Waiter
        :param owner: the current thread, which was at it
        """
        now = self._clock()
        with self._lock:
            self._books.holder = owner
            doomed = self._desk.abort_locked(entry, waiter, owner, now)
        if doomed:
            self.finish(doomed, owner)

    def signal_if_drained(self) -> None:
        """Wake up those who wait for the end of the last entry, if it is."""
        if self._books.is_drained():
            self.drained.set()

    def _close_socket(
        self, entry: Entry[PeerT, SocketT], owner: threading.Thread
    ) -> None:
        socket, entry.socket = entry.socket, None
        if socket is None:
            return
        try:
            socket.hand_over(owner)
            socket.close()
        except Exception:
            LOG.exception('%r could not be closed', socket)

    def _tell_closed(self, entry: Entry[PeerT, SocketT]) -> None:
        # Without a reason, it never had a socket.
        if entry.reason is not None:
            self._announcer.tell(
                events.EventKind.CLOSED, entry.home.peer, entry.reason
            )
