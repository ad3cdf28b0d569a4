# SPDX-License-Identifier: Apache-2.0
"""The right of one thread to use one socket."""

from collections.abc import Callable
import threading
import types
from typing import Generic
from typing import NamedTuple

from zmq_driver import ownership
from zmq_driver.pool import entry as entries
from zmq_driver.pool import errors
from zmq_driver.pool import state
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT


class AbandonedLease(NamedTuple):
    """A socket that was not given back before its pool was closed."""

    #: To whom the socket was.
    peer: object
    #: The name of the thread that holds it.
    owner: str
    #: For how long, in seconds.
    age: float

    def __str__(self) -> str:
        return f'{self.peer!r} held by {self.owner} for {self.age:.3f} s'


class SocketLease(Generic[PeerT, SocketT]):
    """A socket, checked out of a pool by one thread.

    Left normally, its block checks the socket in; left by an exception, it
    retires it, because nobody knows what may still arrive on it::

        with pool.checkout(peer, deadline) as lease:
            lease.socket.send(...)

    Without a block, :meth:`release` must be called.

    Thread: owner only (checked).
    """

    __slots__ = ('_checkin', '_entry', '_owner', '_reason', '_socket', 'fresh')

    def __init__(
        self,
        checkin: Callable[
            [
                entries.PoolEntry[PeerT, SocketT],
                threading.Thread,
                state.EvictReason | None,
            ],
            None,
        ],
        entry: entries.PoolEntry[PeerT, SocketT],
        socket: SocketT,
        owner: threading.Thread,
        fresh: bool,
    ) -> None:
        """Begin the lease; only the pool does that."""
        self._checkin = checkin
        self._entry: entries.PoolEntry[PeerT, SocketT] | None = entry
        self._socket = socket
        self._owner = owner
        self._reason: state.EvictReason | None = None
        #: Whether the socket was opened for this lease: its connection may
        #: not stand yet.
        self.fresh = fresh

    @property
    def socket(self) -> SocketT:
        """The socket.

        :raises OwnershipError: the lease belongs to another thread
        :raises LeaseEnded: the lease has ended
        """
        self._get_entry()
        return self._socket

    @property
    def peer(self) -> PeerT:
        """To whom the socket is.

        :raises OwnershipError: the lease belongs to another thread
        :raises LeaseEnded: the lease has ended
        """
        return self._get_entry().home.peer

    def retire(self, reason: state.EvictReason) -> None:
        """Have the socket closed at the end of the lease.

        The first reason given stays.

        :raises OwnershipError: the lease belongs to another thread
        :raises LeaseEnded: the lease has ended
        """
        self._get_entry()
        if self._reason is None:
            self._reason = reason

    def release(self) -> None:
        """End the lease: check the socket in, or close it if retired.

        It does not block and raises nothing else, whatever the socket does.

        :raises OwnershipError: the lease belongs to another thread
        :raises LeaseEnded: the lease has ended already
        """
        entry = self._get_entry()
        self._entry = None
        self._checkin(entry, self._owner, self._reason)

    def __enter__(self) -> 'SocketLease[PeerT, SocketT]':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._entry is None:
            # Released within the block.
            return
        if kind is not None:
            self.retire(state.EvictReason.UNFINISHED)
        self.release()

    def __repr__(self) -> str:
        entry = self._entry
        where = 'ended' if entry is None else f'to {entry.home.peer!r}'
        return f'<SocketLease {where}, of {self._owner.name}>'

    def _get_entry(self) -> entries.PoolEntry[PeerT, SocketT]:
        current = threading.current_thread()
        if self._owner is not current:
            raise ownership.OwnershipError(
                f'{self!r} was used by {current.name}'
            )
        if self._entry is None:
            raise errors.LeaseEnded(
                f'{self!r} was used or released after its end'
            )
        return self._entry
