# SPDX-License-Identifier: Apache-2.0
"""Keeps files of SQLite from being taken across a fork.

What SQLite knows about its own file locks must not be inherited, and the
mutexes of other threads even less. So files are closed before a fork. A child
that inherited one all the same must not open it again.
"""

import ctypes
import os
import sqlite3
import threading
from typing import Protocol
import weakref


class Forkable(Protocol):
    """What has a file of SQLite open.

    Thread: any.
    """

    def before_fork(self) -> None:
        """Close the file, and let nobody open it."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Own nothing of the parent's."""

    def has_inherited(self, path: str) -> bool:
        """Return whether the parent had a file open in it at the fork."""


# Held over a fork, so that nobody joins in the middle of one. A signal handler
# may fork while its thread has it.
_LOCK = threading.RLock()

#: Everything that knows of forks, and some that is gone. It is replaced and
#: never changed, because some read it without the lock.
_watched: 'tuple[weakref.ref[Forkable], ...]' = ()

# Those that were told of the fork that is under way; of nested ones, if a
# signal handler forks meanwhile.
_told: 'list[list[Forkable]]' = []

#: Files that this process must not open, because its parent had them open.
_INHERITED: set[str] = set()


def watch(one: Forkable) -> None:
    """Let *one* know of forks, as long as it lives."""
    global _watched
    with _LOCK:
        living = (ref for ref in _watched if ref() is not None)
        _watched = (*living, weakref.ref(one))


def inherit(path: str, connection: sqlite3.Connection) -> None:
    """Take note of a connection that belongs to the parent."""
    _INHERITED.add(path)
    abandon(connection)


def is_inherited(path: str) -> bool:
    """Return whether a file was open in the parent at the fork.

    Also if that was a fork that Python did not notice. It waits for no fork:
    who asks may be the one for whom the fork waits.
    """
    return path in _INHERITED or any(
        one.has_inherited(path) for one in _living()
    )


def abandon(connection: sqlite3.Connection) -> None:
    """Never close a connection, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _living() -> 'list[Forkable]':
    return [one for ref in _watched if (one := ref()) is not None]


def _before_fork() -> None:
    _LOCK.acquire()
    _told.append(_living())
    for one in _told[-1]:
        one.before_fork()


def _after_fork_in_parent() -> None:
    try:
        for one in _told.pop():
            one.after_fork_in_parent()
    finally:
        _LOCK.release()


def _after_fork_in_child() -> None:
    global _LOCK
    _LOCK = threading.RLock()
    for one in _told.pop():
        one.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
