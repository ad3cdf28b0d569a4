# SPDX-License-Identifier: Apache-2.0
"""The threads of the driver: how they start, are named and end."""

from collections.abc import Callable
import logging
import threading

from zmq_driver import clock

LOG = logging.getLogger(__name__)

#: Every role a thread of this package can have. Threads are named
#: ``zmq-<role>-<driver id>``. The socket pool starts its reaper itself.
ROLES = (
    'router',
    'reaper',
    'resolver',
    'term',
    'statistics',
    'renewal',
    'watch',
    'refresh',
    'drain',
)


class ServiceThread:
    """A daemon thread that lives until its loop ends, and says how it ended.

    It is a daemon so that a process whose application never calls
    ``cleanup()`` can still exit.

    Thread: any.
    """

    def __init__(
        self, role: str, driver_id: str, run: Callable[[], None]
    ) -> None:
        """Describe the thread; nothing runs yet.

        :param role: one of :data:`ROLES`
        :param driver_id: the driver instance it works for
        :param run: the loop; it returns when it was asked to end
        """
        if role not in ROLES:
            raise ValueError(f'role {role!r} is not one of {ROLES}')
        self._run = run
        self._thread = threading.Thread(
            target=self._guard, name=f'zmq-{role}-{driver_id}', daemon=True
        )
        # Set when it runs, or cannot: another thread may want its end before.
        self._begun = threading.Event()

    @property
    def name(self) -> str:
        """The name of the thread."""
        return self._thread.name

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: the system has no thread left
        """
        try:
            self._thread.start()
        finally:
            self._begun.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread, and for its start before that.

        :param timeout: seconds
        :returns: whether it has ended
        """
        deadline = clock.Deadline(timeout)
        if self.is_current() or not self._begun.wait(timeout):
            return False
        if self._thread.ident is not None:
            self._thread.join(deadline.left())
        return not self._thread.is_alive()

    def is_current(self) -> bool:
        """Return whether the caller runs on this thread."""
        return self._thread is threading.current_thread()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _guard(self) -> None:
        try:
            self._run()
        except Exception:
            # A loop of this package survives its own errors; what arrives
            # here is a defect, and silence would hide it.
            LOG.exception('%s ended by an unexpected error', self.name)
