# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is among the processes of a host."""

import fcntl
import os
import pathlib
import threading
import weakref

from zmq_driver import ipc

#: The turns that this process has, by path: the kernel does not keep two of
#: one process apart.
_TAKEN: 'weakref.WeakValueDictionary[str, Turn]' = (
    weakref.WeakValueDictionary()
)
_LOCK = threading.Lock()


class Turn:
    """A turn that one object of one process of the host has at a time.

    It is a record lock of the kernel. It ends with the process, however that
    ends, and a forked child does not inherit it, unlike ``flock``. It would
    end too early if the file was closed elsewhere in the process, so nothing
    else opens that file.

    Thread: any.
    """

    def __init__(self, path: str, directory: ipc.IpcDirectory) -> None:
        """Remember which file is meant.

        :param path: of a file in *directory*, made when it is needed
        """
        self._path = path
        self._directory = directory
        self._fd = -1
        self._pid = 0
        self._end: weakref.finalize[[int], Turn] | None = None

    def take(self) -> bool:
        """Return whether this object has the turn now.

        :raises OSError: the file cannot be made or locked
        :raises ipc.IpcDirectoryError: its directory cannot be used
        """
        with _LOCK:
            if self._has():
                return True
            self._drop()
            other = _TAKEN.get(self._path)
            if other is not None:
                if other._has():
                    return False
                other._drop()
            return self._lock()

    def leave(self) -> None:
        """Let another one have the turn; does nothing without it."""
        with _LOCK:
            self._drop()

    def _has(self) -> bool:
        """Return whether the lock is this process's, of the file there."""
        if self._fd < 0 or self._pid != os.getpid():
            return False
        try:
            found = pathlib.Path(self._path).stat()
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))

    def _lock(self) -> bool:
        fd = os.open(
            self._path,
            os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                self._directory.share_fd(fd)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._pid = os.getpid()
        self._end = weakref.finalize(self, os.close, fd)
        _TAKEN[self._path] = self
        return self._has()

    def _drop(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None
        self._fd = -1
        if _TAKEN.get(self._path) is self:
            del _TAKEN[self._path]


def _begin_anew() -> None:
    """Give a forked child nothing of its parent's.

    Closing an inherited file later would end the child's own turn.
    """
    global _LOCK
    _LOCK = threading.Lock()
    for turn in tuple(_TAKEN.values()):
        turn._drop()


os.register_at_fork(after_in_child=_begin_anew)
