# SPDX-License-Identifier: Apache-2.0
"""The states of an entry and of a pool, and every step between them.

What may follow what is written down here and nowhere else in the code; the
same tables are drawn in ``doc/specs/pool-lifecycle.rst``.
"""

from collections.abc import Mapping
import enum


class EntryState(enum.IntEnum):
    """Where an entry is in its life."""

    #: It has a slot, and its owner is to open its socket.
    NEW = 0
    #: Its socket is open and belongs to nobody.
    IDLE = 1
    #: Set aside, for a waiter that has not woken up yet or for the reaper.
    RESERVED = 2
    #: Its socket belongs to a borrower.
    IN_USE = 3
    #: Its socket is being closed; it still has its slot.
    RETIRING = 4
    #: The socket is closed and the slot is free.
    CLOSED = 5


class PoolState(enum.IntEnum):
    """Where a pool is in its life."""

    #: It lends sockets.
    OPEN = 0
    #: It lends nothing more, and waits for what is lent.
    CLOSING = 1
    #: It waits for nothing more.
    CLOSED = 2


class EvictReason(enum.Enum):
    """Why a socket was closed."""

    #: An exchange on it did not finish: a late reply may still arrive.
    UNFINISHED = 'unfinished'
    #: Its peer was cleared after it was opened.
    STALE = 'stale'
    #: It said of itself that it is of no more use.
    UNHEALTHY = 'unhealthy'
    #: Its slot was needed for another peer.
    SURPLUS = 'surplus'
    #: Nobody had used it for the idle TTL of the pool.
    IDLE = 'idle'
    #: It was older than a socket of its pool may be.
    AGE = 'age'
    #: The pool was closed.
    POOL_CLOSED = 'pool closed'


_E = EntryState

#: What an entry's state may be followed by.
TRANSITIONS: Mapping[EntryState, frozenset[EntryState]] = {
    _E.NEW: frozenset({_E.IN_USE, _E.IDLE, _E.RETIRING, _E.CLOSED}),
    _E.IDLE: frozenset({_E.RESERVED, _E.IN_USE, _E.RETIRING}),
    _E.RESERVED: frozenset({_E.IDLE, _E.IN_USE, _E.RETIRING}),
    _E.IN_USE: frozenset({_E.IDLE, _E.RETIRING}),
    _E.RETIRING: frozenset({_E.CLOSED}),
    _E.CLOSED: frozenset(),
}

#: What a pool's state may be followed by.
POOL_TRANSITIONS: Mapping[PoolState, frozenset[PoolState]] = {
    PoolState.OPEN: frozenset({PoolState.CLOSING}),
    PoolState.CLOSING: frozenset({PoolState.CLOSED}),
    PoolState.CLOSED: frozenset(),
}
