# SPDX-License-Identifier: Apache-2.0
"""Wakes a thread that waits in a poll, at most once per round."""

import os
import threading


class Wakeup:
    """An eventfd in the poll set of one thread, written by any other.

    Thread: any, except :meth:`clear` and :meth:`close`: the polling thread.
    """

    def __init__(self) -> None:
        """Open the eventfd."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pending = False
        self._closed = False
        self._lock = threading.Lock()

    def set(self) -> None:
        """Wake the polling thread; costs nothing when it is woken already.

        Publish the work before the call: whoever sees the pending flag
        relies on the owner to clear it first and to look for work then.
        """
        if self._pending:
            return
        # The lock keeps the write from a descriptor that was closed and
        # given to somebody else in between.
        with self._lock:
            if not self._pending and not self._closed:
                self._pending = True
                os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Reset, before looking for work."""
        if not self._pending:
            return
        with self._lock:
            self._pending = False
            if not self._closed:
                os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor; later calls of :meth:`set` do nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)
