# SPDX-License-Identifier: Apache-2.0
"""A member of the local matchmaker: its lock file and its records."""

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import pathlib
import secrets

from zmq_driver import ipc
from zmq_driver.matchmaker import base

LOG = logging.getLogger(__name__)

#: How files of other members are opened: whatever they are, it never blocks.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: How often something is made again that another process took away. Each
#: time is a coincidence of two system calls.
_TRIES = 100


class Membership:
    """The lock file and the records of one member.

    It is apart from the matchmaker so that a finalizer can withdraw it, and
    takes no lock so that nothing can block that.

    Thread: any (each step on a list or a dictionary is atomic).
    """

    def __init__(self, directory: ipc.IpcDirectory, name: str) -> None:
        """Describe the membership; nothing is made yet."""
        self._directory = directory
        self._name = name
        self._pid = os.getpid()
        self._opening = False
        now = datetime.datetime.now(datetime.UTC)
        #: When the member began, for those who read its records.
        self.started = now.isoformat(timespec='seconds')
        #: Open files that the kernel has locked for us: the lock file, and
        #: the directory.
        self.descriptors: list[int] = []
        #: The records that exist, or are about to.
        self.records: dict[pathlib.Path, bytes] = {}

    def held(self) -> bool:
        """Return whether the lock file is ours and in its place."""
        if not self.descriptors:
            return False
        try:
            found = self._lock_path().stat()
        except FileNotFoundError:
            return False
        return any(
            os.path.samestat(found, os.fstat(fd)) for fd in self.descriptors
        )

    def join(self) -> None:
        """Make the lock file; nobody ever sees it unlocked.

        :raises MatchmakerUnavailable: the name of the member is taken
        :raises OSError: the file cannot be made
        """
        self._directory.prepare()
        for _ in range(_TRIES):
            if self._try_join():
                break
        else:
            raise OSError(
                errno.EBUSY,
                'the lock file is removed again and again',
                str(self._lock_path()),
            )
        # As long as the directory is locked, systemd-tmpfiles keeps out.
        fd = self._open(self._directory.path, READ | os.O_DIRECTORY)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def publish(self, record: pathlib.Path, content: bytes) -> None:
        """Make a record appear, whole or not at all.

        :raises OSError: it cannot be written
        """
        # First, so that a withdrawal meanwhile does not miss it.
        self.records[record] = content
        name = f'.{record.name}.{secrets.token_hex(4)}.tmp'
        temporary = record.with_name(name)
        fd = self._open_in_place(temporary)
        try:
            try:
                self._directory.share_fd(fd)
                if os.write(fd, content) != len(content):
                    raise OSError(
                        errno.ENOSPC, os.strerror(errno.ENOSPC), str(record)
                    )
            finally:
                os.close(fd)
            temporary.rename(record)
        except OSError:
            remove(temporary)
            remove_empty(record.parent)
            raise

    def retract(self, record: pathlib.Path) -> None:
        """Remove a record, and its directory if that is empty now.

        :raises OSError: it is still there
        """
        record.unlink(missing_ok=True)
        self.records.pop(record, None)
        remove_empty(record.parent)

    def withdraw(self) -> None:
        """Remove everything of this member, and release its locks."""
        if os.getpid() != self._pid or not self.descriptors:
            return
        for record in tuple(self.records):
            try:
                self.retract(record)
            except OSError as exc:
                LOG.warning(
                    'Cannot remove %s (%s); it does not count any more.',
                    record,
                    exc.strerror,
                )
        remove_member(self._lock_path().parent, self._name)
        self.forget()

    def forget(self) -> None:
        """Close the descriptors, and do nothing else."""
        while self.descriptors:
            with contextlib.suppress(OSError):
                os.close(self.descriptors.pop())
        if self._opening:
            # Another thread of the parent was opening one when it forked.
            self._opening = False
            _close_named(self._name)
        self.records = {}

    def _lock_path(self) -> pathlib.Path:
        return pathlib.Path(self._directory.path, f'{self._name}.lock')

    def _temporary(self) -> pathlib.Path:
        name = f'.{self._name}.{secrets.token_hex(4)}.tmp'
        return self._lock_path().with_name(name)

    def _try_join(self) -> bool:
        """Make the lock file, or return False if a sweep was in the way."""
        temporary = self._temporary()
        fd = self._open(str(temporary), _MAKE)
        made = False
        try:
            self._directory.share_fd(fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Unlike a rename, a link never replaces another's lock.
            self._lock_path().hardlink_to(temporary)
            made = True
        except FileExistsError as exc:
            raise base.MatchmakerUnavailable(
                f'{self._lock_path()} exists: two members cannot have the '
                f'same name'
            ) from exc
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            remove(temporary)
            if not made:
                self.descriptors.remove(fd)
                os.close(fd)
        return made

    def _open(self, path: str, flags: int) -> int:
        """Open a file whose descriptor no forked child may keep."""
        self._opening = True
        try:
            fd = os.open(path, flags, 0o600)
            self.descriptors.append(fd)
        finally:
            self._opening = False
        return fd

    def _open_in_place(self, temporary: pathlib.Path) -> int:
        """Open a new file for a record, making the directory if need be.

        From then on the directory is not empty, so nobody can remove it.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):
                return os.open(temporary, _MAKE, 0o600)
            self._make_place(temporary.parent)
        raise OSError(
            errno.EBUSY,
            'the directory is removed again and again',
            str(temporary.parent),
        )

    def _make_place(self, place: pathlib.Path) -> None:
        """Make the directory of an address, its mode right from the start."""
        temporary = self._temporary()
        temporary.mkdir(0o700)
        try:
            fd = os.open(temporary, READ | os.O_DIRECTORY)
            try:
                self._directory.share_fd(fd)
            finally:
                os.close(fd)
            temporary.rename(place)
        except OSError as exc:
            remove_empty(temporary)
            # Another process was faster; EPERM: as another user, in a
            # directory with the sticky bit.
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EPERM):
                raise


def is_locked(path: pathlib.Path) -> bool:
    """Return whether a living process holds the lock of *path*.

    The question is asked on a descriptor of its own, so the answer is right
    for our own files too.

    :raises OSError: the file cannot be opened; a missing one is not locked
    """
    try:
        fd = os.open(path, READ)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask never take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove(path: pathlib.Path) -> None:
    """Remove a file, if that is possible."""
    with contextlib.suppress(OSError):
        path.unlink()


def remove_empty(directory: pathlib.Path) -> None:
    """Remove a directory, if it is empty and that is possible."""
    with contextlib.suppress(OSError):
        directory.rmdir()


def remove_member(directory: pathlib.Path, member: str) -> None:
    """Remove the endpoint and the lock of a member that is gone."""
    # The lock goes last: as long as it is there, others find the rest by it.
    remove(directory / f'{member}.ipc')
    remove(directory / f'{member}.lock')


def _close_named(member: str) -> None:
    """Close every descriptor on a file that bears the name of a member."""
    for name in os.listdir('/proc/self/fd'):  # noqa: PTH208
        with contextlib.suppress(OSError):
            target = os.readlink(f'/proc/self/fd/{name}')  # noqa: PTH115
            if member in target.rpartition('/')[2]:
                os.close(int(name))
