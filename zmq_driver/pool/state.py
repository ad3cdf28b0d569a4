# SPDX-License-Identifier: Apache-2.0
"""The states of an entry and of a pool, and every step between them.

What may follow what is written down here and nowhere else in the code; the
same tables are drawn in ``doc/specs/pool-lifecycle.rst``.
"""

from collections.abc import Mapping
import enum


class EntryState(enum.IntEnum):
    """Where an entry is in its life.

    Thread: any.
    """

    #: It has a slot, and a borrower is opening its socket.
    NEW = 0
    #: Its socket is open and belongs to nobody.
    IDLE = 1
    #: Set aside, for a waiter that has not woken up yet.
    RESERVED = 2
    #: Its socket belongs to a borrower.
    IN_USE = 3
    #: Its socket is being closed; it still has its slot.
    RETIRING = 4
    #: The socket is closed and the slot is free.
    CLOSED = 5


class PoolState(enum.IntEnum):
    """Where a pool is in its life.

    Thread: any.
    """

    #: It leases sockets.
    OPEN = 0
    #: It leases nothing more and waits for the leases that are out.
    CLOSING = 1
    #: It waits for nothing more.
    CLOSED = 2


class EvictReason(enum.Enum):
    """Why a socket was closed.

    Thread: any.
    """

    #: An exchange on it did not finish: a late reply may still arrive.
    UNFINISHED = 'unfinished'
    #: Its peer was cleared after it was opened.
    STALE = 'stale'
    #: It said of itself that it is of no more use.
    UNHEALTHY = 'unhealthy'
    #: Its slot was needed for another peer.
    SURPLUS = 'surplus'
    #: The pool was closed.
    POOL_CLOSED = 'pool closed'


TRANSITIONS: Mapping[EntryState, frozenset[EntryState]] = {
    EntryState.NEW: frozenset(
        {
            EntryState.IN_USE,
            EntryState.RETIRING,
            EntryState.CLOSED,
        }
    ),
    EntryState.IDLE: frozenset(
        {
            EntryState.RESERVED,
            EntryState.IN_USE,
            EntryState.RETIRING,
        }
    ),
    EntryState.RESERVED: frozenset(
        {
            EntryState.IN_USE,
            EntryState.RETIRING,
        }
    ),
    EntryState.IN_USE: frozenset(
        {
            EntryState.IDLE,
            EntryState.RETIRING,
        }
    ),
    EntryState.RETIRING: frozenset({EntryState.CLOSED}),
    EntryState.CLOSED: frozenset(),
}

POOL_TRANSITIONS: Mapping[PoolState, frozenset[PoolState]] = {
    PoolState.OPEN: frozenset({PoolState.CLOSING}),
    PoolState.CLOSING: frozenset({PoolState.CLOSED}),
    PoolState.CLOSED: frozenset(),
}
