# SPDX-License-Identifier: Apache-2.0
"""The figures of a pool at one moment."""

from collections.abc import Mapping
import dataclasses

from zmq_driver.pool import state


@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot, taken under the lock, so that its figures agree.

    Fields that end in ``_total`` only ever grow.

    Thread: any.
    """

    #: Peers to which there is a socket.
    peers: int
    #: Slots whose socket is being opened.
    opening: int
    #: Open sockets that nobody uses.
    idle: int
    #: Open sockets promised to a waiter that has not woken up yet, and the
    #: one that the reaper looks at.
    reserved: int
    #: Leased sockets.
    in_use: int
    #: Sockets that are being closed.
    retiring: int
    #: Threads that wait for a socket.
    waiting: int
    #: Sockets opened.
    created_total: int
    #: Leases given a socket that had served before, those included whose
    #: socket was then found unhealthy or too old.
    reused_total: int
    #: Sockets closed, by reason.
    closed_total: Mapping[state.EvictReason, int]
    #: Checkouts that had to wait.
    waits_total: int
    #: Seconds that ended waits have lasted, all together.
    wait_seconds_total: float
    #: Waits that ended with a socket or the right to open one.
    handed_off_total: int
    #: Checkouts that ended with PoolTimeout, whether they waited or not.
    timeouts_total: int
    #: Of the sockets closed, those that the reaper closed.
    reaped_total: int


class Totals:
    """What a pool counts; the names are those of :class:`PoolStats`.

    Thread: caller holds the pool lock.
    """

    __slots__ = (
        'closed',
        'created',
        'handed_off',
        'reaped',
        'reused',
        'timeouts',
        'wait_seconds',
        'waits',
    )

    def __init__(self) -> None:
        """Begin at zero."""
        self.created = 0
        self.reused = 0
        self.reaped = 0
        self.closed = dict.fromkeys(state.EvictReason, 0)
        self.waits = 0
        self.wait_seconds = 0.0
        self.handed_off = 0
        self.timeouts = 0
