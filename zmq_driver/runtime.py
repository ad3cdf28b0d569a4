# SPDX-License-Identifier: Apache-2.0
"""All that a driver has in one process: made on first use, ended at once."""

from collections.abc import Iterable
from collections.abc import Sequence
import functools
import gc
import logging
import os
import threading

import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import counters as counters_
from zmq_driver import errors
from zmq_driver import exiting
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver import plugins
from zmq_driver import pool as pool_
from zmq_driver import reception
from zmq_driver import report
from zmq_driver import socket_options
from zmq_driver import sockets
from zmq_driver import statistics
from zmq_driver import streaming
from zmq_driver import threads
from zmq_driver.client import clients
from zmq_driver.client import suspects as suspects_
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.matchmaker import cache as matchmaker_cache
from zmq_driver.matchmaker import refreshed
from zmq_driver.server import listener as listener_
from zmq_driver.store import base as store_
from zmq_driver.store import loading

LOG = logging.getLogger(__name__)

#: The matchmakers that are installed.
MATCHMAKERS: plugins.Namespace[matchmaker_base.Matchmaker] = plugins.Namespace(
    'zmq_driver.matchmakers'
)
#: Seconds that there are in :meth:`Runtime.close`, after all its waits, to
#: close what is left.
LAST_TIMEOUT = 0.8


class Runtime:
    """Context, sockets, threads and registrations of a driver in one pid.

    A forked child makes its own and only forgets the inherited one.

    Thread: any.
    """

    def __init__(
        self,
        settings: options.Settings,
        matchmaker: str,
        virtual_host: str,
        allowed_remote_exmods: Sequence[str],
        url: oslo_messaging.TransportURL | None = None,
    ) -> None:
        """Make what sending needs; the router comes with a listener.

        :param matchmaker: the name of the matchmaker
        :param virtual_host: the virtual host that the transport URL names
        :param url: the transport URL, for matchmakers that connect
        :raises ipc.IpcDirectoryError: the ipc directory cannot be used
        """
        self.pid = os.getpid()
        #: Names this driver in this process, and its files.
        self.member = os.urandom(8).hex()
        self.counters = counters_.Counters()
        self._number = statistics.next_number()
        self._settings = settings
        #: Seconds for which operations that still run are waited for.
        self.cleanup_timeout = settings.cleanup_timeout
        #: Seconds for which what was sent may wait for its reader.
        self.linger = settings.linger
        self._closing = threading.Event()
        self._directory = ipc.IpcDirectory(settings.rpc_zmq_ipc_dir)
        self._directory.prepare()
        # A path that is too long is told now, to clients as well.
        self._directory.endpoint(self.member)
        self._suspects = suspects_.Suspects(settings.connect_timeout)
        self.matchmaker = self._make_matchmaker(matchmaker, virtual_host, url)
        self._context = context_.DriverContext(
            self.member, settings.rpc_zmq_contexts, settings.pool_max_size
        )
        self._socket_options = socket_options.SocketOptions(
            heartbeat_interval=settings.heartbeat_interval,
            heartbeat_timeout=settings.heartbeat_timeout,
            connect_timeout=settings.connect_timeout,
            linger=settings.linger,
            max_message_size=settings.max_message_size,
            keepalive=socket_options.Keepalive(
                on=settings.tcp_keepalive,
                idle=settings.tcp_keepalive_idle,
                count=settings.tcp_keepalive_count,
                interval=settings.tcp_keepalive_interval,
            ),
        )
        self.pool: pool_.SocketPool[str, sockets.PeerSocket] = (
            pool_.SocketPool(
                self.member,
                self.open_socket,
                pool_.PoolOptions(
                    max_size=settings.pool_max_size,
                    max_per_peer=settings.pool_max_per_peer,
                    max_waiters=settings.pool_max_waiters,
                    idle_ttl=settings.pool_idle_ttl,
                    max_age=settings.pool_max_age,
                    min_idle=settings.pool_min_idle,
                    reap_interval=settings.pool_reap_interval,
                    leak_after=settings.pool_leak_after,
                ),
            )
        )
        self._store = self._make_store(matchmaker, virtual_host, url)
        self.rpc, self.notifier, self._outbox = clients.assemble(
            self.pool,
            self.matchmaker,
            self._suspects,
            self.counters,
            settings,
            self._sleep,
            allowed_remote_exmods,
            self._store,
            self._open_stream,
            self.member,
        )
        self.reception = reception.Reception(
            settings,
            self.member,
            self._context,
            self._directory,
            self._socket_options,
            self.matchmaker,
            self._spans_hosts,
            self.counters,
        )
        self._outbox.present = self.reception.present
        self._show_statistics()

    def listen(
        self, where: address.Address, server: str
    ) -> listener_.RpcListener:
        """Return an RPC listener, which receives once it is started.

        :raises errors.ListenFailure: this process cannot be reached
        """
        exiting.end_well(self)
        return self.reception.listen(where, server)

    def listen_for_notifications(
        self, addresses: Sequence[address.Address], listener_pool: str
    ) -> listener_.NotificationListener:
        """Return a notification listener, which receives already.

        :raises errors.ListenFailure: this process cannot be reached
        """
        exiting.end_well(self)
        listener = self.reception.listen_for_notifications(
            addresses, listener_pool
        )
        self._outbox.start()
        try:
            for where in addresses:
                self._store.saw(where, [listener_pool])
        except store_.StoreError as error:
            LOG.warning(
                'listener pool %r gets no notifications of this host that '
                'come while it is away: %s',
                listener_pool,
                error,
            )
        return listener

    def close(self, deadline: clock.Deadline) -> None:
        """End everything, in the order in which it depends on each other.

        Listeners leave first, so that nobody finds them any more; then
        operations that still run are waited for; replies that they made are
        sent; and the sockets go last.
        """
        self._closing.set()
        exiting.end_no_more(self)
        statistics.withdraw(self)
        self.reception.withdraw(deadline)
        self.reception.give_back()
        self.reception.settle(self._store.takeover, deadline)
        self._outbox.close(deadline)
        self.matchmaker.close(deadline)
        for abandoned in self.pool.close(deadline):
            LOG.warning('cleanup does not wait any longer for %s', abandoned)
        self._store.close()
        self.reception.begin_stop(deadline)
        # What must happen needs a moment even if the deadline has passed.
        last = clock.Deadline(deadline.left() + self.linger + LAST_TIMEOUT)
        self.reception.await_end(last)
        self._context.close(last)
        self.reception.remove_endpoint()

    # What follows is for a process that exits without a cleanup().

    def leave(self, deadline: clock.Deadline) -> None:
        """Be found by nobody any more, and receive nothing."""
        self.reception.withdraw(deadline)

    def finish(self, deadline: clock.Deadline) -> bool:
        """Wait for what was accepted; return whether all of it was done."""
        if self.reception.unfinished.count:
            # Some may have been dropped, in a cycle with their traceback.
            gc.collect()
        return self.reception.unfinished.wait(deadline)

    def end_reception(self, deadline: clock.Deadline) -> None:
        """Begin to send the answers that were made, and to end the router.

        Sending goes on to work, for those who send while they exit. If
        something is still being done, so does answering it.

        :param deadline: when answers are given up, but for ``linger``, that
            their clients have not read
        """
        self.reception.give_back()
        self.reception.settle(self._store.takeover, deadline)
        left = self.reception.unfinished.count
        if left:
            LOG.warning(
                'the process exits, and %d accepted messages are not '
                'finished; those that wait for a thread are not run',
                left,
            )
        else:
            self.reception.begin_stop(deadline)

    def await_end(self, deadline: clock.Deadline) -> None:
        """Wait for the end of the router, if it ends."""
        self.reception.await_end(deadline)
        self.reception.remove_endpoint()

    def forget(self) -> None:
        """Let go of this in a forked child, without using a socket."""
        self.matchmaker.forget()
        self.reception.forget()
        self._store.forget()

    def stats(self) -> statistics.DriverStats:
        """Return the figures of this moment.

        :raises PoolClosed: this was inherited by a forked process
        """
        return statistics.DriverStats(
            number=self._number,
            member=self.member,
            pool=self.pool.stats(),
            counters=self.counters.snapshot(),
        )

    def _show_statistics(self) -> None:
        """Let the figures be seen, in the log too if it tells so much."""
        statistics.publish(self)
        report.add_section()
        interval = self._settings.statistics_interval
        if interval and statistics.LOG.isEnabledFor(logging.DEBUG):
            threads.ServiceThread(
                'statistics',
                self.member,
                functools.partial(
                    statistics.log_now_and_then,
                    self,
                    self._closing,
                    interval,
                ),
            ).start()

    def _make_matchmaker(
        self,
        name: str,
        virtual_host: str,
        url: oslo_messaging.TransportURL | None,
    ) -> matchmaker_cache.CachedMatchmaker:
        settings = self._settings
        kind = MATCHMAKERS.load(name)
        self._spans_hosts = kind.spans_hosts
        backend = kind(
            matchmaker_base.MatchmakerSettings(
                directory=self._directory,
                virtual_host=virtual_host,
                member=self.member,
                url=url,
                options=settings,
            )
        )
        return refreshed.cache_for(backend, settings, self._drop_sockets)

    def _make_store(
        self,
        matchmaker: str,
        virtual_host: str,
        url: oslo_messaging.TransportURL | None,
    ) -> store_.NotificationStore:
        return loading.make_store(
            store_.StoreSettings(
                directory=self._directory,
                site=loading.site(matchmaker, virtual_host, url),
                options=self._settings,
                counters=self.counters,
                matchmaker=matchmaker,
                virtual_host=virtual_host,
                url=url,
            )
        )

    def _drop_sockets(self, routes: Iterable[address.Route]) -> None:
        """Forget listeners that have left, and close idle sockets to them."""
        for route in routes:
            self.pool.clear(route.endpoint)
            self._suspects.forget(route)

    def open_socket(self, endpoint: str) -> sockets.PeerSocket:
        """Open a socket to *endpoint*, which the caller has to close.

        :raises zmq.ZMQError: no descriptor is left, or a bad endpoint
        """
        return sockets.PeerSocket(
            self._context, endpoint, self._socket_options
        )

    def _open_stream(self, endpoint: str) -> sockets.PeerSocket:
        return streaming.StreamSocket(
            self._context, endpoint, self._socket_options
        )

    def _sleep(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise errors.DriverClosed('the transport was cleaned up')
