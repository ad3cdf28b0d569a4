# SPDX-License-Identifier: Apache-2.0
"""The matchmaker of one host: files in a directory, and no server.

Every member (a driver instance in a process) holds the kernel's lock of one
file for as long as it lives, and has one more file per registration. The
layout and the rules are in ``doc/specs/matchmaker.rst``.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterator
import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import re
import threading
import time
from typing import TypeVar
import weakref

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import forgetting
from zmq_driver import ipc
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import local_record
from zmq_driver.matchmaker import membership
from zmq_driver.matchmaker import sweep

LOG = logging.getLogger(__name__)

_T = TypeVar('_T')

#: Within this long after a change of a directory a second one may leave the
#: same time stamp, because file systems stamp by the tick of the kernel
#: (1 to 10 ms). In nanoseconds.
RACY_NS = 20_000_000

_MEMBER = re.compile(r'[0-9a-f]{16}')
_RECORD = re.compile(r'([0-9a-f]{16})-([0-9a-f]{32})')
_PLACE = re.compile(r'[0-9a-f]{32}')
#: Of these, no record is to blame.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
_MAX_PLACES = 10_000
_MAX_COMPLAINTS = 1_000
_NOWHERE = (0, 0)
_NOBODY = base.Routes(())


class LocalMatchmaker(base.Matchmaker):
    """Processes of one host find each other through a directory.

    Thread: any.
    """

    def __init__(self, settings: base.MatchmakerSettings) -> None:
        """Keep *settings*; no input or output happens yet.

        :raises ValueError: the name of the member is not 16 hex digits
        """
        super().__init__(settings)
        if not _MEMBER.fullmatch(settings.member):
            raise ValueError(f'{settings.member!r} cannot name a member')
        self._membership = membership.Membership(
            settings.directory, settings.member
        )
        #: Why it takes no more registrations, once it does not.
        self._ended = ''
        #: Held while the lock file is made, which is once.
        self._starting = threading.Lock()
        self._places: dict[address.Address, pathlib.Path] = {}
        self._ignored: set[str] = set()
        # Runs at an orderly exit of the interpreter too.
        self._withdraw = weakref.finalize(self, self._membership.withdraw)
        forgetting.in_children(self)

    @classmethod
    def check_url(cls, url: oslo_messaging.TransportURL) -> str | None:
        """Return what makes *url* unusable: there is no host to connect to."""
        if not url.hosts:
            return None
        return (
            'zmq:// finds the processes of this host by itself and connects '
            'to no other; leave the host away'
        )

    def register(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Publish a registration; doing it twice is doing it once.

        :raises MatchmakerUnavailable: the directory did not take it, or this
            matchmaker is closed
        """
        with self._translated('register', registration.address):
            self._start(deadline)
            record = self._record(registration)
            content = local_record.encode(
                registration,
                self.settings.virtual_host,
                self._membership.started,
            )
            known = self._membership.records.get(record) == content
            if not known or not record.exists():
                self._membership.publish(record, content)
            if self._ended:  # while the record was written
                self._membership.retract(record)
                raise base.MatchmakerUnavailable(self._ended)

    def unregister(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Withdraw a registration; an unknown one is no error.

        :raises MatchmakerUnavailable: the directory did not let go of it
        """
        with self._translated('unregister', registration.address):
            record = self._record(registration)
            if record in self._membership.records:
                self._membership.retract(record)

    def lookup(
        self, where: address.Address, deadline: clock.Deadline
    ) -> base.Routes:
        """Ask the directory who listens at *where*.

        It reads local files, which no deadline can interrupt: some 15 µs per
        registration.

        :returns: live listeners only; empty when there is nobody
        :raises MatchmakerUnavailable: the directory cannot be read
        """
        with self._translated('look up', where):
            if not self.settings.directory.exists():
                if self._membership.descriptors:
                    raise base.MatchmakerUnavailable(
                        f'ipc directory {self.settings.directory.path} '
                        f'vanished: restart the services of this host'
                    )
                return _NOBODY
            place = self._place(where)
            try:
                fd = os.open(place, membership.READ | os.O_DIRECTORY)
            except FileNotFoundError:
                return _NOBODY
            try:
                return base.Routes(self._read_place(fd, place, where))
            finally:
                os.close(fd)

    def records(self, deadline: clock.Deadline) -> list[base.Record]:
        """Return the registrations of all living members.

        :raises MatchmakerUnavailable: the directory cannot be read
        """
        found = []
        with self._translated('list', 'registrations'):
            if not self.settings.directory.exists():
                return []
            path = pathlib.Path(self.settings.directory.path)
            for place in path.iterdir():
                if _PLACE.fullmatch(place.name):
                    found += self._records_of(place)
        return sorted(found)

    def revision(self, where: address.Address) -> Hashable:
        """Return a mark of the directory of *where*.

        Joins and leaves change it, the death of a process does not.
        """
        try:
            found = self._place(where).stat()
        except FileNotFoundError:
            return _NOWHERE
        except (OSError, ipc.IpcDirectoryError):
            return None
        if abs(time.time_ns() - found.st_mtime_ns) < RACY_NS:
            return None
        return found.st_ino, found.st_mtime_ns

    def close(self, deadline: clock.Deadline) -> None:
        """Withdraw what is left and release everything; idempotent.

        What cannot be removed is logged; nobody counts it any more.
        """
        self._ended = self._ended or 'the matchmaker is closed'
        waited = self._starting.acquire(timeout=deadline.left())
        try:
            self._withdraw()
        finally:
            if waited:
                self._starting.release()

    def forget(self) -> None:
        """Let go of what a forked child inherited, touching nothing of the
        parent's. Children do it by themselves.
        """
        self._ended = 'the matchmaker was inherited over a fork'
        self._starting = threading.Lock()
        self._membership.forget()

    def _start(self, deadline: clock.Deadline) -> None:
        """Become a member, unless we are one already."""
        if not self._starting.acquire(timeout=deadline.left()):
            raise base.MatchmakerUnavailable(
                'no time left to wait for the lock file of this process'
            )
        try:
            if self._ended:
                raise base.MatchmakerUnavailable(self._ended)
            if self._membership.held():
                return
            first = not self._membership.descriptors
            self._membership.join()
        finally:
            self._starting.release()
        if first:
            sweep.Sweep(self.settings.directory.path).run()

    def _place(self, where: address.Address) -> pathlib.Path:
        """Return the directory of the registrations of an address."""
        place = self._places.get(where)
        if place is None:
            parts = [self.settings.virtual_host, *where]
            name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
            place = pathlib.Path(self.settings.directory.path, name)
            if len(self._places) >= _MAX_PLACES:
                self._places.clear()
            self._places[where] = place
        return place

    def _record(self, registration: address.Registration) -> pathlib.Path:
        incarnation = registration.route.incarnation.hex()
        name = f'{self.settings.member}-{incarnation}'
        return self._place(registration.address) / name

    def _records_of(self, place: pathlib.Path) -> list[base.Record]:
        try:
            fd = os.open(place, membership.READ | os.O_DIRECTORY)
        except FileNotFoundError:
            return []

        def decode(content: bytes, name: str) -> base.Record | None:
            return local_record.decode(
                content, name, self.settings.virtual_host
            )

        try:
            found = [
                self._read_record(fd, place / name, decode)
                for name in self._living(fd, place)
            ]
        finally:
            os.close(fd)
        return [record for record in found if record is not None]

    def _read_place(
        self, fd: int, place: pathlib.Path, where: address.Address
    ) -> list[address.Route]:
        """Read the records of an address, and reap those of the dead."""

        def decode(content: bytes, name: str) -> address.Route:
            return local_record.decode_route(
                content, name, self.settings.virtual_host, where
            )

        found = [
            self._read_record(fd, place / name, decode)
            for name in self._living(fd, place)
        ]
        return [route for route in found if route is not None]

    def _living(self, fd: int, place: pathlib.Path) -> list[str]:
        """Return the names of the records of the living, reap the others."""
        living = []
        alive: dict[str, bool] = {}
        dead: dict[str, list[str]] = {}
        for name in _list(fd):
            if name.startswith('.'):
                continue  # about to be renamed
            match = _RECORD.fullmatch(name)
            if match is None:
                self._ignore(place / name, 'no record is called so')
                continue
            member = match[1]
            if member not in alive:
                alive[member] = self._is_alive(place, member)
            if alive[member]:
                living.append(name)
            else:
                dead.setdefault(member, []).append(name)
        for member, names in dead.items():
            for name in names:
                membership.remove(place / name)
            membership.remove_member(place.parent, member)
        if dead:
            membership.remove_empty(place)
        return living

    def _is_alive(self, place: pathlib.Path, member: str) -> bool:
        lock = place.with_name(f'{member}.lock')
        try:
            return membership.is_locked(lock)
        except PermissionError as exc:
            # Nothing is known about it, so nothing is taken from it.
            self._ignore(lock, exc.strerror)
            return True

    def _read_record(
        self, fd: int, path: pathlib.Path, decode: Callable[[bytes, str], _T]
    ) -> _T | None:
        try:
            record = os.open(path.name, membership.READ, dir_fd=fd)
            try:
                content = os.read(record, local_record.MAX_SIZE)
            finally:
                os.close(record)
            return decode(content, path.name)
        except FileNotFoundError:
            return None  # It has just left.
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                raise
            self._ignore(path, exc.strerror)
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            self._ignore(path, f'{type(exc).__name__}: {exc}')
        return None

    def _ignore(self, path: pathlib.Path, why: str | None) -> None:
        """Say once that a file does not count."""
        if str(path) in self._ignored or len(self._ignored) >= _MAX_COMPLAINTS:
            return
        self._ignored.add(str(path))
        LOG.warning('Ignoring %s (%s); remove it if it stays.', path, why)

    @contextlib.contextmanager
    def _translated(self, verb: str, where: object) -> Iterator[None]:
        """Say of errors of the file system what to do."""
        try:
            yield
        except (OSError, ipc.IpcDirectoryError) as exc:
            problem: Exception = exc
            if isinstance(exc, OSError):
                problem = ipc.unusable(
                    pathlib.Path(self.settings.directory.path), exc
                )
            raise base.MatchmakerUnavailable(
                f'cannot {verb} {where}: {problem}'
            ) from exc


def _list(fd: int) -> list[str]:
    try:
        return os.listdir(fd)
    except FileNotFoundError:
        return []  # The last one has just left.
