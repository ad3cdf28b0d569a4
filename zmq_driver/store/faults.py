# SPDX-License-Identifier: Apache-2.0
"""What the errors of SQLite mean."""

import sqlite3

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def code(error: BaseException) -> int:
    """Return the primary error code of SQLite; 0: it is no such error."""
    return int(getattr(error, 'sqlite_errorcode', 0) or 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether somebody else uses the file just now."""
    return code(error) in _BUSY


def is_damaged(error: BaseException) -> bool:
    """Return whether the file is none of SQLite, or not any more."""
    return code(error) in _DAMAGED


def is_doubtful(error: BaseException) -> bool:
    """Return whether a commit that failed so may be there later.

    Not if writing failed: the last piece, which says that it is complete, is
    missing. But if waiting for the disk failed.
    """
    whole = int(getattr(error, 'sqlite_errorcode', 0) or 0)
    return (
        code(error) == sqlite3.SQLITE_IOERR
        and whole != sqlite3.SQLITE_IOERR_WRITE
    )


def reason(error: Exception) -> str:
    """Return what is wrong and, as far as that is clear, what to do."""
    if is_damaged(error):
        return f'it is damaged ({error})'
    if code(error) == sqlite3.SQLITE_FULL:
        return f'{error}: free space on its file system'
    if code(error) == sqlite3.SQLITE_IOERR:
        return f'{error}: is its file system full, or over a quota or limit?'
    return str(error)
