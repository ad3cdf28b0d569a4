# SPDX-License-Identifier: Apache-2.0
"""Connections of a router that stay open until their clients have read.

With ZMQ_IMMEDIATE libzmq throws away what a socket has received and its owner
has not read yet, at the moment when it learns that the connection is gone
(4.3.5: ``pipe_t::process_hiccup``). A router that ends closes each connection
right behind its last message, so that a client whose thread is a little late
would miss that message. So the kernel is to keep the connections for a moment
longer than libzmq does, by descriptors of ours.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import itertools
import os
import resource
import select
import socket as posix
import sys
import termios
import time

from zmq_driver import clock
from zmq_driver import inherited

#: Seconds that clients have to read what has reached their processes, since
#: one of them did. Their threads are waiting for it, and need no more than
#: their turns on a processor.
READ_TIME = 0.2
#: Seconds between two looks.
PAUSE = 0.005

#: Of the descriptors that this process has left, the part that it may take.
PART = 2

_INT_SIZE = 4


class Held:
    """The connections that were made to a router.

    Thread: any, one at a time.
    """

    def __init__(self, ipc_endpoint: str, tcp_endpoint: str) -> None:
        """Keep open what is connected now.

        :param ipc_endpoint: where the router is bound
        :param tcp_endpoint: where it is bound too, or ''
        """
        copies = _copies(ipc_endpoint, tcp_endpoint)
        # The others of this process are to find some too.
        self._fds = list(itertools.islice(copies, _spare() // PART))

    def wait(self, deadline: clock.Deadline) -> None:
        """Wait until clients have read all, and for a while for the rest.

        :param deadline: of those that do not take what was sent, or slowly
        """
        kept = self._fds
        quiet = clock.Deadline(READ_TIME)
        while kept and not quiet.passed():
            time.sleep(PAUSE)
            left = _open_ones(kept)
            # Who has read the farewell closes its end.
            is_going_on = len(left) < len(kept) or any(map(_is_unread, left))
            if is_going_on and not deadline.passed():
                quiet = clock.Deadline(READ_TIME)
            kept = left

    def close(self) -> None:
        """Let them end."""
        while self._fds:
            os.close(self._fds.pop())


def _spare() -> int:
    """Return how many descriptors this process can still open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        used = len(os.listdir('/proc/self/fd'))  # noqa: PTH208
    except OSError:
        return 0
    return max(0, limit - used)


def _copies(ipc_endpoint: str, tcp_endpoint: str) -> Iterator[int]:
    # All of them first: a copy would be found too, and copied.
    for fd in list(inherited.find_sockets(ipc_endpoint, tcp_endpoint)):
        # libzmq may have closed it meanwhile, or there is no descriptor left.
        with contextlib.suppress(OSError):
            copy = os.dup(fd)
            if _is_connection(copy):
                yield copy
            else:
                os.close(copy)


def _is_connection(fd: int) -> bool:
    try:
        socket = posix.socket(fileno=fd)
    except OSError:
        return False
    try:
        return not socket.getsockopt(posix.SOL_SOCKET, posix.SO_ACCEPTCONN)
    finally:
        socket.detach()


def _open_ones(fds: list[int]) -> list[int]:
    """Return those whose other end has not closed the connection."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLRDHUP)
    closed = {fd for fd, _ in poll.poll(0)}
    return [fd for fd in fds if fd not in closed]


def _is_unread(fd: int) -> bool:
    """Return whether the other end has not got all that was sent."""
    try:
        size = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INT_SIZE))
    except OSError:
        return False
    return int.from_bytes(size, sys.byteorder) > 0
