# SPDX-License-Identifier: Apache-2.0
"""Work of several threads on its way into one transaction."""

import collections
from collections.abc import Callable
import sqlite3
import threading
from typing import Any

from zmq_driver import clock
from zmq_driver.store import base

#: The most that one transaction carries out, and bytes beyond which it has
#: no more.
MAX_WORK = 64
MAX_SIZE = 4 * 1024 * 1024


class Work:
    """Something that a thread wants to have done in a transaction.

    Thread: any (written by the one that has the connection).
    """

    __slots__ = ('_error', '_result', 'deadline', 'finished', 'run', 'size')

    def __init__(
        self,
        run: Callable[[sqlite3.Connection], Any],
        deadline: clock.Deadline,
        size: int = 0,
    ) -> None:
        """Remember what is to be done.

        :param run: it may refuse with a StoreError before it writes
        :param size: bytes that it writes, about
        """
        self.run = run
        self.deadline = deadline
        self.size = size
        #: Whether there is an answer.
        self.finished = False
        self._result: Any = None
        self._error: base.StoreError | None = None

    def try_to(self, connection: sqlite3.Connection) -> None:
        """Do it; what it refuses is kept for :meth:`answer`.

        :raises sqlite3.Error: the whole transaction has failed
        """
        self._error = None
        try:
            self._result = self.run(connection)
        except base.StoreError as error:
            self._error = error

    def fail(self, error: base.StoreError) -> None:
        """End it with an error."""
        self._error = error
        self.finished = True

    def answer(self) -> Any:
        """Return what it returned.

        :raises base.StoreError: it was refused, or has failed
        """
        if self._error is not None:
            raise self._error
        return self._result


class Waiting:
    """Work that nobody has taken up yet, in order.

    Thread: any.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._works: collections.deque[Work] = collections.deque()

    def put(self, work: Work) -> None:
        """Add work at the end."""
        with self._lock:
            self._works.append(work)

    def put_back(self, works: list[Work]) -> None:
        """Add works that were taken and not done at the beginning."""
        with self._lock:
            self._works.extendleft(reversed(works))

    def withdraw(self, work: Work) -> bool:
        """Return whether nobody has taken it; then nobody will."""
        with self._lock:
            try:
                self._works.remove(work)
            except ValueError:
                return False
            return True

    def take(self) -> list[Work]:
        """Remove and return what goes into the next transaction."""
        with self._lock:
            works: list[Work] = []
            size = 0
            while self._works and len(works) < MAX_WORK and size < MAX_SIZE:
                works.append(self._works.popleft())
                size += works[-1].size
            return works
