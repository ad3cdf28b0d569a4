# SPDX-License-Identifier: Apache-2.0
"""The messages that were accepted and are not dealt with yet."""

from collections.abc import Callable
import functools
import threading

from zmq_driver import clock


class Unfinished:
    """Counts the accepted messages of all listeners of a driver.

    Thread: any.
    """

    def __init__(self) -> None:
        """Begin with none."""
        #: Guards the counts of the driver and of its listeners.
        self.lock = threading.Lock()
        self._none = threading.Condition(self.lock)
        self._count = 0

    @property
    def count(self) -> int:
        """How many there are now."""
        return self._count

    def add_locked(self) -> None:
        """Count one more."""
        self._count += 1

    def remove_locked(self) -> None:
        """Count one less."""
        self._count -= 1
        if not self._count:
            self._none.notify_all()

    def wait(self, deadline: clock.Deadline) -> bool:
        """Wait until there are none; return whether there are none."""
        with self.lock:
            return self._none.wait_for(
                lambda: not self._count, deadline.left()
            )


class Backlog:
    """The share that one listener has of them, which is limited.

    Thread: any.
    """

    def __init__(
        self, most_messages: int, most_bytes: int, unfinished: Unfinished
    ) -> None:
        """Begin with an empty one.

        :param most_messages: how many there may be at once
        :param most_bytes: how large their bodies may be together; a single
            one may be larger
        """
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._unfinished = unfinished
        self._messages = 0
        self._bytes = 0

    def enter(self, size: int) -> Callable[[], None] | None:
        """Count one more, unless a limit is reached.

        :param size: bytes of its body
        :returns: what is to be called once when the message is dealt with;
            None: the message is not to be accepted
        """
        with self._unfinished.lock:
            if self._messages and (
                self._messages >= self._most_messages
                or self._bytes + size > self._most_bytes
            ):
                return None
            self._messages += 1
            self._bytes += size
            self._unfinished.add_locked()
        return functools.partial(self._leave, size)

    def _leave(self, size: int) -> None:
        with self._unfinished.lock:
            self._messages -= 1
            self._bytes -= size
            self._unfinished.remove_locked()
