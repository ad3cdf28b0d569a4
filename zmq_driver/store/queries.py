# SPDX-License-Identifier: Apache-2.0
"""What a store asks SQLite, each within a transaction or reading only."""

# ruff: noqa: S608 - what is put together here are constants of this module

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import math
import sqlite3
import time

from zmq_driver import address
from zmq_driver.store import base

_NAMED = 'exchange = ? AND topic = ? AND dead = ? AND ifnull(pool, x\'00\')'
_COPY = 'queue = ? AND message = ?'
# The same words as in the index of those.
_HELD = 'AND endpoint IS NOT NULL '
_OLDEST = (
    'queue = ? AND message IN '
    '(SELECT message FROM copy WHERE queue = ? ORDER BY message LIMIT ?)'
)


def queue_of(
    connection: sqlite3.Connection,
    where: address.Address,
    pool: str | None,
    dead: bool = False,
) -> int:
    """Return the number of a queue, which is made if it is not there."""
    name = where.exchange, where.topic, int(dead)
    found = connection.execute(
        f'SELECT number FROM queue WHERE {_NAMED} = ?',
        (*name, b'\0' if pool is None else pool),
    ).fetchone()
    if found:
        return int(found[0])
    made = connection.execute(
        'INSERT INTO queue (exchange, topic, dead, pool, seen) '
        'VALUES (?, ?, ?, ?, ?)',
        (*name, pool, time.time()),
    )
    return int(made.lastrowid or 0)


def insert(
    connection: sqlite3.Connection,
    message_id: bytes,
    body: bytes,
    copies: Sequence[base.Copy],
    queues: Sequence[int],
) -> None:
    """Add a message, and a copy of it to each queue."""
    message = connection.execute(
        'INSERT INTO message (id, stored, copies, size, body) '
        'VALUES (?, ?, ?, ?, ?)',
        (message_id, time.time(), len(copies), len(body), body),
    ).lastrowid
    for queue, copy in zip(queues, copies, strict=True):
        connection.execute(
            'INSERT INTO copy (queue, message, attempts, endpoint, '
            'incarnation) VALUES (?, ?, ?, ?, ?)',
            (queue, message, int(bool(copy.holder)), *_columns(copy.holder)),
        )


def _columns(holder: base.Holder | None) -> tuple[str | None, bytes | None]:
    if holder is None:
        return None, None
    return holder.endpoint, holder.incarnation


def oldest(connection: sqlite3.Connection, queue: int) -> float:
    """Return when the oldest copy of a queue was stored; inf if empty."""
    (found,) = connection.execute(
        'SELECT (SELECT stored FROM copy JOIN message '
        'ON message.number = copy.message WHERE copy.queue = ? '
        'ORDER BY copy.message LIMIT 1)',
        (queue,),
    ).fetchone()
    return math.inf if found is None else float(found)


def pools(
    connection: sqlite3.Connection, where: address.Address, since: float
) -> frozenset[str]:
    """Return the pools of an address that were seen since then."""
    return frozenset(
        pool
        for (pool,) in connection.execute(
            'SELECT pool FROM queue WHERE exchange = ? AND topic = ? '
            'AND dead = 0 AND pool IS NOT NULL AND seen > ?',
            (where.exchange, where.topic, since),
        )
    )


def see(
    connection: sqlite3.Connection, where: address.Address, pool: str
) -> None:
    """Write down that a pool has members now."""
    connection.execute(
        'UPDATE queue SET seen = ? WHERE number = ?',
        (time.time(), queue_of(connection, where, pool)),
    )


def queues(
    connection: sqlite3.Connection,
    limit: int,
    after: int,
    *,
    pending: bool = False,
    dead: bool | None = None,
) -> list[base.Queue]:
    """Return queues by number.

    :param pending: only those that are not empty
    :param dead: only those of dead letters, or only the others
    """
    found = connection.execute(
        'SELECT number, exchange, topic, pool, dead, copies, (SELECT stored '
        'FROM copy JOIN message ON message.number = copy.message '
        'WHERE copy.queue = queue.number ORDER BY copy.message LIMIT 1), '
        'seen FROM queue WHERE number > ? AND copies >= ? '
        'AND dead = ifnull(?, dead) ORDER BY number LIMIT ?',
        (after, int(pending), dead, limit),
    )
    return [
        base.Queue(
            number,
            address.Address(address.Scope.NOTIFICATION, exchange, topic),
            pool,
            bool(dead_),
            copies,
            oldest,
            None if pool is None else seen,
        )
        for number, exchange, topic, pool, dead_, copies, oldest, seen in found
    ]


def take(
    connection: sqlite3.Connection,
    queue: int,
    limit: int,
    after: int,
    size: int,
    held: bool = False,
) -> list[base.Stored]:
    """Return the oldest copies of a queue."""
    name = name_of(connection, queue)
    if name is None:
        return []
    where, pool, _dead = name
    cursor = connection.execute(
        'SELECT message, id, body, stored, attempts, endpoint, incarnation '
        'FROM copy JOIN message ON message.number = copy.message '
        f'WHERE queue = ? AND message > ? {_HELD if held else ""}'
        'ORDER BY message LIMIT ?',
        (queue, after, limit),
    )
    found = []
    # A cursor that is not read to its end would keep the log from shrinking.
    with contextlib.closing(cursor):
        for number, id_, body, stored, attempts, *holder in cursor:
            found.append(
                base.Stored(
                    base.Key(queue, number),
                    id_,
                    where,
                    pool,
                    body,
                    stored,
                    attempts,
                    None if holder[0] is None else base.Holder(*holder),
                )
            )
            size -= len(body)
            if size <= 0:
                break
    return found


def hold(
    connection: sqlite3.Connection,
    keys: Iterable[base.Key],
    holder: base.Holder,
) -> None:
    """Set the holder of copies, and count an attempt."""
    connection.executemany(
        'UPDATE copy SET attempts = attempts + 1, endpoint = ?, '
        f'incarnation = ? WHERE {_COPY}',
        [(*holder, *key) for key in keys],
    )


def release(connection: sqlite3.Connection, keys: Iterable[base.Key]) -> None:
    """Take the holder of copies away, and the attempt."""
    connection.executemany(
        'UPDATE copy SET attempts = attempts - 1, endpoint = NULL, '
        f'incarnation = NULL WHERE {_COPY} AND endpoint IS NOT NULL',
        keys,
    )


def delete(connection: sqlite3.Connection, keys: Iterable[base.Key]) -> int:
    """Remove copies; return how many were there."""
    return connection.executemany(
        f'DELETE FROM copy WHERE {_COPY}',
        keys,
    ).rowcount


def split(
    connection: sqlite3.Connection,
    keys: Iterable[base.Key],
    names: Sequence[str],
) -> None:
    """Move copies to the queue of the first pool, and add the others."""
    for queue, numbers in _by_queue(keys):
        found = name_of(connection, queue)
        if found is None:
            continue
        first, *others = [queue_of(connection, found[0], n) for n in names]
        for number in numbers:
            moved = connection.execute(
                f'UPDATE copy SET queue = ? WHERE {_COPY}',
                (first, queue, number),
            )
            # Those that have gone meanwhile stay away.
            if moved.rowcount and others:
                connection.execute(
                    'UPDATE message SET copies = copies + ? WHERE number = ?',
                    (len(others), number),
                )
                connection.executemany(
                    'INSERT INTO copy (queue, message) VALUES (?, ?)',
                    [(other, number) for other in others],
                )


def bury(connection: sqlite3.Connection, keys: Iterable[base.Key]) -> int:
    """Move copies to the queues of dead letters; return how many."""
    count = 0
    for queue, numbers in _by_queue(keys):
        found = name_of(connection, queue)
        if found is None or found[2]:
            continue
        grave = queue_of(connection, found[0], found[1], dead=True)
        count += connection.executemany(
            f'UPDATE copy SET queue = ? WHERE {_COPY}',
            [(grave, queue, number) for number in numbers],
        ).rowcount
    return count


def replay(connection: sqlite3.Connection, queue: int, limit: int) -> int:
    """Move the oldest dead letters of a queue back; return how many."""
    found = name_of(connection, queue)
    if found is None or not found[2]:
        return 0
    target = queue_of(connection, found[0], found[1])
    return connection.execute(
        'UPDATE copy SET queue = ?, attempts = 0, endpoint = NULL, '
        f'incarnation = NULL WHERE {_OLDEST}',
        (target, queue, queue, limit),
    ).rowcount


def purge(connection: sqlite3.Connection, queue: int, limit: int) -> int:
    """Remove the oldest copies of a queue; return how many."""
    return connection.execute(
        f'DELETE FROM copy WHERE {_OLDEST}',
        (queue, queue, limit),
    ).rowcount


def remove(connection: sqlite3.Connection, queue: int) -> bool:
    """Remove an empty queue; return whether it is gone."""
    connection.execute(
        'DELETE FROM queue WHERE number = ? AND copies = 0', (queue,)
    )
    return name_of(connection, queue) is None


def _by_queue(keys: Iterable[base.Key]) -> Iterable[tuple[int, list[int]]]:
    found: dict[int, list[int]] = {}
    for key in keys:
        found.setdefault(key.queue, []).append(key.number)
    return found.items()


def name_of(
    connection: sqlite3.Connection, queue: int
) -> tuple[address.Address, str | None, bool] | None:
    """Return address and pool of a queue, and whether it is a dead one."""
    row = connection.execute(
        'SELECT exchange, topic, pool, dead FROM queue WHERE number = ?',
        (queue,),
    ).fetchone()
    if row is None:
        return None
    exchange, topic, pool, dead = row
    where = address.Address(address.Scope.NOTIFICATION, exchange, topic)
    return where, pool, bool(dead)


def counts(connection: sqlite3.Connection) -> base.Counts:
    """Return what there is in all."""
    return base.Counts(
        *connection.execute(
            'SELECT copies - dead, dead, size FROM total, (SELECT '
            'ifnull(sum(copies), 0) AS dead FROM queue WHERE dead = 1)'
        ).fetchone()
    )


def added(connection: sqlite3.Connection) -> int:
    """Return how many copies were ever added, or moved to a queue."""
    (count,) = connection.execute('SELECT added FROM total').fetchone()
    return int(count)


def drop_oldest(
    connection: sqlite3.Connection, limit: int, before: float
) -> int:
    """Remove the oldest messages with all their copies.

    :param limit: at most so many
    :param before: only those that were stored before
    :returns: how many copies they had
    """
    dropped = 0
    for number, stored in connection.execute(
        'SELECT number, stored FROM message ORDER BY number LIMIT ?', (limit,)
    ).fetchall():
        if stored >= before:
            break
        dropped += connection.execute(
            'DELETE FROM copy WHERE message = ? AND queue IN '
            '(SELECT number FROM queue)',
            (number,),
        ).rowcount
    return dropped
