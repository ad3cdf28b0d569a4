# SPDX-License-Identifier: Apache-2.0
"""The figures of a pool at one moment."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from zmq_driver.pool import state


def _figure(text: str) -> Any:
    """Return a field that says what it is."""
    return dataclasses.field(metadata={'help': text})


@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot, taken under the lock, so that its figures agree.

    Fields that end in ``_total`` only ever grow; :data:`FIGURES` says what
    each field is.

    Thread: any.
    """

    peers: int = _figure('Peers to which there is a socket.')
    opening: int = _figure('Slots whose socket is being opened.')
    idle: int = _figure('Open sockets that nobody uses.')
    reserved: int = _figure(
        'Open sockets promised to a thread that has not woken up yet, and '
        'the one that the reaper looks at.'
    )
    in_use: int = _figure('Leased sockets.')
    retiring: int = _figure('Sockets that are being closed.')
    waiting: int = _figure('Threads that wait for a socket.')
    created_total: int = _figure('Sockets opened.')
    warmed_total: int = _figure(
        'Of the sockets opened, those opened ahead, for min_idle.'
    )
    reconnects_total: int = _figure(
        'Of the sockets opened, those to a peer to which the connection had '
        'been lost.'
    )
    recycled_total: int = _figure(
        'Leases after which the socket was kept for another.'
    )
    reused_total: int = _figure(
        'Checkouts given a socket that had been opened before.'
    )
    replaced_total: int = _figure(
        'Of these, those whose socket was found unfit and replaced.'
    )
    closed_total: Mapping[state.EvictReason, int] = _figure(
        'Sockets closed, by reason.'
    )
    reaped_total: int = _figure(
        'Of the sockets closed, those that the reaper closed.'
    )
    waits_total: int = _figure('Checkouts that had to wait.')
    wait_seconds_total: float = _figure(
        'Seconds that ended waits have lasted, all together.'
    )
    wait_seconds_max: float = _figure(
        'Seconds of the longest wait that has ended.'
    )
    handed_off_total: int = _figure(
        'Waits that ended with a socket or the right to open one.'
    )
    timeouts_total: int = _figure(
        'Checkouts that ended with PoolTimeout, whether they waited or not.'
    )
    refused_total: int = _figure('Checkouts that ended with TooManyWaiters.')

    @property
    def hit_ratio(self) -> float:
        """Of the leases, the share whose socket had been opened before.

        Between 0.0 and 1.0; 0.0 before the first lease. A low one means that
        sockets are closed too soon: ``max_size`` or ``idle_ttl`` is too small
        for the number of peers, or ``closed_total`` names another reason.
        """
        hits = self.reused_total - self.replaced_total
        leases = hits + self.created_total - self.warmed_total
        return hits / leases if leases else 0.0

    @property
    def wait_seconds_mean(self) -> float:
        """Seconds that a wait has lasted on average; 0.0 without waits.

        Threads that still wait are left out.
        """
        ended = self.waits_total - self.waiting
        return self.wait_seconds_total / ended if ended else 0.0


#: What each figure of a snapshot is, by name.
FIGURES: Mapping[str, str] = {
    field.name: field.metadata['help']
    for field in dataclasses.fields(PoolStats)
} | {
    'hit_ratio': 'Of the leases, the share whose socket was open before.',
    'wait_seconds_mean': 'Seconds that an ended wait has lasted on average.',
}


class Totals:
    """What a pool counts; the names are those of :class:`PoolStats`.

    Thread: caller holds the pool lock.
    """

    __slots__ = (
        'closed',
        'created',
        'handed_off',
        'reaped',
        'reconnects',
        'recycled',
        'refused',
        'replaced',
        'reused',
        'timeouts',
        'wait_seconds',
        'wait_seconds_max',
        'waits',
        'warmed',
    )

    def __init__(self) -> None:
        """Begin at zero."""
        self.created = 0
        self.warmed = 0
        self.reconnects = 0
        self.recycled = 0
        self.reused = 0
        self.replaced = 0
        self.reaped = 0
        self.closed = dict.fromkeys(state.EvictReason, 0)
        self.waits = 0
        self.wait_seconds = 0.0
        self.wait_seconds_max = 0.0
        self.handed_off = 0
        self.timeouts = 0
        self.refused = 0
