# SPDX-License-Identifier: Apache-2.0
"""The contract that every store of notifications fulfils.

A store has *queues*, one for each listener pool of each address, and one for
each address that no pool was known of. A queue holds *copies*: one message,
to be processed by one member of that pool. Copies that were delivered too
often are *dead letters* and wait for an operator in queues of their own.
"""

import abc
from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import counters as counters_
from zmq_driver import ipc
from zmq_driver import options as options_


class StoreError(Exception):
    """The store did not do what it was asked to.

    Nothing has changed, unless it is a :class:`StoreUncertain`, or a
    :class:`StoreAway` that says so.
    """


class StoreFull(StoreError):
    """A bound of the store is reached; the text names store and option."""


class StoreUnavailable(StoreError):
    """The store cannot be used now; the text says why and what to do."""


class StoreAway(StoreUnavailable):
    """The store does not answer, and may answer a moment later.

    Thread: any.
    """

    def __init__(self, text: str, *, may_be_done: bool = False) -> None:
        """Say why.

        :param may_be_done: whether it may have done what it was asked to;
            to ask it again is safe
        """
        super().__init__(
            f'{text}; it may have been done' if may_be_done else text
        )
        self.may_be_done = may_be_done


class StoreUncertain(StoreError):
    """The store failed when it was about to be done: it may be done."""

    def __init__(self, problem: str) -> None:
        """Say what is wrong, and that it may be done all the same."""
        super().__init__(f'{problem}; it may have been stored')


class Holder(NamedTuple):
    """The listener that a copy was sent to, and that may have it."""

    #: Its endpoint, as its route has it.
    endpoint: str
    #: Its incarnation, 16 bytes.
    incarnation: bytes


class Copy(NamedTuple):
    """What one listener pool has to get of a message."""

    #: The listener pool; None: of whoever comes first.
    pool: str | None
    #: Who may have it already; None: nobody.
    holder: Holder | None = None


class Key(NamedTuple):
    """What the store calls a copy; of use only to the store itself."""

    queue: int
    #: Grows with the age of the store: smaller numbers are older.
    number: int


class Stored(NamedTuple):
    """A copy as it was stored."""

    key: Key
    #: The id on the wire, 16 bytes.
    message_id: bytes
    where: address.Address
    pool: str | None
    #: Context and message, serialized.
    body: bytes
    #: When it was stored: seconds since the epoch.
    stored_at: float
    #: How many times it was held.
    attempts: int
    holder: Holder | None


class Queue(NamedTuple):
    """The copies that wait for the same listener pool."""

    number: int
    where: address.Address
    #: None: no pool was known when they were stored.
    pool: str | None
    #: Whether it holds dead letters.
    dead: bool
    copies: int
    #: When the oldest was stored, seconds since the epoch; None: it is empty.
    oldest: float | None
    #: When a member of the pool was last known to be there, likewise.
    seen: float | None


class Counts(NamedTuple):
    """What the store holds in all."""

    #: Copies that wait.
    copies: int
    #: Dead letters.
    dead: int
    #: Bytes of the bodies of both.
    size: int


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """What a driver tells its store.

    Thread: any.
    """

    #: The directory of this host's ipc endpoints.
    directory: ipc.IpcDirectory
    #: Names the deployment: stores of different ones never share anything.
    site: str
    options: options_.Settings
    #: Counts ``notifications_stored``, ``_dropped`` and ``_buried``.
    counters: counters_.Counters
    #: How listeners are found, and on which virtual host.
    matchmaker: str = 'local'
    virtual_host: str = ''
    #: The transport URL, for stores that connect. It may hold passwords.
    url: oslo_messaging.TransportURL | None = dataclasses.field(
        default=None, repr=False
    )


class NotificationStore(abc.ABC):
    """Holds notifications until a listener of each pool has done them.

    Making one touches nothing; what it needs is opened by the first method
    that needs it. It belongs to the process: after a fork the child calls
    :meth:`forget` on what it inherited and makes its own. Every method may
    raise :class:`StoreUnavailable` if it says so, and works again later if
    the reason is gone.

    Thread: any.
    """

    #: Whether anything can be stored. If not, senders wait for listeners.
    stores: bool = True

    #: Whether a copy that is moved to another queue gets a new number there.
    renumbers: bool = True

    #: Seconds between two questions whether this driver may drain now.
    standby: float = 1.0

    #: Seconds until somebody else has what was under way for a driver that
    #: ended while it drained.
    takeover: float = 3.0

    def __init__(self, settings: StoreSettings) -> None:
        """Keep *settings*; no input or output happens yet."""
        self.settings = settings

    @abc.abstractmethod
    def add(
        self,
        where: address.Address,
        message_id: bytes,
        body: bytes,
        copies: Sequence[Copy],
        deadline: clocks.Deadline,
    ) -> None:
        """Store a message for some listener pools, all of them or none.

        Pools become durable by it.

        :raises StoreFull: at a bound, if that is to be refused
        :raises StoreAway: it does not answer; asking again is safe
        :raises StoreUnavailable: it cannot be stored by the deadline
        :raises StoreUncertain: it may be stored, or not
        """

    @abc.abstractmethod
    def pools(self, where: address.Address) -> frozenset[str]:
        """Return the durable pools of an address.

        The answer may be a second old, so that asking for each message costs
        nothing, older if need be. It waits half a second at most.

        :raises StoreUnavailable: they are not known, and never were
        """

    @abc.abstractmethod
    def saw(self, where: address.Address, pools: Collection[str]) -> None:
        """Make pools durable, which have members now.

        It costs nothing if that was said a little while ago. It waits half a
        second at most.

        :raises StoreUnavailable: that cannot be written
        """

    @abc.abstractmethod
    def pending(
        self, limit: int, after: int = 0, *, dead: bool = False
    ) -> list[Queue]:
        """Return queues that are not empty, by number.

        What is too old, or of a pool that was not seen for too long, is
        dropped on that occasion.

        :param limit: return at most so many
        :param after: return only queues with a larger number
        :param dead: return queues of dead letters instead
        :raises StoreUnavailable: the store cannot be read
        """

    @abc.abstractmethod
    def take(
        self,
        queue: int,
        limit: int,
        after: int = 0,
        *,
        size: int = 2**24,
        held: bool = False,
    ) -> list[Stored]:
        """Return the oldest copies of a queue; they stay in it.

        If several drain at once, each gets what no other has, or what one
        has left that drains no more. Who does not drain looks at all.

        :param queue: the number of the queue; one that is gone is empty
        :param limit: return at most so many
        :param after: return only copies with a larger ``key.number``, and
            such that another one has left
        :param size: return no more, once the bodies have so many bytes
        :param held: return only copies that have a holder
        :raises StoreUnavailable: the store cannot be read
        """

    def put_back(self, queue: int) -> None:  # noqa: B027 - few have to
        """Let others who drain have what this driver took of a queue.

        None of it may be under way.

        :raises StoreUnavailable: they get it when this one drains no more
        """

    @abc.abstractmethod
    def hold(self, keys: Sequence[Key], holder: Holder) -> None:
        """Write down who is about to be sent some copies.

        It counts an attempt of each. Call it before sending: whoever drains
        next then asks this listener first.

        :raises StoreUnavailable: it is not written, so do not send
        """

    @abc.abstractmethod
    def release(self, keys: Sequence[Key]) -> None:
        """Write down that the holder of these copies does not have them.

        The attempt that :meth:`hold` counted is not one.

        :raises StoreUnavailable: it is not written
        """

    @abc.abstractmethod
    def done(self, keys: Sequence[Key]) -> None:
        """Remove copies that a listener has processed.

        Those that are gone already are no error.

        :raises StoreUnavailable: they are still there
        """

    @abc.abstractmethod
    def split(self, keys: Sequence[Key], pools: Collection[str]) -> None:
        """Turn copies for whoever comes first into one for each pool.

        Holder and attempts are kept by the first of *pools* in order.

        :param keys: of queues whose pool is None
        :param pools: at least one
        :raises StoreUnavailable: nothing has changed
        """

    @abc.abstractmethod
    def bury(self, keys: Sequence[Key]) -> None:
        """Make copies dead letters, which nobody is sent any more.

        :raises StoreUnavailable: nothing has changed
        """

    @abc.abstractmethod
    def replay(self, queue: int, limit: int) -> int:
        """Make dead letters copies that wait again, with no attempt counted.

        :param queue: the number of a queue of dead letters
        :param limit: the oldest so many
        :returns: how many they were; 0 when none is left
        :raises StoreUnavailable: nothing has changed
        """

    @abc.abstractmethod
    def purge(self, queue: int, limit: int) -> int:
        """Drop the oldest copies of a queue; an operator asked for it.

        :param limit: the oldest so many
        :returns: how many they were; 0 when none is left
        :raises StoreUnavailable: nothing has changed
        """

    @abc.abstractmethod
    def remove(self, queue: int) -> bool:
        """Forget an empty queue, and so a durable pool.

        :returns: False if it is not empty, and still there
        :raises StoreUnavailable: nothing has changed
        """

    @abc.abstractmethod
    def queues(self, limit: int, after: int = 0) -> list[Queue]:
        """Return all queues by number, empty and dead ones too.

        :raises StoreUnavailable: the store cannot be read
        """

    @abc.abstractmethod
    def counts(self) -> Counts:
        """Return what the store holds, without counting it.

        :raises StoreUnavailable: the store cannot be read
        """

    @abc.abstractmethod
    def changed(self) -> bool:
        """Return whether something was added since the last such question.

        By any process. It is cheap, and says yes if in doubt, the first time
        for instance.

        :raises StoreUnavailable: the store cannot be read
        """

    @abc.abstractmethod
    def claim(self) -> bool:
        """Return whether this driver may drain the store now.

        Of all who ask, one is told yes, or a few if each gets copies of its
        own, each time it asks, until it calls :meth:`unclaim` or
        :meth:`close` or its process ends, however it does; a child that it
        forked meanwhile keeps nobody waiting. Who is told no after he was
        told yes has to give up what he has taken, and then to call
        :meth:`unclaim`; he may be told no until he does.

        :raises StoreUnavailable: that cannot be found out
        """

    @abc.abstractmethod
    def unclaim(self) -> None:
        """Let another one drain; does nothing unless :meth:`claim` did."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; idempotent. Later calls raise
        :class:`StoreUnavailable`.
        """

    @abc.abstractmethod
    def forget(self) -> None:
        """Let go of what a forked child inherited, touching nothing of the
        parent's.
        """
