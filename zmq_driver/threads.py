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


class LazyThread:
    """A service thread that starts when it is needed, once at most.

    Thread: any.
    """

    def __init__(self, role: str, driver_id: str) -> None:
        """Describe the thread, as :class:`ServiceThread`; nothing runs yet."""
        self._role = role
        self._driver_id = driver_id
        self._lock = threading.Lock()
        self._thread: ServiceThread | None = None
        self._ended = False

    def start(self, run: Callable[[], None]) -> None:
        """Start the thread, unless that was done or it has to end; cheap.

        :param run: the loop; it returns when it was asked to end
        :raises RuntimeError: the system has no thread left; there is none
            later either
        """
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None or self._ended:
                return
            self._thread = ServiceThread(self._role, self._driver_id, run)
            thread = self._thread
        thread.start()

    def end(self, deadline: clock.Deadline) -> bool:
        """Wait for the end of the loop, which was asked to; start none.

        :returns: whether it has ended, or never began
        """
        with self._lock:
            self._ended = True
            thread = self._thread
        return thread is None or thread.join(deadline.left())

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()
