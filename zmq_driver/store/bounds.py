# SPDX-License-Identifier: Apache-2.0
"""How much a store may hold, and what happens when it holds so much."""

from collections.abc import Iterable
import logging
import math
import sqlite3
import time

from zmq_driver import counters
from zmq_driver import options as options_
from zmq_driver.store import base
from zmq_driver.store import queries

LOG = logging.getLogger(__name__)

#: What SQLite can have in one row, in bytes, less what is there besides.
MAX_BODY = 999_000_000


class Bounds:
    """The bounds by count, size and age.

    Thread: any.
    """

    def __init__(self, options: options_.Settings, name: str) -> None:
        """Read the options.

        :param name: what the store is called in messages
        """
        self._name = name
        self.count = options.notification_store_max_count
        self.size = options.notification_store_max_size
        self.age = options.notification_store_max_age
        #: Whether the oldest make room for what is added.
        self.drops = options.notification_store_overflow == 'drop_oldest'
        self._log = counters.LimitedLog(LOG, logging.WARNING)

    def make_room(
        self, connection: sqlite3.Connection, queues: Iterable[int], size: int
    ) -> int:
        """Make room for one message, in the transaction that adds it.

        :param queues: those that get a copy
        :param size: bytes of its body
        :returns: how many copies were dropped for it
        :raises base.StoreFull: there is none; nothing was dropped
        """
        queues = set(queues)
        if size > min(self.size, MAX_BODY):
            raise self.full('notification_store_max_size')
        if len(queues) > self.count:
            raise self.full('notification_store_max_count')
        if self.age and not self.drops:
            self._check_age(connection, queues)
        dropped = 0
        while True:
            copies, used = connection.execute(
                'SELECT copies, size FROM total'
            ).fetchone()
            if copies + len(queues) > self.count:
                name = 'notification_store_max_count'
            elif used + size > self.size:
                name = 'notification_store_max_size'
            else:
                return dropped
            if not self.drops:
                raise self.full(name)
            dropped += queries.drop_oldest(connection, 1, math.inf)

    def _check_age(
        self, connection: sqlite3.Connection, queues: Iterable[int]
    ) -> None:
        old = time.time() - self.age
        for queue in queues:
            if queries.oldest(connection, queue) < old:
                raise self.full('notification_store_max_age')

    def too_old(self, now: float) -> float:
        """Return when what was stored earlier is to be dropped.

        :param now: seconds since the epoch
        :returns: likewise; -inf: nothing is
        """
        return now - self.age if self.age and self.drops else -math.inf

    def log_dropped(self, dropped: int) -> None:
        """Tell that something was dropped."""
        self._log(
            'the store of notifications %s dropped %d, the oldest, that no '
            'listener came for: see notification_store_max_count, _max_size, '
            '_max_age and notification_pool_retention',
            self._name,
            dropped,
        )

    def full(self, option: str) -> base.StoreFull:
        """Return the error that says which bound is reached."""
        bound = {
            'notification_store_max_count': self.count,
            'notification_store_max_size': self.size,
            'notification_store_max_age': self.age,
        }[option]
        return base.StoreFull(
            f'the store of notifications {self._name} is full: {option} is '
            f'{bound:g}; "zmq-driver notifications list" shows whom it '
            f'waits for'
        )
