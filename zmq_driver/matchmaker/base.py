# SPDX-License-Identifier: Apache-2.0
"""The contract that every matchmaker fulfils."""

import abc
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock as clocks
from zmq_driver import ipc
from zmq_driver import options as options_


class MatchmakerUnavailable(Exception):
    """The backend could not be asked: it is unknown who listens.

    This is never the same as an empty answer, which says that nobody does.
    """


class MatchmakerMisconfigured(MatchmakerUnavailable):
    """The backend refuses for a reason that waiting does not mend."""


@dataclasses.dataclass(frozen=True)
class MatchmakerSettings:
    """What a driver tells its matchmaker.

    Thread: any.
    """

    #: The directory of this host's ipc endpoints.
    directory: ipc.IpcDirectory
    #: The virtual host of the transport URL; '' when it names none.
    virtual_host: str
    #: Names the driver instance in this pid; unique in the directory.
    member: str
    clock: clocks.Clock = clocks.monotonic
    #: The transport URL; None: one without hosts. It may hold passwords.
    url: oslo_messaging.TransportURL | None = dataclasses.field(
        default=None, repr=False
    )
    #: All options of the driver; matchmakers that have any need it.
    options: options_.Settings | None = None


class Record(NamedTuple):
    """A registration as the backend has it, for those who look after it."""

    registration: address.Registration
    #: The host name of the process.
    host: str
    #: Its process id there.
    pid: int
    #: When its member began: ISO 8601 with the offset from UTC.
    started: str
    #: Seconds until it must have been renewed; None: it does not expire.
    expires_in: float | None


class Routes:
    """The answer to one lookup: every listener of an address.

    Thread: any (immutable).
    """

    __slots__ = ('_by_server', 'gone', 'routes', 'settled')

    def __init__(
        self,
        routes: Iterable[address.Route],
        *,
        settled: bool = True,
        gone: Iterable[bytes] = (),
    ) -> None:
        """Index *routes*; they are sorted, so that every client agrees.

        :param settled: whether they are all; False if the backend may have
            lost some, which will be registered again soon
        :param gone: if not settled, incarnations of listeners that left
        """
        self.routes = tuple(sorted(routes))
        self.settled = settled
        self.gone = frozenset(gone)
        by_server: dict[str, list[address.Route]] = {}
        for route in self.routes:
            by_server.setdefault(route.server, []).append(route)
        self._by_server = {
            server: tuple(found) for server, found in by_server.items()
        }

    def of_server(self, server: str) -> tuple[address.Route, ...]:
        """Return the routes to one server (or listener pool), maybe none."""
        return self._by_server.get(server, ())

    def matching(self, server: str | None) -> tuple[address.Route, ...]:
        """Return all routes, or those to *server* if it is not None."""
        return self.routes if server is None else self.of_server(server)

    def servers(self) -> tuple[str, ...]:
        """Return the names of all servers (or listener pools)."""
        return tuple(self._by_server)

    def __bool__(self) -> bool:
        return bool(self.routes)

    def __len__(self) -> int:
        return len(self.routes)


class Matchmaker(abc.ABC):
    """A registry of listeners, shared by the processes of a deployment.

    A matchmaker is made on first use in a process, never in a constructor of
    the driver, and belongs to that process: after a fork the child calls
    :meth:`forget` on what it inherited and makes its own.

    Thread: any.
    """

    #: Whether listeners on other hosts are found. Only then does a driver
    #: listen on TCP, and registrations have a ``tcp_endpoint``.
    spans_hosts: bool = False

    #: Whether asking waits for a server. Then the cache asks before an
    #: answer is too old, on a thread of its own.
    waits_for_server: bool = False

    #: Defaults of the options ``lookup_ttl`` and ``lookup_negative_ttl``, in
    #: seconds.
    lookup_ttl: float = 2.0
    lookup_negative_ttl: float = 0.02

    def __init__(self, settings: MatchmakerSettings) -> None:
        """Keep *settings*; no input or output happens yet."""
        self.settings = settings

    @classmethod
    def check_url(cls, url: oslo_messaging.TransportURL) -> str | None:
        """Return what makes *url* unusable for this matchmaker, or None.

        Called when a driver is made, so that a mistake is seen at start.
        """
        return None

    @classmethod
    def virtual_host(cls, url: oslo_messaging.TransportURL) -> str:
        """Return the virtual host that *url* names; '' if none."""
        return url.virtual_host or ''

    def ports(
        self, addresses: Sequence[address.Address], server: str
    ) -> Sequence[int] | None:
        """Return the TCP ports at which others expect a listener.

        :param server: the name of the server, or of the listener pool
        :returns: one of these has to be taken; None: any that is free
        :raises MatchmakerUnavailable: that is not known
        """
        return None

    @abc.abstractmethod
    def register(
        self, registration: address.Registration, deadline: clocks.Deadline
    ) -> None:
        """Publish a registration; doing it twice is doing it once.

        :raises MatchmakerUnavailable: the backend did not take it
        """

    @abc.abstractmethod
    def unregister(
        self, registration: address.Registration, deadline: clocks.Deadline
    ) -> None:
        """Withdraw a registration; an unknown one is no error.

        :raises MatchmakerUnavailable: the backend did not answer
        """

    @abc.abstractmethod
    def lookup(
        self, where: address.Address, deadline: clocks.Deadline
    ) -> Routes:
        """Ask the backend, not a cache, who listens at *where*.

        :returns: live listeners only; empty when there is nobody
        :raises MatchmakerUnavailable: the backend did not answer
        """

    def revision(self, where: address.Address) -> Hashable:
        """Return a cheap mark that changes when the answer may have changed.

        None means that this backend has no such mark, or cannot vouch for it
        right now.
        """
        return None

    @abc.abstractmethod
    def records(self, deadline: clocks.Deadline) -> list[Record]:
        """Return every registration of the virtual host, sorted.

        It is for operators; senders ask :meth:`lookup`.

        :raises MatchmakerUnavailable: the backend did not answer
        """

    def clock_offset(self, deadline: clocks.Deadline) -> float | None:
        """Return how far the clock of the backend is ahead, in seconds.

        :returns: None if the backend has no clock of its own
        :raises MatchmakerUnavailable: the backend did not answer
        """
        return None

    def watch(  # noqa: B027 - not every backend has messages
        self, on_changed: Callable[[address.Address], object]
    ) -> None:
        """Tell *on_changed* of addresses that listeners join or leave.

        Of those only that were looked up before, as far as the backend can,
        and from any thread; it must not block. A backend without such
        messages ignores it.
        """

    @property
    def settle_time(self) -> float:
        """Seconds in which a backend that lost its records has them again."""
        return 0.0

    @abc.abstractmethod
    def close(self, deadline: clocks.Deadline) -> None:
        """Withdraw what is left and release everything; idempotent."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Let go of what a forked child inherited, touching nothing of the
        parent's.
        """
