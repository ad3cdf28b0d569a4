# SPDX-License-Identifier: Apache-2.0
"""What is dropped because of its age, and space that is given back."""

# ruff: noqa: S608 - what is put together here are constants of this module

import sqlite3

from zmq_driver import clock as clocks
from zmq_driver.store import durable
from zmq_driver.store import queries

#: How much is dropped in one transaction because of its age.
TIDY_LIMIT = 1000

#: Pages that may be unused before space is given back, and that may be in
#: use: to move more of them takes too long, and they will be free some day.
IDLE_PAGES = 1024
BUSY_PAGES = 4096

#: Pages that are given back at once, and the seconds that all this may take.
BACK_PAGES = 256
BACK_TIME = 0.05

_FORGOTTEN = 'seen < ? AND (copies = 0 OR pool IS NOT NULL AND dead = 0)'


def wastes_space(connection: sqlite3.Connection) -> bool:
    """Return whether the file is much larger than it has to be."""
    (idle,) = connection.execute('PRAGMA freelist_count').fetchone()
    (pages,) = connection.execute('PRAGMA page_count').fetchone()
    return bool(idle > IDLE_PAGES and pages - idle < BUSY_PAGES)


def give_space_back(connection: sqlite3.Connection) -> None:
    """Make the file smaller, as far as that goes in a moment."""
    deadline = clocks.Deadline(BACK_TIME)
    while wastes_space(connection) and not deadline.passed():
        # execute() would stop after the first page.
        connection.executescript(f'PRAGMA incremental_vacuum({BACK_PAGES})')


def is_untidy(
    connection: sqlite3.Connection, old: float, since: float
) -> bool:
    """Return whether :func:`tidy` has something to do."""
    (found,) = connection.execute(
        'SELECT ifnull((SELECT stored FROM message ORDER BY number LIMIT 1) '
        f'< ?, 0) OR EXISTS (SELECT 1 FROM queue WHERE {_FORGOTTEN})',
        (old, since),
    ).fetchone()
    return bool(found)


def tidy(
    connection: sqlite3.Connection, old: float, since: float
) -> tuple[int, list[durable.Forgotten]]:
    """Drop what is too old, and forget pools; a bounded step of it.

    :param old: drop messages that were stored before
    :param since: forget pools that were not seen after it
    :returns: how many copies were dropped; and the pools that are forgotten,
        each with what was dropped with it
    """
    dropped = queries.drop_oldest(connection, TIDY_LIMIT, old)
    forgotten = []
    for number, pool in connection.execute(
        f'SELECT number, pool FROM queue WHERE {_FORGOTTEN} LIMIT 100',
        (since,),
    ).fetchall():
        found = queries.name_of(connection, number)
        lost = queries.purge(connection, number, max(1, TIDY_LIMIT - dropped))
        dropped += lost
        if queries.remove(connection, number) and pool is not None and found:
            forgotten.append(durable.Forgotten(found[0], pool, lost))
    return dropped, forgotten
