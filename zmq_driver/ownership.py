# SPDX-License-Identifier: Apache-2.0
"""The check behind every "owner only" promise in this package."""

import threading


class OwnershipError(RuntimeError):
    """A thread used an object that belongs to another thread.

    This is a programming error in the driver or in its caller; it is never
    raised because of what the network does.
    """


class Owned:
    """An object that one thread at a time may use.

    The owner is remembered as the Thread object, because thread identifiers
    are reused by the interpreter. Ownership changes hands only where a lock
    (the pool's) or a thread start orders the two threads' memory.

    Thread: owner only (checked).
    """

    __slots__ = ('_owner',)

    def __init__(self) -> None:
        self._owner: threading.Thread | None = threading.current_thread()

    def hand_over(self, owner: threading.Thread | None) -> None:
        """Make *owner* the only thread that may use this object.

        :param owner: the new owner, or None while nobody may use it
        """
        self._owner = owner

    def check_owner(self) -> None:
        """Raise unless the current thread is the owner.

        :raises OwnershipError: another thread, or nobody, is the owner
        """
        current = threading.current_thread()
        if self._owner is not current:
            owner = self._owner.name if self._owner else 'nobody'
            raise OwnershipError(
                f'{self!r} belongs to {owner}, used by {current.name}'
            )
