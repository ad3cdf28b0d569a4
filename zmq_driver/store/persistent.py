# SPDX-License-Identifier: Apache-2.0
"""What the stores have in common that keep anything."""

import abc
from collections.abc import Iterable
import logging

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver.store import base
from zmq_driver.store import bounds
from zmq_driver.store import durable

LOG = logging.getLogger(__name__)

#: Seconds for operations that have no deadline of their own.
TIMEOUT = 10.0

#: Seconds for those that a notifier waits for besides sending.
SHORT_TIMEOUT = 0.5

#: Seconds between two looks for what is too old.
TIDY_INTERVAL = 1.0


class PersistentStore(base.NotificationStore):
    """Has bounds and durable pools, and is tidied up now and then.

    Thread: any.
    """

    def __init__(self, settings: base.StoreSettings, name: str) -> None:
        """Keep *settings*; no input or output happens yet.

        :param name: what the store is called in messages
        """
        super().__init__(settings)
        self._bounds = bounds.Bounds(settings.options, name)
        self._durable = durable.DurablePools(settings.options)
        self._tidy_at = float('-inf')

    def pools(self, where: address.Address) -> frozenset[str]:
        """Return the durable pools of an address, as of a second ago.

        Those that were known last are better than none, if the store does
        not tell them: who is away must not be forgotten.
        """
        known = self._durable.known(where)
        if known is not None:
            return known
        before = self._durable.known_before(where)
        if before is not None and self._is_away():
            return before
        try:
            found = self._find_pools(where)
        except base.StoreError as error:
            if before is None:
                raise
            LOG.debug('listener pools of %s cannot be read: %s', where, error)
            return before
        return self._durable.learn(where, found)

    def pending(
        self, limit: int, after: int = 0, *, dead: bool = False
    ) -> list[base.Queue]:
        """Return queues that are not empty, by number."""
        if clocks.monotonic() >= self._tidy_at:
            self._tidy_at = clocks.monotonic() + TIDY_INTERVAL
            dropped, forgotten = self._tidy()
            self._count_dropped(dropped)
            self._durable.log_forgotten(forgotten)
        return self._list_pending(limit, after, dead)

    def _count_dropped(self, dropped: int) -> None:
        if dropped:
            self.settings.counters.add('notifications_dropped', dropped)
            self._bounds.log_dropped(dropped)

    def _is_away(self) -> bool:
        """Return whether asking the store just now is of no use."""
        return False

    @abc.abstractmethod
    def _find_pools(self, where: address.Address) -> frozenset[str]:
        """Ask the store for the durable pools of an address, shortly.

        :raises StoreUnavailable: it does not tell them
        """

    @abc.abstractmethod
    def _tidy(self) -> tuple[int, Iterable[durable.Forgotten]]:
        """Drop what is too old, and forget pools; a bounded step of it.

        :returns: how many copies were dropped; and which pools are forgotten
        """

    @abc.abstractmethod
    def _list_pending(
        self, limit: int, after: int, dead: bool
    ) -> list[base.Queue]:
        """Return queues that are not empty, by number."""
