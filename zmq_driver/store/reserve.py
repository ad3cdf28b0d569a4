# SPDX-License-Identifier: Apache-2.0
"""Room on the file system that a store leaves to others.

A store may share a small file system with the registrations and endpoints of
all services of the host, and needs some itself to take out what it holds.
"""

import os
import pathlib

from zmq_driver.store import base

#: Bytes that have to be free: a store writes a few megabytes into its log
#: before it knows.
RESERVE = 16 * 1024 * 1024
#: Of a file system that is small, the part of it.
PART = 4


def check(path: str, size: int) -> None:
    """Refuse to store something if its file system is nearly full.

    :param path: of the file of the store
    :param size: bytes that are to be stored
    :raises base.StoreFull: there is not enough room
    """
    directory = pathlib.Path(path).parent
    found = os.statvfs(directory)
    if not found.f_blocks:
        # It has no bound that could be known.
        return
    keep = min(RESERVE, found.f_blocks * found.f_frsize // PART)
    free = found.f_bavail * found.f_frsize
    # It is written twice: into the log, then into the file.
    if free < keep + 2 * size:
        raise base.StoreFull(
            f'the store of notifications {path} does not take the last '
            f'{keep} bytes of its file system, of which {free} are free: '
            f'free some, or name another directory with '
            f'notification_store_directory'
        )
