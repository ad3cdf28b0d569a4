# SPDX-License-Identifier: Apache-2.0
"""Waits for the first of several sockets that has something to tell."""

import select
from typing import Generic
from typing import Protocol
from typing import TypeVar

from zmq_driver import socket_options

T = TypeVar('T')


class Watchable(Protocol):
    """A socket that tells of news by a descriptor.

    Thread: owner only.
    """

    def fileno(self) -> int:
        """Return the descriptor, or -1 if there is none."""


class Readiness(Generic[T]):
    """Sockets of which those are wanted that have news.

    A descriptor of libzmq tells of what came after the last look at its
    socket, and not of what was there. So each socket must be looked at
    between its last use and a wait.

    Thread: owner only (the sockets check).
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poll = select.poll()
        self._owners: dict[int, T] = {}
        self._descriptors: dict[T, int] = {}

    def add(self, owner: T, socket: Watchable) -> None:
        """Watch *socket*; one without a descriptor has no news.

        :param owner: what :meth:`wait` calls it
        """
        descriptor = socket.fileno()
        if descriptor >= 0:
            self._poll.register(descriptor, select.POLLIN)
            self._owners[descriptor] = owner
            self._descriptors[owner] = descriptor

    def remove(self, owner: T) -> None:
        """Watch a socket no more, before its descriptor is closed."""
        descriptor = self._descriptors.pop(owner, -1)
        if descriptor >= 0:
            self._poll.unregister(descriptor)
            del self._owners[descriptor]

    def wait(self, timeout: float) -> list[T]:
        """Return those that may have news, none if there are none in time.

        :param timeout: seconds
        """
        found = self._poll.poll(socket_options.milliseconds(timeout))
        return [self._owners[descriptor] for descriptor, _ in found]
