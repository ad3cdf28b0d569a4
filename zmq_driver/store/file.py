# SPDX-License-Identifier: Apache-2.0
"""The file of a store: made, shared with other users, and set aside."""

import contextlib
import fcntl
import os
import pathlib
import stat
import time

from zmq_driver import ipc

#: What SQLite keeps beside the file.
_SUFFIXES = ('-wal', '-shm')


class StoreFile:
    """A file in a directory that processes of several users may share.

    SQLite has its record locks on the file, which end when the process closes
    any descriptor of it; so nothing here opens one that is there already.

    Thread: caller holds the lock.
    """

    def __init__(self, directory: ipc.IpcDirectory, name: str) -> None:
        """Remember which file is meant; nothing is touched."""
        self._directory = directory
        self._base = name
        self._identity: tuple[int, int] | None = None

    @property
    def path(self) -> str:
        """The absolute path."""
        return f'{self._directory.path}/{self._base}'

    @property
    def name(self) -> str:
        """The path, for messages, even if there is no directory."""
        try:
            return self.path
        except ipc.IpcDirectoryError:
            return self._base

    def exists(self) -> bool:
        """Return whether there is such a file."""
        return self._path().exists()

    def prepare(self) -> None:
        """Make the file if it is not there, and remember which one it is.

        :raises OSError: it cannot be made
        :raises ipc.IpcDirectoryError: its directory cannot be used
        """
        path = self._path()
        self._directory.prepare()
        with contextlib.suppress(FileExistsError):
            self._make(path)
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError('it is not a regular file')
        self._identity = found.st_dev, found.st_ino

    def _make(self, path: pathlib.Path) -> None:
        fd = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            self._directory.share_fd(fd)
        finally:
            os.close(fd)
        # A power failure must not take the name away, but only that.
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def is_there(self) -> bool:
        """Return whether it is still the one that was prepared."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - a microsecond less
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def share(self) -> None:
        """Let the users of the directory use what SQLite has made too."""
        for suffix in _SUFFIXES:
            path = self._path().with_name(self._base + suffix)
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_uid == os.geteuid():
                    self._directory.share(str(path))

    def set_aside(self) -> str:
        """Rename the file, unless another process was faster.

        :returns: the new path; '' if nothing was renamed
        """
        path = self._path()
        lock = os.open(
            path.with_name(self._base + '.aside'),
            os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o660,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.is_there():
                return ''
            aside = path.with_name(f'{self._base}.damaged-{time.time():.0f}')
            path.rename(aside)
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(self._base + suffix).rename(
                        aside.with_name(aside.name + suffix)
                    )
        except BlockingIOError:
            return ''
        finally:
            os.close(lock)
        return str(aside)

    def _path(self) -> pathlib.Path:
        return pathlib.Path(self.path)
