# SPDX-License-Identifier: Apache-2.0
"""A store in memory, which can fail and lose its turn."""

import itertools

from zmq_driver.store import base
from zmq_driver.store import none


class MemoryStore(none.NoStore):
    """Keeps copies as they were stored; tells what was asked of it."""

    stores = True

    def __init__(self):
        self.durable = {}
        self.rows = {}
        self.dead = []
        self.held = []
        self.released = []
        self.put_backs = []
        self.fails = set()
        self.failure = base.StoreUnavailable
        self.mine = True
        self.asked = 0
        self._queues = []
        self._numbers = 0
        self._added = 0
        self._told = -1

    def _may_fail(self, name):
        self.asked += 1
        if name in self.fails:
            raise self.failure(f'{name} fails')

    def _queue(self, where, pool):
        if (where, pool) not in self._queues:
            self._queues.append((where, pool))
        return self._queues.index((where, pool)) + 1

    def add(self, where, message_id, body, copies, deadline):
        self._may_fail('add')
        for copy in copies:
            self._insert(where, message_id, body, copy)

    def _insert(self, where, message_id, body, copy):
        self._numbers += 1
        self._added += 1
        key = base.Key(self._queue(where, copy.pool), self._numbers)
        self.rows[key] = base.Stored(
            key, message_id, where, copy.pool, body, 0.0, 0, copy.holder
        )
        if copy.pool is not None:
            self.durable.setdefault(where, set()).add(copy.pool)

    def put_back(self, queue):
        self._may_fail('put_back')
        self.put_backs.append(queue)

    def pools(self, where):
        self._may_fail('pools')
        return frozenset(self.durable.get(where, ()))

    def saw(self, where, pools):
        self._may_fail('saw')
        self.durable.setdefault(where, set()).update(pools)

    def pending(self, limit, after=0, *, dead=False):
        self._may_fail('pending')
        numbers = sorted({key.queue for key in self.rows if key.queue > after})
        return [
            base.Queue(
                number,
                *self._queues[number - 1],
                False,
                sum(key.queue == number for key in self.rows),
                0.0,
                0.0,
            )
            for number in numbers[:limit]
        ]

    def take(self, queue, limit, after=0, *, size=2**24, held=False):
        self._may_fail('take')
        found = [
            self.rows[key]
            for key in sorted(self.rows)
            if key.queue == queue
            and key.number > after
            and (self.rows[key].holder is not None or not held)
        ]
        sizes = itertools.accumulate(len(row.body) for row in found)
        enough = sum(before < size for before in [0, *sizes])
        return found[: min(limit, enough)]

    def hold(self, keys, holder):
        self._may_fail('hold')
        for key in keys:
            self.held.append((key, holder))
            row = self.rows[key]
            self.rows[key] = row._replace(
                holder=holder, attempts=row.attempts + 1
            )

    def release(self, keys):
        self._may_fail('release')
        for key in keys:
            self.released.append(key)
            row = self.rows[key]
            self.rows[key] = row._replace(
                holder=None, attempts=row.attempts - 1
            )

    def done(self, keys):
        self._may_fail('done')
        for key in keys:
            self.rows.pop(key, None)

    def split(self, keys, pools):
        self._may_fail('split')
        for key in keys:
            row = self.rows.pop(key)
            for pool in pools:
                self._insert(
                    row.where, row.message_id, row.body, base.Copy(pool)
                )

    def bury(self, keys):
        self._may_fail('bury')
        self.dead += [self.rows.pop(key) for key in keys]

    def changed(self):
        self._may_fail('changed')
        told, self._told = self._told, self._added
        return told != self._added

    def claim(self):
        self._may_fail('claim')
        return self.mine
