# SPDX-License-Identifier: Apache-2.0
"""The store in Redis: streams with consumer groups, for many hosts."""

from collections.abc import Collection
from collections.abc import Sequence
import contextlib
from typing import Any

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import forgetting
from zmq_driver.matchmaker.redis import scripts as matchmaker_scripts
from zmq_driver.matchmaker.redis import targets
from zmq_driver.store import base
from zmq_driver.store import durable
from zmq_driver.store import persistent
from zmq_driver.store.redis import access as access_
from zmq_driver.store.redis import draining
from zmq_driver.store.redis import lease as lease_
from zmq_driver.store.redis import names
from zmq_driver.store.redis import rows
from zmq_driver.store.redis import scripts

#: Copies that are dropped at once because of their age.
TIDY_LIMIT = 1000

#: Seconds beyond its deadline for which a message is known that was added,
#: and those that this can be at most.
KNOWN_MARGIN = 2.0
KNOWN_MOST = 600.0


class RedisStore(persistent.PersistentStore):
    """Keeps notifications in the Redis by which listeners are found.

    Thread: any.
    """

    # Many may wait, and each asks.
    standby = 4.0

    # Who drains looks once a second.
    takeover = lease_.TTL + 2.0

    def __init__(self, settings: base.StoreSettings) -> None:
        """Keep *settings*; nothing connects yet."""
        options = settings.options
        if settings.matchmaker == 'sentinel':
            servers = targets.sentinel_group(settings.url, options)
        else:
            servers = targets.redis_server(settings.url, options)
        self._access = access_.Access(servers, options, settings.virtual_host)
        super().__init__(settings, str(self._access))
        self._lease = lease_.Lease(self._access)
        self._retention = options.notification_pool_retention
        self._added: tuple[int, int] | None = None
        self._epoch = 0
        # Queues that this driver may have taken something of.
        self._taken: set[int] = set()
        forgetting.in_children(self)

    def add(
        self,
        where: address.Address,
        message_id: bytes,
        body: bytes,
        copies: Sequence[base.Copy],
        deadline: clocks.Deadline,
    ) -> None:
        """Store a message for some listener pools, all of them or none.

        Doing it again a little later changes nothing.

        :raises StoreFull: at a bound, if that is to be refused
        :raises StoreAway: Redis does not answer
        :raises StoreUnavailable: Redis refuses
        """
        known = min(max(deadline.left(), 0) + KNOWN_MARGIN, KNOWN_MOST)
        arguments: list[access_.Argument] = [
            message_id,
            body,
            round(known * 1000),
            self._bounds.count,
            self._bounds.size,
            rows.microseconds(self._bounds.age),
            int(self._bounds.drops),
        ]
        for copy in copies:
            arguments.append(names.of_queue(where, copy.pool))
            arguments.append(names.of_holder(copy.holder))
        option, dropped = self._access.run(
            'store a notification', scripts.ADD, arguments, deadline
        )
        if option:
            raise self._bounds.full(option.decode())
        self.settings.counters.add('notifications_stored')
        self._count_dropped(dropped)

    def saw(self, where: address.Address, pools: Collection[str]) -> None:
        """Make pools durable, which have members now."""
        new = self._durable.unseen(where, pools, self._epoch)
        if not new:
            return
        if self._is_away():
            raise base.StoreAway(
                f'the store of notifications {self._access} is away'
            )
        self._epoch = int(
            self._run(
                'write down listener pools',
                scripts.SAW,
                [names.of_queue(where, pool) for pool in new],
                persistent.SHORT_TIMEOUT,
            )
        )
        self._durable.seen(where, new, self._epoch)

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
        consumer = self._lease.consumer
        if consumer:
            self._taken.add(queue)
        name, found = self._run(
            'read what is stored',
            draining.TAKE,
            [consumer, queue, limit, after, size, int(held)],
        )
        if not name:
            return []
        where, pool, _dead = names.queue(name)
        return [
            rows.stored(base.Key(queue, int(number)), where, pool, *rest)
            for number, *rest in found
        ]

    def put_back(self, queue: int) -> None:
        """Let others who drain have what this driver took of a queue."""
        if self._lease.consumer and queue in self._taken:
            given = access_.CHUNK
            while given == access_.CHUNK:
                given = self._run(
                    'give back what was taken',
                    draining.PUT_BACK,
                    [self._lease.consumer, queue, access_.CHUNK],
                )
            self._taken.discard(queue)

    def hold(self, keys: Sequence[base.Key], holder: base.Holder) -> None:
        """Write down who is about to be sent some copies."""
        self._run_all(
            'write down who gets what is stored',
            draining.HOLD,
            [self._lease.consumer, names.of_holder(holder)],
            keys,
        )

    def release(self, keys: Sequence[base.Key]) -> None:
        """Write down that the holder of these copies does not have them."""
        self._run_all(
            'write down who has refused what is stored',
            draining.RELEASE,
            [self._lease.consumer],
            keys,
        )

    def done(self, keys: Sequence[base.Key]) -> None:
        """Remove copies that a listener has processed."""
        self._run_all('remove what is delivered', scripts.DONE, [], keys)

    def split(self, keys: Sequence[base.Key], pools: Collection[str]) -> None:
        """Turn copies for whoever comes first into one for each pool."""
        found = sorted(set(pools))
        self._run_all(
            'share what is stored among listener pools',
            scripts.SPLIT,
            [self._lease.consumer, len(found), *map(names.of_pool, found)],
            keys,
        )

    def bury(self, keys: Sequence[base.Key]) -> None:
        """Make copies dead letters, which nobody is sent any more."""
        buried = self._run_all(
            'put dead letters aside',
            scripts.BURY,
            [self._lease.consumer],
            keys,
        )
        self.settings.counters.add('notifications_buried', sum(buried))

    def replay(self, queue: int, limit: int) -> int:
        """Make dead letters copies that wait again."""
        limit = min(limit, access_.CHUNK)
        return int(
            self._run('replay dead letters', scripts.REPLAY, [queue, limit])
        )

    def purge(self, queue: int, limit: int) -> int:
        """Drop the oldest copies of a queue; an operator asked for it."""
        limit = min(limit, access_.CHUNK)
        return int(
            self._run('drop what is stored', scripts.PURGE, [queue, limit])
        )

    def remove(self, queue: int) -> bool:
        """Forget an empty queue, and so a durable pool."""
        return bool(self._run('forget a pool', scripts.REMOVE, [queue]))

    def queues(self, limit: int, after: int = 0) -> list[base.Queue]:
        """Return all queues by number, empty and dead ones too."""
        return self._list('all', limit, after)

    def counts(self) -> base.Counts:
        """Return what the store holds, without counting it."""
        copies, dead, size = self._run('count', scripts.COUNTS, [])
        return base.Counts(int(copies) - int(dead), int(dead), int(size))

    def changed(self) -> bool:
        """Return whether something was added since the last question."""
        now = clocks.monotonic()
        epoch, added, lives = self._run(
            'see what is stored',
            draining.CHANGED,
            [self._lease.consumer, self._lease.ttl],
        )
        if lives:
            self._lease.renewed(now)
        self._epoch = int(epoch)
        mark = int(epoch), int(added)
        before, self._added = self._added, mark
        return mark != before

    def claim(self) -> bool:
        """Return whether this driver is one of those that drain."""
        return self._lease.take()

    def unclaim(self) -> None:
        """Let another one drain, and have what this one took."""
        self._taken.clear()
        with contextlib.suppress(base.StoreError):
            self._lease.leave(clocks.Deadline(persistent.SHORT_TIMEOUT))

    def close(self) -> None:
        """Close all connections; idempotent."""
        self.unclaim()
        self._access.close()

    def forget(self) -> None:
        """Let go of what a forked child inherited. Children do it by
        themselves.
        """
        self._lease.consumer = ''
        self._access.forget()

    def _run(
        self,
        what: str,
        script: matchmaker_scripts.Script,
        arguments: Sequence[access_.Argument],
        timeout: float = persistent.TIMEOUT,
    ) -> Any:
        return self._access.run(
            what, script, arguments, clocks.Deadline(timeout)
        )

    def _run_all(
        self,
        what: str,
        script: matchmaker_scripts.Script,
        arguments: Sequence[access_.Argument],
        keys: Sequence[base.Key],
    ) -> list[Any]:
        """Run a script for keys, in bounded pieces."""
        return [
            self._run(what, script, [*arguments, *some])
            for some in access_.chunks(keys)
        ]

    def _list(self, kind: str, limit: int, after: int) -> list[base.Queue]:
        found = self._run(
            'list what is stored', scripts.LIST, [kind, limit, after]
        )
        return [rows.queue(*row) for row in found if row[1]]

    def _is_away(self) -> bool:
        return self._access.is_away()

    def _find_pools(self, where: address.Address) -> frozenset[str]:
        epoch, found = self._run(
            'find the listener pools',
            scripts.POOLS,
            [names.of_address(where), rows.microseconds(self._retention)],
            persistent.SHORT_TIMEOUT,
        )
        self._epoch = int(epoch)
        return frozenset(map(names.pool, found))

    def _list_pending(
        self, limit: int, after: int, dead: bool
    ) -> list[base.Queue]:
        return self._list('dead' if dead else 'waiting', limit, after)

    def _tidy(self) -> tuple[int, list[durable.Forgotten]]:
        age = self._bounds.age if self._bounds.drops else 0
        dropped, forgotten = self._run(
            'drop what is too old',
            scripts.TIDY,
            [
                rows.microseconds(age),
                rows.microseconds(self._retention),
                TIDY_LIMIT,
            ],
        )
        return dropped, rows.forgotten(forgotten)
