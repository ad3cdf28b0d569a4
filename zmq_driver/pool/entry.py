# SPDX-License-Identifier: Apache-2.0
"""What a pool holds: sockets, entries, and the entries of one peer."""

import collections
from collections.abc import Hashable
import math
import threading
import traceback
from typing import Generic
from typing import Protocol
from typing import TypeVar

from zmq_driver.pool import state


class PoolSocket(Protocol):
    """What a pool asks of a socket.

    Thread: owner only (checked).
    """

    def hand_over(self, owner: threading.Thread | None) -> None:
        """Make *owner* the only thread that may use the socket.

        The pool calls it outside its lock, with the lock between two owners.

        :param owner: the new owner, or None while the socket is idle
        """

    def healthy(self) -> bool:
        """Return whether the socket is fit for another lease.

        It is called by the owner and must not block.
        """

    def close(self) -> None:
        """Close the socket; called by the owner, once, and must not block."""


PeerT = TypeVar('PeerT', bound=Hashable)
SocketT = TypeVar('SocketT', bound=PoolSocket)


class PoolEntry(Generic[PeerT, SocketT]):
    """A slot of the pool, from the promise of a socket to its end.

    Thread: caller holds the pool lock.
    """

    __slots__ = (
        'born_at',
        'displaces',
        'expires_at',
        'generation',
        'heir',
        'held_at',
        'home',
        'idle_at',
        'owner',
        'reason',
        'socket',
        'stack',
        'state',
    )

    def __init__(
        self,
        home: 'PeerPool[PeerT, SocketT]',
        owner: threading.Thread,
        now: float,
    ) -> None:
        """Make an entry without a socket, in state NEW.

        :param home: the entries of its peer
        :param owner: the thread that is to open its socket
        :param now: seconds on the pool's clock
        """
        self.home = home
        self.state = state.EntryState.NEW
        #: None until its owner has opened it.
        self.socket: SocketT | None = None
        #: Stale when its home has a later one.
        self.generation = home.generation
        #: The thread that leases, opens or closes it; None while idle.
        self.owner: threading.Thread | None = owner
        #: When the owner got it, when its last lease ended, when it was made.
        self.held_at = now
        self.idle_at = now
        self.born_at = now
        #: When it is too old to be lent.
        self.expires_at = math.inf
        #: Who checked it out, if leaks are looked for; None once told.
        self.stack: traceback.StackSummary | None = None
        #: Why it is retired, once it is.
        self.reason: state.EvictReason | None = None
        #: The RETIRING entry that lent this one its slot: its socket is to be
        #: closed before this one's is opened. The other end is ``heir``.
        self.displaces: PoolEntry[PeerT, SocketT] | None = None
        self.heir: PoolEntry[PeerT, SocketT] | None = None

    def notice_time(self, now: float) -> None:
        """Count from *now* what began later, if the clock went back."""
        self.idle_at = min(self.idle_at, now)
        if self.born_at > now:
            self.expires_at -= self.born_at - now
            self.born_at = now


class PeerPool(Generic[PeerT, SocketT]):
    """The entries of one peer; it exists as long as there are any.

    Thread: caller holds the pool lock.
    """

    __slots__ = ('generation', 'idle', 'peer', 'size')

    def __init__(self, peer: PeerT) -> None:
        """Describe a peer that has no entries yet."""
        self.peer = peer
        #: One more with each clear().
        self.generation = 0
        #: Entries in any state but CLOSED.
        self.size = 0
        #: Idle entries, the most recently used last.
        self.idle: collections.deque[PoolEntry[PeerT, SocketT]] = (
            collections.deque()
        )
