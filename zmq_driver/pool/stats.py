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
    #: Checkouts given a socket that had served before.
    reused_total: int
    #: Of these, those whose socket was found unfit and replaced.
    replaced_total: int
    #: Sockets closed, by reason.
    closed_total: Mapping[state.EvictReason, int]
    #: Checkouts that had to wait.
    waits_total: int
    #: Seconds that ended waits have lasted, all together.
    wait_seconds_total: float
    #: Seconds of the longest wait that has ended.
    wait_seconds_max: float
    #: Waits that ended with a socket or the right to open one.
    handed_off_total: int
    #: Checkouts that ended with PoolTimeout, whether they waited or not.
    timeouts_total: int
    #: Of the sockets closed, those that the reaper closed.
    reaped_total: int

    @property
    def hit_ratio(self) -> float:
        """Of the leases, the share whose socket had been opened before.

        Between 0.0 and 1.0; 0.0 before the first lease. A low one means that
        sockets are closed too soon: ``max_size`` or ``idle_ttl`` is too small
        for the number of peers, or ``closed_total`` names another reason.
        """
        hits = self.reused_total - self.replaced_total
        leases = hits + self.created_total
        return hits / leases if leases else 0.0

    @property
    def wait_seconds_mean(self) -> float:
        """Seconds that a wait has lasted on average; 0.0 without waits.

        Threads that still wait are left out.
        """
        ended = self.waits_total - self.waiting
        return self.wait_seconds_total / ended if ended else 0.0


class Totals:
    """What a pool counts; the names are those of :class:`PoolStats`.

    Thread: caller holds the pool lock.
    """

    __slots__ = (
        'closed',
        'created',
        'handed_off',
        'reaped',
        'replaced',
        'reused',
        'timeouts',
        'wait_seconds',
        'wait_seconds_max',
        'waits',
    )

    def __init__(self) -> None:
        """Begin at zero."""
        self.created = 0
        self.reused = 0
        self.replaced = 0
        self.reaped = 0
        self.closed = dict.fromkeys(state.EvictReason, 0)
        self.waits = 0
        self.wait_seconds = 0.0
        self.wait_seconds_max = 0.0
        self.handed_off = 0
        self.timeouts = 0
