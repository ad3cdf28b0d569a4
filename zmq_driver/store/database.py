# SPDX-License-Identifier: Apache-2.0
"""The one connection of a store to its SQLite file, and whose turn it is."""

from collections.abc import Callable
import contextlib
import logging
import os
import sqlite3
import threading
import time
from typing import TypeVar

from zmq_driver import clock as clocks
from zmq_driver import counters
from zmq_driver import ipc
from zmq_driver.client import retry
from zmq_driver.store import base
from zmq_driver.store import batch
from zmq_driver.store import faults
from zmq_driver.store import file
from zmq_driver.store import forking
from zmq_driver.store import schema

LOG = logging.getLogger(__name__)

T = TypeVar('T')

#: Seconds that reading may wait for other threads and processes.
READ_TIMEOUT = 5.0

#: Seconds for which a file that could not be opened is not tried again.
RETRY_AFTER = 1.0

#: Seconds after its deadline for which a transaction that has begun is still
#: waited for.
HUNG_TIMEOUT = 5.0

#: Seconds that a fork, or closing, waits for a transaction to end.
FORK_TIMEOUT = 2.0

#: Pauses while another process writes, in seconds: the first, the longest.
BUSY_PAUSES = (0.0005, 0.005)

_FAILURES = (
    sqlite3.Error,
    OSError,
    ipc.IpcDirectoryError,
    base.StoreUnavailable,
)


class Database:
    """A connection that the threads of a process share, made when needed.

    Transactions of threads that wait at the same time become one. SQLite
    must not be taken across a fork, so the connection is closed before one.

    Thread: any.
    """

    def __init__(
        self, directory: ipc.IpcDirectory, name: str, site: str, *, sync: bool
    ) -> None:
        """Remember which file is meant.

        :param name: of the file in *directory*
        :param site: the deployment that it is for
        :param sync: whether to wait for the disk at every transaction
        """
        self.file = file.StoreFile(directory, name)
        self._site = site
        self._sync = sync
        self._waiting = batch.Waiting()
        self._turn = threading.Lock()
        # What follows is for whoever has the turn.
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._closed = False
        self._problem = ''
        self._retry_at = float('-inf')
        #: Grows when another file may be behind this than before.
        self.generation = 0
        self._log = counters.LimitedLog(LOG, logging.ERROR)
        #: The thread that forks just now, and has the turn for it.
        self._forking: threading.Thread | None = None
        forking.watch(self)

    def write(
        self,
        run: Callable[[sqlite3.Connection], T],
        deadline: clocks.Deadline,
        size: int = 0,
    ) -> T:
        """Return what *run* returns, when the transaction is committed.

        :param run: called with the connection in a transaction; it may be
            called again if that fails, and must do nothing else
        :param size: bytes that it writes, about
        :raises base.StoreUncertain: nobody can know whether it was committed
        :raises base.StoreError: nothing has changed
        """
        work = batch.Work(run, deadline, size)
        self._waiting.put(work)
        try:
            self._see_to(work)
        finally:
            # Whoever was interrupted leaves nothing to be done for him.
            self._waiting.withdraw(work)
        answer: T = work.answer()
        return answer

    def _see_to(self, work: batch.Work) -> None:
        """Return when work is finished, by this thread or another one."""
        pauses = retry.Backoff(*BUSY_PAUSES)
        while not work.finished:
            if not self._take_turn(work):
                return
            lines: list[str] = []
            try:
                if not work.finished:
                    self._carry_out(lines)
            finally:
                self._leave_turn(lines)
            if not work.finished:
                time.sleep(min(pauses.pause(), work.deadline.left()))

    def _take_turn(self, work: batch.Work) -> bool:
        """Wait for the turn; return False if *work* was finished first."""
        if self._turn.acquire(timeout=work.deadline.left()):
            return True
        if self._waiting.withdraw(work):
            raise self._unavailable(_SLOW)
        # It is being done now; there is no way back.
        if self._turn.acquire(timeout=HUNG_TIMEOUT):
            return True
        if work.finished:
            return False
        raise base.StoreUncertain(f'{self._unavailable("its disk hangs")}')

    def _leave_turn(self, lines: list[str]) -> None:
        if self._closed:
            self._disconnect()
        self._turn.release()
        for line in lines:
            self._log('%s', line)

    def read(
        self,
        run: Callable[[sqlite3.Connection], T],
        absent: T,
        timeout: float | None = None,
    ) -> T:
        """Return what *run* returns, or *absent* if there is no file.

        :param timeout: seconds to wait for others; None: READ_TIMEOUT
        :raises base.StoreUnavailable: the file cannot be read
        """
        deadline = clocks.Deadline(
            READ_TIMEOUT if timeout is None else timeout
        )
        pauses = retry.Backoff(*BUSY_PAUSES)
        while True:
            if not self._turn.acquire(timeout=deadline.left()):
                raise self._unavailable(_SLOW)
            lines: list[str] = []
            try:
                if not self.file.exists() and not self._closed:
                    return absent
                return run(self._connect())
            except _FAILURES as error:
                if not faults.is_busy(error) or deadline.passed():
                    raise self._failure(error, lines) from error
            finally:
                self._leave_turn(lines)
            time.sleep(min(pauses.pause(), deadline.left()))

    def close(self) -> None:
        """Close the file; whoever comes later is refused. Idempotent."""
        self._closed = True
        # Or else whoever has the turn closes it.
        if self._turn.acquire(timeout=FORK_TIMEOUT):
            self._leave_turn([])

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._closed = True

    # What follows is called by whoever has the turn.

    def _carry_out(self, lines: list[str]) -> None:
        """Do the work that waits, in one transaction.

        :param lines: for the log, to be written without the turn
        """
        works = self._waiting.take()
        committing = False
        try:
            connection = self._connect()
            connection.execute('BEGIN IMMEDIATE')
            for work in works:
                work.try_to(connection)
            committing = True
            connection.execute('COMMIT')
        except _FAILURES as error:
            if faults.is_busy(error):
                self._roll_back()
                self._try_again(works)
            else:
                doubtful = committing and faults.is_doubtful(error)
                self._fail(works, self._failure(error, lines), doubtful)
        except BaseException:
            self._disconnect()
            failure = self._unavailable('it was interrupted')
            self._fail(works, failure, committing)
            raise
        else:
            if self.file.is_there():
                for work in works:
                    work.finished = True
            else:
                # It was moved away meanwhile: once more, with another one.
                self._disconnect()
                self._try_again(works)

    def _fail(
        self, works: list[batch.Work], failure: base.StoreError, doubtful: bool
    ) -> None:
        """End works with an error.

        :param doubtful: whether the transaction may be committed
        """
        if doubtful:
            failure = base.StoreUncertain(str(failure))
        for work in works:
            work.fail(failure)

    def _try_again(self, works: list[batch.Work]) -> None:
        """Give work back, if there is time left for it."""
        for work in works:
            if work.deadline.passed():
                work.fail(self._unavailable(_SLOW))
        self._waiting.put_back([w for w in works if not w.finished])

    def _connect(self) -> sqlite3.Connection:
        """Return the connection to the file that is there."""
        if self._closed:
            raise self._unavailable('the transport was cleaned up')
        if self._connection is not None:
            if self._pid != os.getpid():
                raise self._unavailable(_FORKED)
            if self.file.is_there():
                return self._connection
            self._disconnect()
        if clocks.monotonic() < self._retry_at:
            raise base.StoreUnavailable(self._problem)
        if forking.is_inherited(self.file.path):
            raise self._unavailable(_FORKED)
        self.generation += 1
        self._pid = os.getpid()
        self.file.prepare()
        self._connection = connection = sqlite3.connect(
            self.file.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._configure(connection)
            self.file.share()
        except BaseException:
            self._disconnect()
            raise
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        known = schema.is_known(connection)
        if not known:
            # Before the first table, or it has no effect: the file can shrink.
            connection.execute('PRAGMA auto_vacuum = INCREMENTAL')
        connection.execute('PRAGMA journal_mode = WAL').fetchone()
        level = 'FULL' if self._sync else 'NORMAL'
        connection.execute(f'PRAGMA synchronous = {level}')
        connection.execute(f'PRAGMA journal_size_limit = {2**26}')
        if not known:
            connection.execute('BEGIN IMMEDIATE')
            schema.prepare(connection, self._site)
            connection.execute('COMMIT')

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            forking.inherit(self.file.path, connection)
        elif not self.file.is_there():
            # Closing it would remove the log of the file that is there now.
            forking.abandon(connection)
        else:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is not None and connection.in_transaction:
            try:
                connection.execute('ROLLBACK')
            except sqlite3.Error:
                self._disconnect()

    def _failure(self, error: Exception, lines: list[str]) -> base.StoreError:
        """Return what callers are told, and leave nothing half done."""
        if faults.is_busy(error):
            return self._unavailable(_SLOW)
        damaged = faults.is_damaged(error)
        self._disconnect()
        failure = str(error)
        if not failure.startswith(_SUBJECT):
            failure = str(self._unavailable(faults.reason(error)))
        moved = damaged and self._set_aside(failure, lines)
        if not moved and clocks.monotonic() >= self._retry_at:
            self._problem = failure
            self._retry_at = clocks.monotonic() + RETRY_AFTER
        return base.StoreUnavailable(failure)

    def _set_aside(self, failure: str, lines: list[str]) -> bool:
        """Move the damaged file away; return whether it is gone."""
        try:
            aside = self.file.set_aside()
        except (OSError, ipc.IpcDirectoryError) as error:
            lines.append(f'{failure}; it cannot be moved away: {error}')
            return False
        if aside:
            lines.append(
                f'{failure}; it was moved to {aside}, the notifications in it '
                f'are not delivered, and a new one is begun'
            )
        return bool(aside)

    def _unavailable(self, problem: str) -> base.StoreUnavailable:
        return base.StoreUnavailable(
            f'{_SUBJECT} {self.file.name} cannot be used: {problem}'
        )

    # What follows is for forks.

    def before_fork(self) -> None:
        """Let no thread be inside SQLite, and close the file."""
        if self._turn.acquire(timeout=FORK_TIMEOUT):
            self._forking = threading.current_thread()
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the file is opened again when it is needed."""
        if self._forking is threading.current_thread():
            self._forking = None
            self._turn.release()

    def after_fork_in_child(self) -> None:
        """Own nothing of the parent's."""
        if self._connection is not None:
            # A thread of the parent has it; SQLite would mix them up.
            self._disconnect()
        self._forking = None
        self._turn = threading.Lock()
        self._waiting = batch.Waiting()

    def has_inherited(self, path: str) -> bool:
        """Return whether a fork that nobody noticed left the file open."""
        return (
            self._connection is not None
            and self._pid != os.getpid()
            and self.file.path == path
        )


_SUBJECT = 'the store of notifications'
_SLOW = 'its other users take too long'
_FORKED = (
    'this process was forked by one that was just using it, which SQLite '
    'does not survive; use the transport only after the fork'
)
