# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is among the processes of a host."""

import contextlib
import fcntl
import os
import pathlib
import secrets
import struct
import threading
import time
import weakref

from zmq_driver import ipc

#: Seconds without a sign of life after which the turn of a process is taken
#: from it, although it lives.
FROZEN = 3.0
#: Seconds between two signs of life.
RENEWAL = 0.5

#: A time of the monotonic clock, which all processes of a host share.
_TIME = struct.Struct('!d')

#: The turns that this process has, by path: the kernel does not keep two of
#: one process apart.
_TAKEN: 'weakref.WeakValueDictionary[str, Turn]' = (
    weakref.WeakValueDictionary()
)
_LOCK = threading.Lock()


class Turn:
    """A turn that one object of one process of the host has at a time.

    Whoever has it takes it again and again, which shows in the file. If that
    stops, although the process lives, it is frozen: another one makes a new
    file, and the first one finds, when it goes on, that its file is gone.

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
        self._renewed_at = float('-inf')
        self._end: weakref.finalize[[int], Turn] | None = None

    def take(self) -> bool:
        """Return whether this object has the turn now.

        :raises OSError: the file cannot be made or locked
        :raises ipc.IpcDirectoryError: its directory cannot be used
        """
        with _LOCK:
            if self._has():
                self._renew()
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
            try:
                if _is_frozen(fd):
                    self._remove(fd)
            finally:
                os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._pid = os.getpid()
        self._end = weakref.finalize(self, os.close, fd)
        # When the interpreter ends, the thread that drains still uses it.
        self._end.atexit = False
        _TAKEN[self._path] = self
        self._renewed_at = float('-inf')
        self._renew()
        return self._has()

    def _renew(self) -> None:
        now = time.monotonic()
        if now - self._renewed_at > RENEWAL:
            self._renewed_at = now
            # A full disk is no reason to stop.
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, _TIME.pack(now), 0)

    def _remove(self, fd: int) -> None:
        """Remove the file of a frozen process, and no other."""
        path = pathlib.Path(self._path)
        aside = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            if os.path.samestat(aside.stat(), os.fstat(fd)):
                aside.unlink()
            else:
                # Another process was faster, and this is its file.
                aside.rename(path)

    def _drop(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None
        self._fd = -1
        if _TAKEN.get(self._path) is self:
            del _TAKEN[self._path]


def _is_frozen(fd: int) -> bool:
    """Return whether who has locked a file gives no sign of life."""
    sign = os.pread(fd, _TIME.size, 0)
    return len(sign) == _TIME.size and bool(
        time.monotonic() - _TIME.unpack(sign)[0] > FROZEN
    )


def _begin_anew() -> None:
    """Give a forked child nothing of its parent's.

    Closing an inherited file later would end the child's own turn.
    """
    global _LOCK
    _LOCK = threading.Lock()
    for turn in tuple(_TAKEN.values()):
        turn._drop()


os.register_at_fork(after_in_child=_begin_anew)
