# SPDX-License-Identifier: Apache-2.0
"""Tells of leases that last for too long, and of who took them."""

import logging
import sys
import threading
import traceback
from typing import Generic
from typing import NamedTuple

from zmq_driver import clock as clocks
from zmq_driver.pool import entry as entries
from zmq_driver.pool import events
from zmq_driver.pool import ledger
from zmq_driver.pool import state as states
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT

LOG = logging.getLogger(__name__)

#: Of the borrower's stack, the innermost frames are kept.
MOST_FRAMES = 30


def caller_stack() -> traceback.StackSummary:
    """Return the stack of the caller's caller, whose source is not read yet.

    That is who called the pool.
    """
    return traceback.StackSummary.extract(
        traceback.walk_stack(sys._getframe(2)),
        limit=MOST_FRAMES,
        lookup_lines=False,
    )


class _Leak(NamedTuple):
    peer: object
    owner: threading.Thread | None
    age: float
    stack: traceback.StackSummary


class LeakDetector(Generic[PeerT, SocketT]):
    """Looks for leases that last for longer than ``leak_after``.

    Thread: any.
    """

    def __init__(
        self,
        pool: str,
        leak_after: float,
        lock: threading.Lock,
        books: ledger.Ledger[PeerT, SocketT],
        announcer: events.Announcer,
        clock: clocks.Clock,
    ) -> None:
        """Look through the books of the pool called *pool*.

        :param leak_after: seconds; 0 finds nothing
        """
        self._pool = pool
        self._leak_after = leak_after
        self._lock = lock
        self._books = books
        self._announcer = announcer
        self._clock = clock

    def tell(self) -> int:
        """Log each such lease, unless that was done before.

        :returns: how many were found
        """
        if not self._leak_after:
            return 0
        now = self._clock()
        with self._lock:
            self._books.holder = threading.current_thread()
            found = self._take_locked(now)
        for leak in found:
            owner = 'nobody' if leak.owner is None else leak.owner.name
            LOG.warning(
                'pool %s: the socket to %r has been held by %s for %.3f s; '
                'it was checked out by:\n%s',
                self._pool,
                leak.peer,
                owner,
                leak.age,
                ''.join(reversed(leak.stack.format())),
            )
            self._announcer.tell(events.EventKind.LEAKED, leak.peer)
        return len(found)

    def _take_locked(self, now: float) -> list[_Leak]:
        """Return what is to be told of, and forget the stacks."""
        self._books.check_held()
        found = []
        for entry in self._books.entries:
            if self._has_leaked(entry, now) and entry.stack is not None:
                age = now - entry.held_at
                found.append(
                    _Leak(entry.home.peer, entry.owner, age, entry.stack)
                )
                entry.stack = None
        return found

    def _has_leaked(
        self, entry: entries.PoolEntry[PeerT, SocketT], now: float
    ) -> bool:
        return (
            entry.state is states.EntryState.IN_USE
            and now - entry.held_at >= self._leak_after
        )
