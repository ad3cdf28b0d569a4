# SPDX-License-Identifier: Apache-2.0
"""The directory in which the processes of one host meet.

It holds the ipc endpoints of routers and, for the local matchmaker, the
registrations. Rules MM-11 to MM-18 of ``doc/specs/matchmaker.rst``.
"""

import contextlib
import errno
import logging
import os
import pathlib
import re
import secrets
import stat
import tempfile

LOG = logging.getLogger(__name__)

#: The longest path of an ipc endpoint in bytes: what ``sun_path`` of the
#: kernel holds, less the final NUL. libzmq refuses the 108th.
MAX_SOCKET_PATH = 107

#: The file that tells this directory from that of any other host.
MARK_NAME = 'directory.mark'
_MARK = re.compile(rb'[0-9a-f]{32}\n')

_FIXES = {
    errno.EACCES: 'give this user access to it and its parents',
    errno.EPERM: 'give this user access to it and its parents',
    errno.ENOENT: 'create its parent directory',
    errno.ENOTDIR: 'make every component of the path a directory',
    errno.EROFS: 'choose a directory on a writable file system',
    errno.ENOSPC: 'free space or inodes on its file system',
    errno.EDQUOT: 'free space or inodes in the quota of this user',
    errno.ELOOP: 'remove the loop of symbolic links',
    errno.ENAMETOOLONG: 'choose a shorter path',
    errno.EMFILE: 'raise the limit of open files of this process (ulimit -n)',
}
_ELSEWHERE = 'or set rpc_zmq_ipc_dir to another directory'


class IpcDirectoryError(Exception):
    """The ipc directory, or a name in it, cannot be used.

    The text names the path, what is wrong with it and the fix.
    """


class IpcDirectory:
    """The directory of this host's ipc endpoints and local registrations.

    Making the object touches nothing: many services build a driver that they
    never use.

    Thread: any.
    """

    def __init__(self, path: str | None) -> None:
        """Remember which directory is meant.

        :param path: the configured directory, relative to the current one if
            it is not absolute; None chooses a private directory of this user
        :raises IpcDirectoryError: *path* is no path
        """
        self._configured = None if path is None else _absolute(path)
        self._default: tuple[int, pathlib.Path] | None = None
        self._warned_group = False
        self._mark: str | None = None

    @property
    def path(self) -> str:
        """The absolute path of the directory.

        :raises IpcDirectoryError: there is no temporary directory
        """
        return str(self._path())

    @property
    def file_mode(self) -> int:
        """The mode of files made here: 0o660 if a group shares it, or 0o600.

        :raises IpcDirectoryError: the directory cannot be used
        """
        found = self._validate()
        return 0o660 if found and self._shared(found) else 0o600

    def exists(self) -> bool:
        """Validate the directory, and return whether it is there at all.

        :raises IpcDirectoryError: it is there and must not be used
        """
        return self._validate() is not None

    def prepare(self) -> None:
        """Create the directory (mode 0700) if need be, and validate it.

        Parents are not created: a missing parent is a spelling mistake, or a
        file system that is not mounted.

        :raises IpcDirectoryError: it cannot be made, or must not be used
        """
        if self._validate() is not None:
            return
        path = self._path()
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass  # Another process was faster; what it made is validated.
        except OSError as exc:
            raise unusable(path, exc) from exc
        if self._validate() is None:
            raise IpcDirectoryError(
                f'ipc directory {path} vanished while it was made: find out '
                f'who removes it, {_ELSEWHERE}'
            )

    def endpoint(self, name: str) -> str:
        """Return the ipc endpoint called *name*, as libzmq spells it.

        :param name: a member name: short, random, never a topic
        :raises IpcDirectoryError: the path is too long or cannot be used
        """
        return f'ipc://{self.socket_path(name)}'

    def socket_path(self, name: str) -> str:
        """Return the path of the socket file of :meth:`endpoint`.

        :raises IpcDirectoryError: the path is too long or cannot be used
        """
        if not name or '/' in name or name.startswith('.'):
            raise IpcDirectoryError(f'{name!r} cannot name an ipc endpoint')
        path = f'{self._path()}/{name}.ipc'
        size = len(_encode(path))
        if size > MAX_SOCKET_PATH:
            raise IpcDirectoryError(
                f'ipc endpoint {path} is {size} bytes long, the limit of the '
                f'operating system is {MAX_SOCKET_PATH}: set rpc_zmq_ipc_dir '
                f'to a path that is {size - MAX_SOCKET_PATH} bytes shorter'
            )
        return path

    def mark(self) -> str:
        """Return 32 hex digits that no other directory has.

        Two processes can reach each other over ipc if, and only if, they
        read the same mark. It is made once, by whoever asks first.

        :raises IpcDirectoryError: the directory cannot be used, or the file
            of the mark was damaged
        """
        if self._mark is None:
            self.prepare()
            path = self._path() / MARK_NAME
            try:
                self._mark = self._read_mark(path)
            except OSError as exc:
                raise unusable(path, exc) from exc
        return self._mark

    def _read_mark(self, path: pathlib.Path) -> str:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            self._make_mark(path)
            fd = os.open(path, flags)
        try:
            content = os.read(fd, 64)
        finally:
            os.close(fd)
        if not _MARK.fullmatch(content):
            raise IpcDirectoryError(
                f'{path} is damaged: remove it, and restart the services of '
                f'this host'
            )
        return content[:-1].decode()

    def _make_mark(self, path: pathlib.Path) -> None:
        """Make the mark appear whole, unless another was faster."""
        temporary = path.with_name(f'.{secrets.token_hex(8)}.mark')
        fd = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
            0o600,
        )
        try:
            try:
                self.share_fd(fd)
                os.write(fd, secrets.token_hex(16).encode() + b'\n')
            finally:
                os.close(fd)
            # Unlike a rename, a link never replaces another's mark.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def share(self, path: str) -> None:
        """Give a file here the mode and, if shared, the group of its peers.

        libzmq makes sockets by the umask of the process, so whoever binds
        an endpoint here calls this before it registers it.

        :raises IpcDirectoryError: the file cannot be changed
        """
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self.share_fd(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise unusable(pathlib.Path(path), exc) from exc

    def share_fd(self, fd: int) -> None:
        """Do what :meth:`share` does, to an open file or directory.

        A directory gets the search bits that go with the mode.

        :raises OSError: the file cannot be changed
        """
        found = self._validate()
        shared = found is not None and self._shared(found)
        made = os.fstat(fd)
        # This spelling also works for a socket, which cannot be opened.
        file = pathlib.Path(f'/proc/self/fd/{fd}')
        if shared and found and made.st_gid != found.st_gid:
            self._change_group(file, found.st_gid)
        mode = 0o660 if shared else 0o600
        if stat.S_ISDIR(made.st_mode):
            mode |= (mode >> 2) & 0o110
        file.chmod(mode)

    def _change_group(self, file: pathlib.Path, gid: int) -> None:
        try:
            os.chown(file, -1, gid)
        except PermissionError:
            if not self._warned_group:
                self._warned_group = True
                LOG.warning(
                    'Files in ipc directory %s cannot be given to its group '
                    '%d, other users will not find this process: add uid %d '
                    'to that group.',
                    self._path(),
                    gid,
                    os.geteuid(),
                )

    def _path(self) -> pathlib.Path:
        if self._configured is not None:
            return self._configured
        # The user may change after the object was made (daemons start as
        # root), and a private directory is of one user.
        uid = os.geteuid()
        if self._default is None or self._default[0] != uid:
            self._default = (uid, _default_path(uid))
        return self._default[1]

    def _shared(self, found: os.stat_result) -> bool:
        return self._configured is not None and bool(
            found.st_mode & stat.S_IWGRP
        )

    def _validate(self) -> os.stat_result | None:
        """Return what is there, None if nothing is, or raise."""
        path = self._path()
        private = self._configured is None
        try:
            found = path.lstat() if private else path.stat()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise unusable(path, exc) from exc
        wrong = _wrong_for_all(path, found)
        if wrong is None and private:
            wrong = _wrong_if_private(path, found)
        wrong = wrong or _wrong_access(path)
        if wrong is not None:
            problem, fix = wrong
            raise IpcDirectoryError(
                f'ipc directory {path} {problem}: {fix}, {_ELSEWHERE}'
            )
        return found


def _wrong_for_all(
    path: pathlib.Path, found: os.stat_result
) -> tuple[str, str] | None:
    if stat.S_ISLNK(found.st_mode):
        return 'is a symbolic link', f'remove it (rm {path})'
    if not stat.S_ISDIR(found.st_mode):
        return 'is not a directory', f'remove it (rm {path})'
    if found.st_mode & stat.S_IWOTH:
        # The sticky bit would not help: anybody could still add records.
        return 'is writable by everybody', f'close it (chmod o-w {path})'
    return None


def _wrong_if_private(
    path: pathlib.Path, found: os.stat_result
) -> tuple[str, str] | None:
    if found.st_uid != os.geteuid():
        return (
            f'belongs to uid {found.st_uid}, not to uid {os.geteuid()}',
            'remove it',
        )
    if found.st_mode & 0o077:
        return (
            f'is open to others (mode {stat.S_IMODE(found.st_mode):04o})',
            f'close it (chmod 700 {path})',
        )
    return None


def _wrong_access(path: pathlib.Path) -> tuple[str, str] | None:
    if os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return 'is on a read-only file system', 'mount it writable'
    uid = os.geteuid()
    return (
        f'is not readable, writable and searchable for uid {uid}',
        f'give uid {uid} or one of its groups access',
    )


def _default_path(uid: int) -> pathlib.Path:
    runtime = os.environ.get('XDG_RUNTIME_DIR', '')
    if runtime.startswith('/') and _is_ours(runtime, uid):
        return pathlib.Path(runtime) / 'zmq-driver'
    try:
        return pathlib.Path(tempfile.gettempdir()) / f'zmq-driver-{uid}'
    except OSError as exc:
        raise IpcDirectoryError(
            f'there is no ipc directory, because there is no usable '
            f'temporary directory ({exc.strerror}): set TMPDIR, {_ELSEWHERE}'
        ) from exc


def _is_ours(path: str, uid: int) -> bool:
    try:
        found = pathlib.Path(path).stat()
    except (OSError, ValueError):
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == uid
        and os.access(path, os.W_OK | os.X_OK, effective_ids=True)
    )


def _absolute(path: str) -> pathlib.Path:
    if not path:
        raise IpcDirectoryError('the path of the ipc directory is empty')
    _encode(path)
    try:
        return pathlib.Path(path).absolute()
    except OSError as exc:
        raise unusable(pathlib.Path(path), exc) from exc


def _encode(path: str) -> bytes:
    """Return the bytes of *path*; libzmq and the system must agree on them."""
    try:
        encoded = path.encode()
        agreed = os.fsencode(path) == encoded and b'\0' not in encoded
    except UnicodeError:
        agreed = False
    if not agreed:
        raise IpcDirectoryError(
            f'ipc path {path!r} has characters that cannot be in the name of '
            f'a file here: use plain letters'
        )
    return encoded


def unusable(path: pathlib.Path, exc: OSError) -> IpcDirectoryError:
    """Return the error that says what is wrong with *path*, and the fix."""
    fix = _FIXES.get(exc.errno or 0, 'look at the file system')
    return IpcDirectoryError(
        f'ipc directory {path} cannot be used ({exc.strerror}): {fix}, '
        f'{_ELSEWHERE}'
    )
