# SPDX-License-Identifier: Apache-2.0
"""The tables of a store in SQLite."""

import sqlite3

from zmq_driver.store import base

#: Of the tables below; another one is another layout.
VERSION = 1

# A copy is found by its queue and, in it, by its age. Counts are kept by
# triggers, because counting a million rows takes a while. Numbers are never
# used again: somebody may still hold the key of a copy that was dropped.
_TABLES = """
CREATE TABLE info (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE total (
    copies INTEGER NOT NULL,
    size INTEGER NOT NULL,
    added INTEGER NOT NULL
) STRICT;
INSERT INTO total VALUES (0, 0, 0);
CREATE TABLE queue (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL,
    topic TEXT NOT NULL,
    pool TEXT,
    dead INTEGER NOT NULL,
    seen REAL NOT NULL,
    copies INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX queue_name
    ON queue (exchange, topic, dead, ifnull(pool, x'00'));
CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    stored REAL NOT NULL,
    copies INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE copy (
    queue INTEGER NOT NULL,
    message INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    endpoint TEXT,
    incarnation BLOB,
    PRIMARY KEY (queue, message)
) STRICT, WITHOUT ROWID;
CREATE INDEX copy_held ON copy (queue, message) WHERE endpoint IS NOT NULL;
CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
    UPDATE total SET size = size + new.size;
END;
CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
    UPDATE total SET size = size - old.size;
END;
CREATE TRIGGER copy_added AFTER INSERT ON copy BEGIN
    UPDATE queue SET copies = copies + 1 WHERE number = new.queue;
    UPDATE total SET copies = copies + 1, added = added + 1;
END;
CREATE TRIGGER copy_moved AFTER UPDATE OF queue ON copy BEGIN
    UPDATE queue SET copies = copies - 1 WHERE number = old.queue;
    UPDATE queue SET copies = copies + 1 WHERE number = new.queue;
    UPDATE total SET added = added + 1;
END;
CREATE TRIGGER copy_removed AFTER DELETE ON copy BEGIN
    UPDATE queue SET copies = copies - 1 WHERE number = old.queue;
    UPDATE total SET copies = copies - 1;
    DELETE FROM message WHERE number = old.message AND copies = 1;
    UPDATE message SET copies = copies - 1 WHERE number = old.message;
END;
"""


def is_known(connection: sqlite3.Connection) -> bool:
    """Return whether the tables are there, as this release knows them."""
    (version,) = connection.execute('PRAGMA user_version').fetchone()
    return bool(version == VERSION)


def prepare(connection: sqlite3.Connection, site: str) -> None:
    """Make the tables unless they are there; call it in a transaction.

    :param site: names the deployment, for whoever looks into the file
    :raises base.StoreUnavailable: they are those of another release
    """
    if is_known(connection):
        return  # Another process was faster.
    (version,) = connection.execute('PRAGMA user_version').fetchone()
    if version or connection.execute('SELECT 1 FROM sqlite_schema').fetchone():
        raise base.StoreUnavailable(
            f'it has layout {version}, this release of the driver knows '
            f'layout {VERSION}: run the release that wrote it, or move the '
            f'file away'
        )
    for statement in _statements():
        connection.execute(statement)
    connection.execute('INSERT INTO info VALUES (?, ?)', ('site', site))
    connection.execute(f'PRAGMA user_version = {VERSION}')


def _statements() -> list[str]:
    """Return the statements one by one: a script would end a transaction."""
    found = []
    text = ''
    for line in _TABLES.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ''
    return found
