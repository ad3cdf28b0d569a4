# SPDX-License-Identifier: Apache-2.0
"""All that a driver has in one process: made on first use, ended at once."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import functools
import logging
import os
import pathlib
import threading
from typing import Any
from typing import cast
import weakref

import oslo_messaging
from stevedore import driver as stevedore_driver
from stevedore import extension as stevedore_extension

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import counters as counters_
from zmq_driver import errors
from zmq_driver import ipc
from zmq_driver import listening
from zmq_driver import options
from zmq_driver import pool as pool_
from zmq_driver import report
from zmq_driver import sockets
from zmq_driver import statistics
from zmq_driver import threads
from zmq_driver.client import clients
from zmq_driver.client import suspects as suspects_
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.matchmaker import cache as matchmaker_cache
from zmq_driver.matchmaker import refreshed
from zmq_driver.matchmaker import sweep
from zmq_driver.server import listener as listener_
from zmq_driver.server import recent
from zmq_driver.server import router as router_

LOG = logging.getLogger(__name__)

#: The stevedore namespace of matchmakers.
MATCHMAKERS = 'zmq_driver.matchmakers'

#: Seconds that a bind may take.
BIND_TIMEOUT = 10.0


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
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._router: router_.Router | None = None
        # Weak, because those that were stopped are nobody's business here;
        # the router holds the others.
        self._listeners: weakref.WeakSet[
            listener_.RpcListener | listener_.NotificationListener
        ] = weakref.WeakSet()
        self._directory = ipc.IpcDirectory(settings.rpc_zmq_ipc_dir)
        self._directory.prepare()
        self._endpoint = self._directory.endpoint(self.member)
        self._suspects = suspects_.Suspects(settings.connect_timeout)
        self.matchmaker = self._make_matchmaker(matchmaker, virtual_host, url)
        self._context = context_.DriverContext(
            self.member, settings.rpc_zmq_contexts, settings.pool_max_size
        )
        self._socket_options = sockets.SocketOptions(
            heartbeat_interval=settings.heartbeat_interval,
            heartbeat_timeout=settings.heartbeat_timeout,
            connect_timeout=settings.connect_timeout,
            linger=settings.linger,
            max_message_size=settings.max_message_size,
            keepalive=sockets.Keepalive(
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
        self.rpc, self.notifier = clients.assemble(
            self.pool,
            self.matchmaker,
            self._suspects,
            self.counters,
            settings,
            self._sleep,
            allowed_remote_exmods,
        )
        self._show_statistics()

    def listen(
        self, where: address.Address, server: str
    ) -> listener_.RpcListener:
        """Return an RPC listener, which receives once it is started.

        :raises errors.ListenFailure: this process cannot be reached
        """
        router = self._running_router([where], server)
        subscription = listener_.Subscription(
            router, self.matchmaker, [where], server
        )
        listener = listener_.RpcListener(
            subscription,
            router,
            self._settings.rpc_zmq_topic_backlog,
            self._settings.max_message_size,
        )
        self._keep(listener)
        return listener

    def listen_for_notifications(
        self, addresses: Sequence[address.Address], listener_pool: str
    ) -> listener_.NotificationListener:
        """Return a notification listener, which receives already.

        :raises errors.ListenFailure: this process cannot be reached
        """
        router = self._running_router(addresses, listener_pool)
        subscription = listener_.Subscription(
            router, self.matchmaker, addresses, listener_pool
        )
        listener = listener_.NotificationListener(
            subscription,
            self._settings.rpc_zmq_topic_backlog,
            self.counters,
            self._forward,
        )
        listener.open(clock.Deadline(BIND_TIMEOUT))
        self._keep(listener)
        return listener

    def close(self, deadline: clock.Deadline) -> None:
        """End everything, in the order in which it depends on each other.

        Listeners leave first, so that nobody finds them any more; then
        operations that still run are waited for; replies that they made are
        sent; and the sockets go last.
        """
        self._closing.set()
        statistics.withdraw(self)
        with self._lock:
            listeners = list(self._listeners)
            router = self._router
        for index, listener in enumerate(listeners):
            # One that is held up leaves the others their share.
            listener.withdraw(
                deadline.within(deadline.left() / (len(listeners) - index))
            )
        self.matchmaker.close(deadline)
        for abandoned in self.pool.close(deadline):
            LOG.warning('cleanup does not wait any longer for %s', abandoned)
        # What must happen needs a moment even if the deadline has passed.
        last = clock.Deadline(
            max(deadline.left(), 0.5) + self._settings.linger
        )
        if router is not None and not router.stop(last):
            LOG.warning(
                'the router thread at %s did not end in time', router.endpoint
            )
        self._context.close(last)
        # libzmq leaves the file behind.
        with contextlib.suppress(OSError):
            pathlib.Path(self._directory.socket_path(self.member)).unlink()

    def forget(self) -> None:
        """Let go of this in a forked child, without using a socket."""
        self.matchmaker.forget()
        if self._router is not None:
            self._router.forget()

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
        kind = load_matchmaker(name)
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

    def _running_router(
        self, addresses: Sequence[address.Address], server: str
    ) -> router_.Router:
        """Return the router, made for the first listener, which is this."""
        with self._lock:
            if self._closing.is_set():
                raise errors.DriverClosed('the transport was cleaned up')
            if self._router is None:
                self._router = self._start_router(addresses, server)
            return self._router

    def _start_router(
        self, addresses: Sequence[address.Address], server: str
    ) -> router_.Router:
        router = router_.Router(
            self.member,
            self._context,
            self._endpoint,
            self._socket_options,
            self.counters,
            self._bind_tcp(addresses, server) if self._spans_hosts else None,
            recent.Recent(settings=self._settings),
        )
        try:
            router.start(clock.Deadline(BIND_TIMEOUT))
            self._directory.share(self._directory.socket_path(self.member))
            if self._spans_hosts:
                # Else the local matchmaker does it.
                sweep.Sweep(self._directory.path).run()
        except ipc.IpcDirectoryError as error:
            router.stop(clock.Deadline(BIND_TIMEOUT))
            raise errors.ListenFailure(str(error)) from error
        except errors.ListenFailure:
            router.stop(clock.Deadline(0.0))
            raise
        return router

    def _bind_tcp(
        self, addresses: Sequence[address.Address], server: str
    ) -> Callable[[sockets.RouterSocket], str]:
        """Return what binds a router to where others look for it."""
        settings = self._settings
        try:
            ports = self.matchmaker.ports(addresses, server)
        except matchmaker_base.MatchmakerUnavailable as error:
            raise errors.ListenFailure(str(error)) from error
        return listening.TcpListening(
            settings.rpc_zmq_bind_address,
            settings.rpc_zmq_host,
            settings.rpc_zmq_port,
            settings.rpc_zmq_port_count,
            ports or None,
        ).bind

    def _keep(
        self,
        listener: 'listener_.RpcListener | listener_.NotificationListener',
    ) -> None:
        with self._lock:
            self._listeners.add(listener)

    def _forward(self, delivery: router_.Delivery) -> None:
        header = delivery.header
        where = address.Address(
            address.Scope.NOTIFICATION, header.exchange, header.topic
        )
        try:
            self.notifier.forward(
                where,
                header.server,
                delivery.body,
                deadline=clock.Deadline(self._settings.cleanup_timeout),
            )
        except oslo_messaging.MessagingException as error:
            LOG.error(
                'notification %s to %s was requeued by a listener that '
                'stopped, and is lost: %s',
                header.message_id.hex(),
                where,
                error,
            )

    def _sleep(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise errors.DriverClosed('the transport was cleaned up')


def load_matchmaker(name: str) -> type[matchmaker_base.Matchmaker]:
    """Return the matchmaker that an entry point names.

    :raises RuntimeError: there is none of this name
    """
    manager: stevedore_driver.DriverManager[Any] = (
        stevedore_driver.DriverManager(MATCHMAKERS, name)
    )
    matchmaker: Any = manager.driver
    return cast('type[matchmaker_base.Matchmaker]', matchmaker)


def matchmaker_names() -> list[str]:
    """Return the names of all matchmakers that are installed."""
    manager: stevedore_extension.ExtensionManager[Any] = (
        stevedore_extension.ExtensionManager(MATCHMAKERS)
    )
    return sorted(manager.names())
