# SPDX-License-Identifier: Apache-2.0
"""What a process knows of the durable listener pools."""

from collections.abc import Collection
from collections.abc import Iterable
import logging
import threading
import time
from typing import NamedTuple

import cachetools

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import options as options_

LOG = logging.getLogger(__name__)

#: Seconds for which an answer is used again.
KNOWN_TTL = 1.0

#: Seconds between two times that a pool is written down; less if pools are
#: forgotten soon.
SEEN_TTL = 600.0

#: Addresses, and pools, that are remembered at once.
MAX_KNOWN = 4096


class Forgotten(NamedTuple):
    """A pool that was not seen for too long."""

    where: address.Address
    pool: str
    #: How many copies were dropped with it.
    dropped: int


class DurablePools:
    """Saves asking for the pools of an address, and writing them down.

    Thread: any.
    """

    def __init__(
        self,
        options: options_.Settings,
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Read the option ``notification_pool_retention``."""
        self._retention = options.notification_pool_retention
        self._lock = threading.Lock()
        self._known: cachetools.TTLCache[address.Address, frozenset[str]] = (
            cachetools.TTLCache(MAX_KNOWN, KNOWN_TTL, clock)
        )
        self._before: cachetools.LRUCache[address.Address, frozenset[str]] = (
            cachetools.LRUCache(MAX_KNOWN)
        )
        self._seen: cachetools.TTLCache[tuple[address.Address, str], int] = (
            cachetools.TTLCache(
                MAX_KNOWN, min(SEEN_TTL, self._retention / 4), clock
            )
        )

    def oldest(self) -> float:
        """Return since when a pool must have been seen to be remembered."""
        return time.time() - self._retention

    def known(self, where: address.Address) -> frozenset[str] | None:
        """Return the pools of an address; None: the store has to be asked."""
        with self._lock:
            return self._known.get(where)

    def known_before(self, where: address.Address) -> frozenset[str] | None:
        """Return the last answer of the store, and what was seen since."""
        with self._lock:
            return self._before.get(where)

    def learn(
        self, where: address.Address, pools: frozenset[str]
    ) -> frozenset[str]:
        """Keep an answer of the store, and return it."""
        with self._lock:
            self._known[where] = self._before[where] = pools
        return pools

    def unseen(
        self, where: address.Address, pools: Collection[str], generation: int
    ) -> list[str]:
        """Return the pools that are to be written down.

        :param generation: of the file; another one knows none of them
        """
        with self._lock:
            return [
                pool
                for pool in pools
                if self._seen.get((where, pool)) != generation
            ]

    def seen(
        self, where: address.Address, pools: Collection[str], generation: int
    ) -> None:
        """Remember that pools were written down."""
        with self._lock:
            for pool in pools:
                self._seen[where, pool] = generation
            self._known.pop(where, None)
            before = self._before.get(where)
            if before is not None:
                self._before[where] = before.union(pools)

    def log_forgotten(self, forgotten: Iterable[Forgotten]) -> None:
        """Tell which pools are forgotten, and what was lost with them."""
        for where, pool, dropped in forgotten:
            LOG.warning(
                'listener pool %r of %s was not seen for %g s '
                '(notification_pool_retention) and is forgotten, with the '
                'last %d notifications that waited for it',
                pool,
                where,
                self._retention,
                dropped,
            )
