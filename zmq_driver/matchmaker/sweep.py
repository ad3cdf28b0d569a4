# SPDX-License-Identifier: Apache-2.0
"""Cleaning the directory of the local matchmaker."""

import contextlib
import errno
import itertools
import os
import pathlib
import re
import socket
import stat
import time

from zmq_driver.matchmaker import membership

#: Directory entries that one sweep looks at.
LIMIT = 2000
#: An endpoint without a lock file may belong to a process that has bound it
#: and registers next; in seconds.
ORPHAN_AGE = 3600.0

_PLACE = re.compile(r'[0-9a-f]{32}')
# Other programs may use the directory too, so nothing is ours that is not
# called exactly so.
_OURS = re.compile(r'\.?([0-9a-f]{16})(\.lock|\.ipc|\.[0-9a-f]{8}\.tmp)')
_RECORD = re.compile(r'\.?([0-9a-f]{16})-[0-9a-f]{32}(\.[0-9a-f]{8}\.tmp)?')


class Sweep:
    """One look at a directory for what dead members left behind.

    Lookups reap as they go; this is for the addresses nobody looks up.

    Thread: owner only.
    """

    def __init__(self, directory: str) -> None:
        """Remember the directory."""
        self._directory = pathlib.Path(directory)
        self._left = LIMIT
        self._alive: dict[str, bool] = {}

    def run(self) -> None:
        """Remove leftovers; what cannot be removed is left alone."""
        with contextlib.suppress(OSError):
            for name in self._names(self._directory):
                with contextlib.suppress(OSError):
                    self._sweep(self._directory / name)

    def _names(self, directory: pathlib.Path) -> list[str]:
        """Return what is in a directory, as far as this sweep looks."""
        with os.scandir(directory) as entries:
            names = [e.name for e in itertools.islice(entries, self._left)]
        self._left -= len(names)
        return names

    def _sweep(self, path: pathlib.Path) -> None:
        match = _OURS.fullmatch(path.name)
        if match is None:
            if _PLACE.fullmatch(path.name):
                self._sweep_place(path)
        elif path.suffix == '.lock':
            if not self._is_alive(match[1]):
                membership.remove_member(self._directory, match[1])
        elif path.suffix == '.ipc':
            if not path.with_suffix('.lock').exists() and _is_orphan(path):
                membership.remove(path)
        elif path.is_dir():
            if not self._is_alive(match[1]):
                membership.remove_empty(path)
        # A lock file in the making, which is not at its place yet.
        elif not membership.is_locked(path):
            membership.remove(path)

    def _sweep_place(self, place: pathlib.Path) -> None:
        for name in self._names(place):
            match = _RECORD.fullmatch(name)
            if match is not None and not self._is_alive(match[1]):
                membership.remove(place / name)
        membership.remove_empty(place)

    def _is_alive(self, member: str) -> bool:
        if member not in self._alive:
            lock = self._directory / f'{member}.lock'
            try:
                self._alive[member] = membership.is_locked(lock)
            except OSError:
                self._alive[member] = True
        return self._alive[member]


def _is_orphan(path: pathlib.Path) -> bool:
    """Return whether a socket file is old and nobody listens to it."""
    found = path.lstat()
    if not stat.S_ISSOCK(found.st_mode):
        return False
    if time.time() - found.st_ctime < ORPHAN_AGE:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
