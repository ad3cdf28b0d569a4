# SPDX-License-Identifier: Apache-2.0
"""Keeps files of SQLite from being taken across a fork.

What SQLite knows about its own file locks must not be inherited, and the
mutexes of other threads even less. So files are closed before a fork. A child
that inherited one all the same must not open it again.
"""

from collections.abc import Callable
import ctypes
import os
import sqlite3
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


_IN_THIS_PROCESS: 'weakref.WeakSet[Forkable]' = weakref.WeakSet()

#: Files that this process must not open, because its parent had them open.
_INHERITED: set[str] = set()


def watch(one: Forkable) -> None:
    """Let *one* know of forks, as long as it lives."""
    _IN_THIS_PROCESS.add(one)


def inherit(path: str, connection: sqlite3.Connection) -> None:
    """Take note of a connection that belongs to the parent."""
    _INHERITED.add(path)
    abandon(connection)


def is_inherited(path: str) -> bool:
    """Return whether a file was open in the parent at the fork.

    Also if that was a fork that Python did not notice.
    """
    return path in _INHERITED or any(
        one.has_inherited(path) for one in tuple(_IN_THIS_PROCESS)
    )


def abandon(connection: sqlite3.Connection) -> None:
    """Never close a connection, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _for_all(step: str) -> Callable[[], None]:
    def run() -> None:
        for one in sorted(_IN_THIS_PROCESS, key=id):
            getattr(one, step)()

    return run


os.register_at_fork(
    before=_for_all('before_fork'),
    after_in_parent=_for_all('after_fork_in_parent'),
    after_in_child=_for_all('after_fork_in_child'),
)
