# SPDX-License-Identifier: Apache-2.0
"""The store that keeps nothing: without a listener, senders wait or fail."""

from collections.abc import Collection
from collections.abc import Sequence

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver.store import base


class NoStore(base.NotificationStore):
    """Refuses every message, and is always empty.

    Thread: any.
    """

    stores = False

    def add(
        self,
        where: address.Address,
        message_id: bytes,
        body: bytes,
        copies: Sequence[base.Copy],
        deadline: clocks.Deadline,
    ) -> None:
        """Refuse to store a message.

        :raises StoreUnavailable: always
        """
        raise base.StoreUnavailable(
            'notifications are not stored (notification_store is "none")'
        )

    def pools(self, where: address.Address) -> frozenset[str]:
        """Return that there is no durable pool."""
        return frozenset()

    def saw(self, where: address.Address, pools: Collection[str]) -> None:
        """Forget it again."""

    def pending(
        self, limit: int, after: int = 0, *, dead: bool = False
    ) -> list[base.Queue]:
        """Return no queue."""
        return []

    def take(
        self,
        queue: int,
        limit: int,
        after: int = 0,
        *,
        size: int = 2**24,
        held: bool = False,
    ) -> list[base.Stored]:
        """Return no copy."""
        return []

    def hold(self, keys: Sequence[base.Key], holder: base.Holder) -> None:
        """Do nothing: there is no copy."""

    def release(self, keys: Sequence[base.Key]) -> None:
        """Do nothing: there is no copy."""

    def done(self, keys: Sequence[base.Key]) -> None:
        """Do nothing: there is no copy."""

    def split(self, keys: Sequence[base.Key], pools: Collection[str]) -> None:
        """Do nothing: there is no copy."""

    def bury(self, keys: Sequence[base.Key]) -> None:
        """Do nothing: there is no copy."""

    def replay(self, queue: int, limit: int) -> int:
        """Return that there is no dead letter."""
        return 0

    def purge(self, queue: int, limit: int) -> int:
        """Return that there is no copy."""
        return 0

    def remove(self, queue: int) -> bool:
        """Return that there is no such queue."""
        return True

    def queues(self, limit: int, after: int = 0) -> list[base.Queue]:
        """Return no queue."""
        return []

    def counts(self) -> base.Counts:
        """Return that there is nothing."""
        return base.Counts(0, 0, 0)

    def changed(self) -> bool:
        """Return that nothing was added."""
        return False

    def claim(self) -> bool:
        """Return that there is nothing to drain."""
        return False

    def unclaim(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""
