# SPDX-License-Identifier: Apache-2.0
"""Wakes a thread that waits in a poll, at most once per round."""

import os
import threading


class Wakeup:
    """An eventfd in the poll set of one thread, written by any other.

    The owner says when it begins to sleep and when it has woken up; only in
    between does a :meth:`set` cost a system call. The owner's loop is::

        wakeup.sleep_begins()
        poll(0 if there is work else a while)
        wakeup.sleep_ends()

    Whoever publishes work does so before :meth:`set`. Either the owner has
    begun to sleep by then and is woken, or it has not, and finds the work
    when it looks for it after :meth:`sleep_begins`.

    Thread: any, except the methods that say: owner.
    """

    def __init__(self) -> None:
        """Open the eventfd; the owner is awake."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._awake = True
        self._closed = False
        self._lock = threading.Lock()

    @property
    def asleep(self) -> bool:
        """Whether the owner sleeps, or is about to."""
        return not self._awake

    def set(self) -> None:
        """Wake the owner, if it sleeps."""
        if self._awake:
            return
        # The lock keeps the write from a descriptor that was closed and
        # given to somebody else in between.
        with self._lock:
            if not self._awake and not self._closed:
                self._awake = True
                os.eventfd_write(self.fd, 1)

    def sleep_begins(self) -> None:
        """Ask to be woken from now on (owner); then look for work."""
        self._awake = False

    def sleep_ends(self) -> None:
        """Ask not to be woken any more (owner)."""
        with self._lock:
            if self._awake and not self._closed:
                os.eventfd_read(self.fd)
            self._awake = True

    def close(self) -> None:
        """Close the descriptor (owner); later calls do nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)
