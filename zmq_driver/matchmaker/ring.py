# SPDX-License-Identifier: Apache-2.0
"""The matchmaker of small fixed sites: a JSON file that lists all listeners.

Nothing is registered: the file says who listens where, and each process takes
the port that it finds there for itself.
"""

from collections.abc import Hashable
from collections.abc import Sequence
import logging
import pathlib
import time
from typing import NamedTuple

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import envelope
from zmq_driver import hosts
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import ring_file

LOG = logging.getLogger(__name__)

#: Two changes within this time may leave the same time stamp, see
#: :mod:`zmq_driver.matchmaker.local`. In nanoseconds.
RACY_NS = 20_000_000

#: Device, inode, size and time of the last change of the file.
_Mark = tuple[int, int, int, int]


class RingMatchmaker(base.Matchmaker):
    """Finds listeners in a file, which is read again when it changes.

    Thread: any.
    """

    spans_hosts = True

    def __init__(self, settings: base.MatchmakerSettings) -> None:
        """Keep *settings*; no input or output happens yet."""
        super().__init__(settings)
        options = settings.options
        if options is None:
            raise ValueError('the ring needs the options of the driver')
        path = None if settings.url is None else _path(settings.url)
        self._path = pathlib.Path(path or options.ringfile)
        self._default_port = options.rpc_zmq_port
        # Replaced as a whole. Two threads may read the file at once; what is
        # older than the file is read again at the next look.
        self._found = _Found(None, {}, '')
        self._ended = ''

    @classmethod
    def check_url(cls, url: oslo_messaging.TransportURL) -> str | None:
        """Return what makes *url* unusable: its path is a file, not a host."""
        if not url.hosts:
            return None
        return (
            'a ring is a file of this host; write zmq+ring:///path/ring.json, '
            'with three slashes'
        )

    @classmethod
    def virtual_host(cls, url: oslo_messaging.TransportURL) -> str:
        """Return '': a ring has none, and the path of *url* is the file."""
        return ''

    def register(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """See whether the file lists a listener; it cannot be changed.

        One that is missing there is found by nobody, and the log says so.

        :raises MatchmakerUnavailable: this matchmaker is closed
        """
        if self._ended:
            raise base.MatchmakerUnavailable(self._ended)
        route = registration.route
        _, _, port = registration.tcp_endpoint.rpartition(':')
        entries = self._entries(registration.address)
        if any(
            _server(entry, registration.address) == route.server
            and str(entry.port) == port
            for entry in entries
        ):
            return
        LOG.warning(
            'Nobody will find the listener at %s, server %r, port %s: %s does '
            'not list it. Add it there.',
            registration.address,
            route.server,
            port or 'none',
            self._path,
        )

    def unregister(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Do nothing: the file stays as it is."""

    def ports(
        self, addresses: Sequence[address.Address], server: str
    ) -> tuple[int, ...]:
        """Return the ports at which the file has a listener.

        :returns: in the order of the file; empty if it does not list it
        :raises MatchmakerUnavailable: no ring could be read so far
        """
        self._read()
        found = dict.fromkeys(
            entry.port
            for where in addresses
            for entry in self._entries(where)
            if _server(entry, where) == server
        )
        return tuple(found)

    def lookup(
        self, where: address.Address, deadline: clock.Deadline
    ) -> base.Routes:
        """Return who is in the file.

        :returns: whoever it lists, whether he is there or not
        :raises MatchmakerUnavailable: no ring could be read so far
        """
        self._read()
        return base.Routes(
            address.Route(
                entry.endpoint,
                envelope.ANY_INCARNATION,
                _server(entry, where),
            )
            for entry in self._entries(where)
        )

    def revision(self, where: address.Address) -> Hashable:
        """Return a mark of the file, which changes when it does."""
        mark = self._look()
        if mark is None or abs(time.time_ns() - mark[3]) < RACY_NS:
            return None
        return mark

    def records(self, deadline: clock.Deadline) -> list[base.Record]:
        """Return every line of the file; nothing of it expires.

        Exchanges are not in a ring, and neither are process ids.

        :raises MatchmakerUnavailable: no ring could be read so far
        """
        self._read()
        return [
            _record(topic, entry)
            for topic, entries in self._found.ring.items()
            for entry in entries
        ]

    def close(self, deadline: clock.Deadline) -> None:
        """Take no more registrations; idempotent."""
        self._ended = self._ended or 'the matchmaker is closed'

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._ended = 'the matchmaker was inherited over a fork'

    # -- the file

    def _entries(self, where: address.Address) -> tuple[ring_file.Entry, ...]:
        """Return what the ring that was read last has for an address."""
        ring = self._found.ring
        found = ring.get(where.topic)
        if found is None and where.scope is address.Scope.NOTIFICATION:
            # All priorities of a topic.
            found = ring.get(where.topic.rpartition('.')[0])
        return found or ()

    def _look(self) -> _Mark | None:
        """Return the mark of the file as it is; None if there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> None:
        """Read the file if it has changed.

        :raises MatchmakerUnavailable: no ring could be read so far
        """
        mark = self._look()
        if mark is None or mark != self._found.mark:
            self._found = found = self._read_again(self._found)
        else:
            found = self._found
        if found.mark is None:
            raise base.MatchmakerUnavailable(
                f'there is no ring: {self._path} {found.problem}'
            )

    def _read_again(self, before: '_Found') -> '_Found':
        """Return what the file says, or else what it said before."""
        mark = self._look()
        try:
            text = self._path.read_text(encoding='utf-8')
            ring = ring_file.parse(text, self._default_port)
        except OSError as error:
            problem = f'cannot be read: {error.strerror}'
        except UnicodeDecodeError as error:
            problem = f'is not UTF-8: byte {error.start}'
        except ring_file.RingFileError as error:
            problem = f'is wrong: {error}'
        else:
            if before.problem:
                LOG.info('Ring file %s is good again.', self._path)
            return _Found(mark, ring, '')
        if problem != before.problem:
            LOG.error(
                'Ring file %s %s. %s',
                self._path,
                problem,
                'What it said before counts on.'
                if before.mark is not None
                else 'Nobody can be found.',
            )
        # A file that cannot be read is looked at again, one that is wrong
        # only when it has changed.
        seen = before.mark if mark is None or before.mark is None else mark
        return _Found(seen, before.ring, problem)


class _Found(NamedTuple):
    """The ring that was read last.

    Thread: any (immutable).
    """

    #: Of the file when it was read; None if there was never a good one.
    mark: _Mark | None
    ring: ring_file.Ring
    #: What is wrong with the file now; '' if nothing.
    problem: str


def _path(url: oslo_messaging.TransportURL) -> str | None:
    return f'/{url.virtual_host}' if url.virtual_host else None


def _server(entry: ring_file.Entry, where: address.Address) -> str:
    """Return what a listener is called: as its host, if nothing is said."""
    if entry.server is not None:
        return entry.server
    if where.scope is address.Scope.NOTIFICATION:
        return ''
    return hosts.unbracketed(entry.host)


def _record(topic: str, entry: ring_file.Entry) -> base.Record:
    where = address.Address(address.Scope.RPC, '', topic)
    route = address.Route(
        entry.endpoint, envelope.ANY_INCARNATION, _server(entry, where)
    )
    registration = address.Registration(where, route, entry.endpoint)
    return base.Record(registration, entry.host, 0, '', None)
