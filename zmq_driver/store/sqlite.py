# SPDX-License-Identifier: Apache-2.0
"""The embedded store: one SQLite file for the processes of a host."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import hashlib
import sqlite3
import time
from typing import TypeVar

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import ipc
from zmq_driver.store import base
from zmq_driver.store import database
from zmq_driver.store import durable
from zmq_driver.store import persistent
from zmq_driver.store import queries
from zmq_driver.store import reserve
from zmq_driver.store import tidying
from zmq_driver.store import turn

T = TypeVar('T')

#: The file of ``zmq://`` without a virtual host; that of another deployment
#: has a few hex digits more.
_NAME = 'notifications.sqlite'
_PLAIN_SITE = 'local /'


def file_name(site: str) -> str:
    """Return the name of the file of a deployment."""
    if site == _PLAIN_SITE:
        return _NAME
    digest = hashlib.sha256(site.encode()).hexdigest()[:12]
    return f'notifications-{digest}.sqlite'


def _whole_site(settings: base.StoreSettings) -> str:
    """Return the site with the options that keep deployments apart too."""
    matchmaker = settings.site.partition(' ')[0]
    if matchmaker in ('redis', 'sentinel'):
        return f'{settings.site} {settings.options.redis_key_prefix}'
    if matchmaker == 'ring':
        return f'{settings.site} {settings.options.ringfile}'
    return settings.site


class SqliteStore(persistent.PersistentStore):
    """Keeps notifications in a file, which all processes of a host share.

    Thread: any.
    """

    # Messages are numbered, and have the same number in each queue.
    renumbers = False

    def __init__(self, settings: base.StoreSettings) -> None:
        """Keep *settings*; no input or output happens yet."""
        options = settings.options
        directory = settings.directory
        if options.notification_store_directory is not None:
            directory = ipc.IpcDirectory(options.notification_store_directory)
        site = _whole_site(settings)
        name = file_name(site)
        self._database = database.Database(
            directory,
            name,
            site,
            sync=options.notification_store_sync == 'full',
        )
        super().__init__(settings, self._database.file.name)
        self._turn: turn.Turn | None = None
        self._directory = directory
        self._added: tuple[int, int] | None = None

    def add(
        self,
        where: address.Address,
        message_id: bytes,
        body: bytes,
        copies: Sequence[base.Copy],
        deadline: clocks.Deadline,
    ) -> None:
        """Store a message for some listener pools, all of them or none.

        :raises StoreFull: at a bound, if that is to be refused
        :raises StoreUnavailable: it cannot be stored by the deadline
        :raises StoreUncertain: it may be stored, or not
        """

        def run(connection: sqlite3.Connection) -> int:
            reserve.check(self._database.file.path, len(body))
            queues = [
                queries.queue_of(connection, where, copy.pool)
                for copy in copies
            ]
            dropped = self._bounds.make_room(connection, queues, len(body))
            queries.insert(connection, message_id, body, copies, queues)
            return dropped

        dropped = self._database.write(run, deadline, len(body))
        self.settings.counters.add('notifications_stored')
        self._count_dropped(dropped)

    def saw(self, where: address.Address, pools: Collection[str]) -> None:
        """Make pools durable, which have members now."""
        new = self._durable.unseen(where, pools, self._database.generation)
        if not new:
            return

        def run(connection: sqlite3.Connection) -> None:
            for pool in new:
                queries.see(connection, where, pool)

        self._write(run, persistent.SHORT_TIMEOUT)
        self._durable.seen(where, new, self._database.generation)

    def take(
        self,
        queue: int,
        limit: int,
        after: int = 0,
        *,
        size: int = 2**24,
        held: bool = False,
    ) -> list[base.Stored]:
        """Return the oldest copies of a queue; they stay in it."""
        return self._database.read(
            lambda connection: queries.take(
                connection, queue, limit, after, size, held
            ),
            [],
        )

    def hold(self, keys: Sequence[base.Key], holder: base.Holder) -> None:
        """Write down who is about to be sent some copies."""
        self._write(lambda connection: queries.hold(connection, keys, holder))

    def release(self, keys: Sequence[base.Key]) -> None:
        """Write down that the holder of these copies does not have them."""
        self._write(lambda connection: queries.release(connection, keys))

    def done(self, keys: Sequence[base.Key]) -> None:
        """Remove copies that a listener has processed."""
        self._write(lambda connection: queries.delete(connection, keys))

    def split(self, keys: Sequence[base.Key], pools: Collection[str]) -> None:
        """Turn copies for whoever comes first into one for each pool."""
        names = sorted(set(pools))
        self._write(lambda connection: queries.split(connection, keys, names))

    def bury(self, keys: Sequence[base.Key]) -> None:
        """Make copies dead letters, which nobody is sent any more."""
        buried = self._write(lambda connection: queries.bury(connection, keys))
        self.settings.counters.add('notifications_buried', buried)

    def replay(self, queue: int, limit: int) -> int:
        """Make dead letters copies that wait again."""
        return self._write(
            lambda connection: queries.replay(connection, queue, limit)
        )

    def purge(self, queue: int, limit: int) -> int:
        """Drop the oldest copies of a queue; an operator asked for it."""
        return self._write(
            lambda connection: queries.purge(connection, queue, limit)
        )

    def remove(self, queue: int) -> bool:
        """Forget an empty queue, and so a durable pool."""
        return self._write(
            lambda connection: queries.remove(connection, queue)
        )

    def queues(self, limit: int, after: int = 0) -> list[base.Queue]:
        """Return all queues by number, empty and dead ones too."""
        return self._database.read(
            lambda connection: queries.queues(connection, limit, after), []
        )

    def counts(self) -> base.Counts:
        """Return what the store holds, without counting it."""
        return self._database.read(queries.counts, base.Counts(0, 0, 0))

    def changed(self) -> bool:
        """Return whether something was added since the last question."""
        added = self._database.read(queries.added, 0)
        mark = self._database.generation, added
        before, self._added = self._added, mark
        return mark != before

    def claim(self) -> bool:
        """Return whether this driver is the one that drains the store."""
        try:
            if self._turn is None:
                self._directory.prepare()
                path = self._database.file.path
                self._turn = turn.Turn(
                    path.removesuffix('.sqlite') + '.drain', self._directory
                )
            return self._turn.take()
        except (OSError, ipc.IpcDirectoryError) as error:
            raise base.StoreUnavailable(
                f'it cannot be found out who drains the store of '
                f'notifications: {error}'
            ) from error

    def unclaim(self) -> None:
        """Let another one drain; does nothing unless :meth:`claim` did."""
        if self._turn is not None:
            self._turn.leave()

    def close(self) -> None:
        """Close the file; idempotent."""
        self.unclaim()
        self._database.close()

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._database.forget()

    def _write(
        self,
        run: Callable[[sqlite3.Connection], T],
        timeout: float = persistent.TIMEOUT,
    ) -> T:
        return self._database.write(run, clocks.Deadline(timeout))

    def _find_pools(self, where: address.Address) -> frozenset[str]:
        since = self._durable.oldest()
        return self._database.read(
            lambda connection: queries.pools(connection, where, since),
            frozenset(),
            persistent.SHORT_TIMEOUT,
        )

    def _list_pending(
        self, limit: int, after: int, dead: bool
    ) -> list[base.Queue]:
        return self._database.read(
            lambda connection: queries.queues(
                connection, limit, after, pending=True, dead=dead
            ),
            [],
        )

    def _tidy(self) -> tuple[int, list[durable.Forgotten]]:
        """Drop what is too old, and give space back to the system."""
        if self._database.read(tidying.wastes_space, False):
            self._database.read(tidying.give_space_back, None)
        now = time.time()
        old = self._bounds.too_old(now)
        since = self._durable.oldest()
        if self._database.read(
            lambda connection: tidying.is_untidy(connection, old, since),
            False,
        ):
            return self._write(
                lambda connection: tidying.tidy(connection, old, since)
            )
        return 0, []
