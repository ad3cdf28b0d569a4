# SPDX-License-Identifier: Apache-2.0
"""The right to drain, which several processes have at a time."""

import os

from zmq_driver import clock as clocks
from zmq_driver.store.redis import access as access_
from zmq_driver.store.redis import draining
from zmq_driver.store.redis import rows

#: Drivers of a deployment that drain at once.
DRAINERS = 8

#: Seconds without renewal after which others take what a driver has.
TTL = 5.0

#: Seconds after which it is renewed.
RENEWAL = 1.0

#: Seconds that asking for it may take.
TIMEOUT = 2.0


class Lease:
    """One of a few leases, which ends unless it is renewed.

    Whoever has it is a consumer of the streams. If it ended, others may have
    what that consumer had; so it is never renewed then, and the next one is
    of another consumer.

    Thread: drain.
    """

    def __init__(
        self,
        access: access_.Access,
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Begin without one."""
        self._access = access
        self._clock = clock
        #: The name of the consumer; '': there is no lease.
        self.consumer = ''
        self._until = float('-inf')
        self._ended = False

    def take(self) -> bool:
        """Return whether there is one; ask for one, or renew it.

        :returns: False too if it has ended, until :meth:`leave` says that
            what was taken is given up
        :raises base.StoreUnavailable: Redis cannot be asked
        """
        if self._ended:
            return False
        now = self._clock()
        if self.consumer and now < self._until - TTL + RENEWAL:
            return True
        had = self.consumer
        consumer = had or os.urandom(8).hex()
        if not self._access.run(
            'find out who delivers what is stored',
            draining.LEASE,
            [consumer, self.ttl, DRAINERS, int(bool(had))],
            clocks.Deadline(TIMEOUT),
        ):
            self._ended = bool(had)
            return False
        self.consumer = consumer
        self.renewed(now)
        return True

    @property
    def ttl(self) -> int:
        """How long it lasts, in microseconds."""
        return rows.microseconds(TTL)

    def renewed(self, since: float) -> None:
        """Take note that it was renewed.

        :param since: before that was asked for
        """
        self._until = since + TTL

    def leave(self, deadline: clocks.Deadline) -> None:
        """Let somebody else have it; the next one is another one.

        :raises base.StoreUnavailable: it ends by itself
        """
        consumer, self.consumer = self.consumer, ''
        ended, self._ended = self._ended, False
        if consumer and not ended:
            self._access.run(
                'let another process deliver what is stored',
                draining.LEAVE,
                [consumer],
                deadline,
            )
