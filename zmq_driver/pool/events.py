# SPDX-License-Identifier: Apache-2.0
"""What a pool tells a listener.

The listener is called on the thread that caused the event, after the pool
has released its lock: it may call the pool, and it may block only its own
thread. One thread's events arrive in their order; between threads there is
no order.
"""

from collections.abc import Callable
import enum
import logging
from typing import Any
from typing import NamedTuple

from zmq_driver.pool import state

LOG = logging.getLogger(__name__)


class EventKind(enum.Enum):
    """What can happen in a pool."""

    #: A socket was opened.
    OPENED = 'opened'
    #: A lease began.
    CHECKED_OUT = 'checked out'
    #: A lease ended.
    CHECKED_IN = 'checked in'
    #: A socket was closed; ``reason`` says why.
    CLOSED = 'closed'
    #: A peer was cleared.
    CLEARED = 'cleared'
    #: A checkout has to wait.
    WAITING = 'waiting'
    #: A lease has lasted for ``leak_after``.
    LEAKED = 'leaked'
    #: The pool lends nothing more.
    POOL_CLOSING = 'pool closing'
    #: The pool waits for nothing more.
    POOL_CLOSED = 'pool closed'


class PoolEvent(NamedTuple):
    """Something that happened in a pool."""

    #: The name of the pool.
    pool: str
    #: What happened.
    kind: EventKind
    #: To whom the socket is; None if it concerns the whole pool.
    peer: Any = None
    #: Why, if the kind is CLOSED.
    reason: state.EvictReason | None = None


#: Called with every event; what it raises is logged and ignored.
Listener = Callable[[PoolEvent], None]


class Announcer:
    """Tells the listener of a pool, if there is one.

    Thread: any.
    """

    __slots__ = ('_listener', '_pool')

    def __init__(self, pool: str, listener: Listener | None) -> None:
        """Tell *listener* of the pool called *pool*."""
        self._pool = pool
        self._listener = listener

    def __bool__(self) -> bool:
        """Return whether anybody listens."""
        return self._listener is not None

    def tell(
        self,
        kind: EventKind,
        peer: object = None,
        reason: state.EvictReason | None = None,
    ) -> None:
        """Call the listener, without any lock held."""
        if self._listener is None:
            return
        try:
            self._listener(PoolEvent(self._pool, kind, peer, reason))
        except Exception:
            LOG.exception('pool %s: the listener failed', self._pool)
