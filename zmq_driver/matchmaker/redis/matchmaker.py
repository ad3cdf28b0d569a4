# SPDX-License-Identifier: Apache-2.0
"""The Redis and the Sentinel matchmaker."""

from collections.abc import Callable
import datetime
import logging
import os
import socket
import threading
import time

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import forgetting
from zmq_driver import ipc
from zmq_driver import options as options_
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import connections as connections_
from zmq_driver.matchmaker.redis import published as published_
from zmq_driver.matchmaker.redis import record as record_
from zmq_driver.matchmaker.redis import renewal as renewal_
from zmq_driver.matchmaker.redis import scripts
from zmq_driver.matchmaker.redis import servers as servers_
from zmq_driver.matchmaker.redis import store as store_
from zmq_driver.matchmaker.redis import targets
from zmq_driver.matchmaker.redis import watch as watch_

LOG = logging.getLogger(__name__)

#: Seconds that one round of renewal may take.
ROUND_TIMEOUT = 10.0

_MAX_COMPLAINTS = 1_000


class RedisMatchmaker(base.Matchmaker):
    """Processes of many hosts find each other through one Redis.

    Nothing connects, and no thread runs, before the first operation.

    Thread: any.
    """

    spans_hosts = True
    waits_for_server = True
    # Joins and leaves are told, and a listener that does not answer is
    # noticed by the sender. So this only bounds what messages that were lost
    # may cost, and how often each process asks.
    lookup_ttl = 30.0
    # A join is told. 10,000 processes that wait for one server must not keep
    # Redis busy.
    lookup_negative_ttl = 1.0

    def __init__(self, settings: base.MatchmakerSettings) -> None:
        """Keep *settings*; no input or output happens yet.

        :raises ValueError: *settings* has no options
        """
        super().__init__(settings)
        if settings.options is None:
            raise ValueError('this matchmaker needs the options of the driver')
        options = settings.options
        self._times = store_.Times.of(
            options.matchmaker_heartbeat_ttl, options.matchmaker_heartbeat_freq
        )
        keys = scripts.Keys(options.redis_key_prefix, settings.virtual_host)
        self._connections = connections_.Connections(
            self._servers(settings.url, options), settings.clock
        )
        self._store = store_.Store(self._connections, keys, self._times)
        self._published = published_.PublishedRecords()
        self._renewal = renewal_.Renewal(
            settings.member, options.matchmaker_heartbeat_freq, self._renew
        )
        self._watch = watch_.Watch(settings.member, self._connections, keys)
        self._lock = threading.Lock()
        self._host = socket.gethostname()
        now = datetime.datetime.now(datetime.UTC)
        self._started = now.isoformat(timespec='seconds')
        self._ignored: set[bytes] = set()
        self._told_unreachable: set[address.Address] = set()
        # Wanted, and not published yet because Redis was away.
        self._late: set[address.Registration] = set()
        forgetting.in_children(self)

    @classmethod
    def check_url(cls, url: oslo_messaging.TransportURL) -> str | None:
        """Return what makes *url* unusable: there is one Redis at most."""
        if len(url.hosts) > 1:
            return (
                'there is one Redis; for several, watched over by Sentinel, '
                'use zmq+sentinel://'
            )
        return None

    @classmethod
    def _servers(
        cls,
        url: oslo_messaging.TransportURL | None,
        options: options_.Settings,
    ) -> servers_.Servers:
        """Return who is connected to."""
        return targets.redis_server(url, options)

    @property
    def settle_time(self) -> float:
        """Seconds in which a Redis that lost its records has them again."""
        return self._times.settle

    def register(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Publish a registration, and renew it from now on.

        If Redis is away, the renewal publishes it when it is back.

        :raises MatchmakerUnavailable: waiting does not mend what keeps Redis
            from taking it, or this matchmaker is closed
        """
        member = self._encode(registration)
        self._published.want(registration, member)
        try:
            self._publish(registration, member, deadline)
        except BaseException:
            # It may be there all the same.
            self._published.leave(registration)
            raise
        finally:
            self._renewal.start()
        if registration in self._late:
            self._renewal.hurry()
        if why := self._published.ended():  # meanwhile
            self._store.unregister([(registration.address, member)], deadline)
            raise base.MatchmakerUnavailable(why)

    def _publish(
        self,
        registration: address.Registration,
        member: bytes,
        deadline: clock.Deadline,
    ) -> None:
        """Publish a registration, or note that it has to be done later."""
        try:
            self._published.wait_for_round(deadline)
            self._store.register([(registration.address, member)], deadline)
        except base.MatchmakerMisconfigured:
            raise
        except base.MatchmakerUnavailable as exc:
            with self._lock:
                first = not self._late
                self._late.add(registration)
            if first:
                LOG.warning(
                    'Nobody can find this process yet, which is registered '
                    'as soon as Redis is back: %s',
                    exc,
                )

    def unregister(
        self, registration: address.Registration, deadline: clock.Deadline
    ) -> None:
        """Withdraw a registration; an unknown one is no error.

        If Redis cannot be asked, the next renewals try it again.

        :raises MatchmakerUnavailable: Redis did not answer
        """
        member = self._published.leave(registration)
        with self._lock:
            self._late.discard(registration)
        if member is not None:
            self._published.wait_for_round(deadline)
            self._store.unregister([(registration.address, member)], deadline)
            self._published.left(registration)

    def lookup(
        self, where: address.Address, deadline: clock.Deadline
    ) -> base.Routes:
        """Ask Redis who listens at *where*.

        :returns: live listeners only; empty when there is nobody
        :raises MatchmakerUnavailable: Redis did not answer, or not in time
        """
        self._watch.want(where)
        mark = self._mark(where)
        found = self._store.lookup(where, deadline)
        routes = []
        unreachable = 0
        for member in found.members:
            entry = self._decode(member)
            if entry is None:
                continue
            endpoint = entry.endpoint_for(mark)
            if endpoint:
                routes.append(
                    address.Route(endpoint, entry.incarnation, entry.server)
                )
            else:
                unreachable += 1
        if unreachable:
            self._tell_unreachable(where, unreachable)
        gone = [
            entry.incarnation
            for member in found.gone
            if (entry := self._decode(member)) is not None
        ]
        return base.Routes(routes, settled=found.settled, gone=gone)

    def records(self, deadline: clock.Deadline) -> list[base.Record]:
        """Return every registration of the virtual host, sorted.

        :raises MatchmakerUnavailable: Redis did not answer
        """
        found = []
        for listed in self._store.list(deadline):
            entry = self._decode(listed.member)
            if entry is not None:
                found.append(
                    base.Record(
                        entry.registration(listed.where),
                        entry.host,
                        entry.pid,
                        entry.started,
                        listed.expires_in,
                    )
                )
        return sorted(found)

    def clock_offset(self, deadline: clock.Deadline) -> float | None:
        """Return how far the clock of Redis is ahead, in seconds.

        Half of the round trip may be counted too.

        :raises MatchmakerUnavailable: Redis did not answer
        """
        return self._store.now(deadline) - time.time()

    def watch(self, on_changed: Callable[[address.Address], object]) -> None:
        """Tell *on_changed* of joins and leaves at addresses looked up."""
        self._watch.on_changed = on_changed

    def close(self, deadline: clock.Deadline) -> None:
        """Withdraw what is left and release everything; idempotent.

        What Redis does not let go of expires by itself.
        """
        self._published.end('the matchmaker is closed')
        # No renewal may come after the withdrawal.
        ended = self._renewal.stop(deadline.within(deadline.left() / 2))
        left = self._published.take_all()
        if left:
            try:
                self._store.unregister(left, deadline)
            except base.MatchmakerUnavailable as exc:
                LOG.warning(
                    'Registrations were not withdrawn, they expire within '
                    '%.0f s: %s',
                    self._times.ttl,
                    exc,
                )
        self._connections.close()
        if not (self._watch.stop(deadline) and ended):
            LOG.warning(
                'Redis keeps a thread of %s busy', self.settings.member
            )

    def forget(self) -> None:
        """Let go of what a forked child inherited, touching nothing of the
        parent's. Children do it by themselves.
        """
        self._lock = threading.Lock()
        self._published.forget('the matchmaker was inherited over a fork')
        self._late = set()
        self._renewal.forget()
        self._watch.forget()
        self._connections.forget()

    def _renew(self) -> None:
        """Make one round of renewal.

        :raises MatchmakerUnavailable: Redis did not take it
        """
        deadline = clock.Deadline(ROUND_TIMEOUT)
        with self._lock:
            late = set(self._late)
        with self._published.round() as (wanted, leaving):
            lost = self._store.register(wanted, deadline) if wanted else 0
            if leaving:
                self._store.unregister(leaving, deadline)
        if late:
            with self._lock:
                self._late -= late
            LOG.info('Redis is back, and this process is registered')
        elif lost:
            LOG.warning(
                'Redis had lost %d of %d registrations, they are there again',
                lost,
                len(wanted),
            )

    def _encode(self, registration: address.Registration) -> bytes:
        route = registration.route
        return record_.Entry(
            ipc_endpoint=route.endpoint,
            tcp_endpoint=registration.tcp_endpoint,
            mark=self._mark(registration.address),
            incarnation=route.incarnation,
            server=route.server,
            host=self._host,
            pid=os.getpid(),
            started=self._started,
        ).encode()

    def _decode(self, member: bytes) -> record_.Entry | None:
        try:
            return record_.decode(member)
        except ValueError as exc:
            with self._lock:
                known = member in self._ignored
                if not known and len(self._ignored) < _MAX_COMPLAINTS:
                    self._ignored.add(member)
            if not known:
                LOG.warning('Ignoring a record in Redis that is none: %s', exc)
            return None

    def _mark(self, where: address.Address) -> bytes:
        try:
            return bytes.fromhex(self.settings.directory.mark())
        except ipc.IpcDirectoryError as exc:
            raise base.MatchmakerUnavailable(f'{where}: {exc}') from exc

    def _tell_unreachable(self, where: address.Address, count: int) -> None:
        with self._lock:
            if where in self._told_unreachable:
                return
            if len(self._told_unreachable) < _MAX_COMPLAINTS:
                self._told_unreachable.add(where)
        LOG.warning(
            '%d listeners of %s are not used: they have no TCP endpoint, and '
            'do not share ipc directory %s',
            count,
            where,
            self.settings.directory.path,
        )


class SentinelMatchmaker(RedisMatchmaker):
    """Processes of many hosts find each other through the Redis that
    Sentinels name as the master of a group.

    Thread: any.
    """

    @classmethod
    def check_url(cls, url: oslo_messaging.TransportURL) -> str | None:
        """Return what makes *url* unusable: it has to name Sentinels."""
        if not url.hosts or not all(host.hostname for host in url.hosts):
            return (
                'name the Sentinels: '
                'zmq+sentinel://host1:26379,host2:26379/group'
            )
        logins = {(host.username, host.password) for host in url.hosts}
        if len(logins) > 1:
            return (
                'user and password are those of Redis, and must be the same '
                'for each host; for the Sentinels set sentinel_username and '
                'sentinel_password'
            )
        return None

    @classmethod
    def virtual_host(cls, url: oslo_messaging.TransportURL) -> str:
        """Return the virtual host, which the path has after the group."""
        return targets.split_path(url)[1]

    @classmethod
    def _servers(
        cls,
        url: oslo_messaging.TransportURL | None,
        options: options_.Settings,
    ) -> servers_.Servers:
        return targets.sentinel_group(url, options)
