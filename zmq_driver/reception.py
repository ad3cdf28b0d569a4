# SPDX-License-Identifier: Apache-2.0
"""How a driver receives: its router, its listeners, and how both end."""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import logging
import pathlib
import threading
import weakref

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import counters as counters_
from zmq_driver import errors
from zmq_driver import ipc
from zmq_driver import listening
from zmq_driver import options
from zmq_driver import socket_options
from zmq_driver import sockets
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.matchmaker import cache as matchmaker_cache
from zmq_driver.matchmaker import sweep
from zmq_driver.server import backlog
from zmq_driver.server import leaving
from zmq_driver.server import listener as listener_
from zmq_driver.server import recent
from zmq_driver.server import router as router_
from zmq_driver.server import subscription as subscription_

LOG = logging.getLogger(__name__)

#: Seconds that a bind may take.
BIND_TIMEOUT = 10.0

_Listener = listener_.RpcListener | listener_.NotificationListener


class Reception:
    """The router of a driver in one process, and its listeners.

    Thread: any.
    """

    def __init__(
        self,
        settings: options.Settings,
        member: str,
        context: context_.DriverContext,
        directory: ipc.IpcDirectory,
        socket_options: socket_options.SocketOptions,
        matchmaker: matchmaker_cache.CachedMatchmaker,
        spans_hosts: bool,
        counters: counters_.Counters,
    ) -> None:
        """Describe it; nothing is opened before the first listener.

        :param member: names the driver in this process, and its files
        :param spans_hosts: whether other hosts are to reach it too
        """
        self._settings = settings
        self._member = member
        self._context = context
        self._directory = directory
        self._socket_options = socket_options
        self._matchmaker = matchmaker
        self._spans_hosts = spans_hosts
        self._counters = counters
        self._lock = threading.Lock()
        self._closed = False
        self._stopping = False
        #: The router, once there was a listener.
        self.router: router_.Router | None = None
        # Weak, because those that were stopped are nobody's business here;
        # the router holds the others.
        self._listeners: weakref.WeakSet[_Listener] = weakref.WeakSet()
        #: What listeners have accepted and is not dealt with.
        self.unfinished = backlog.Unfinished()

    def listen(
        self, where: address.Address, server: str
    ) -> listener_.RpcListener:
        """Return an RPC listener, which receives once it is started.

        :raises errors.ListenFailure: this process cannot be reached
        """
        router = self._running_router([where], server)
        listener = listener_.RpcListener(
            subscription_.Subscription(
                router, self._matchmaker, [where], server
            ),
            router,
            self._new_backlog(),
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
        listener = listener_.NotificationListener(
            subscription_.Subscription(
                router, self._matchmaker, addresses, listener_pool
            ),
            router,
            self._new_backlog(),
            self._counters,
        )
        listener.open(clock.Deadline(BIND_TIMEOUT))
        self._keep(listener)
        return listener

    def withdraw(self, deadline: clock.Deadline) -> None:
        """Receive nothing more; be found by nobody before that."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners)
        if self.router is not None:
            # Nobody would withdraw the registration of another one.
            self.router.attach_no_more()
        for index, listener in enumerate(listeners):
            # One that is held up leaves the others their share.
            share = deadline.left() / (len(listeners) - index)
            try:
                listener.withdraw(deadline.within(share))
            except Exception:
                # The others are to leave all the same.
                LOG.exception('a listener could not be withdrawn')

    def give_back(self) -> None:
        """Give to their senders the notifications that wait for a poll."""
        for listener in list(self._listeners):
            if isinstance(listener, listener_.NotificationListener):
                listener.give_back()

    def settle(self, takeover: float, deadline: clock.Deadline) -> None:
        """Wait for those who may ask what became of their messages.

        :param takeover: seconds for which they may come
        """
        if self.router is not None:
            self.router.unheard.wait(takeover, deadline)

    def present(self) -> list[tuple[address.Address, str]]:
        """Return the listener pools that have members here."""
        with self._lock:
            listeners = list(self._listeners)
        return [
            found
            for listener in listeners
            if isinstance(listener, listener_.NotificationListener)
            for found in listener.present()
        ]

    def begin_stop(self, sending: clock.Deadline) -> None:
        """Let the router send the answers that were made, and end.

        :param sending: until when, but for ``linger``, that may take
        """
        self._stopping = True
        if self.router is not None:
            self.router.begin_stop(
                leaving.Ending(lambda: not self.unfinished.count, sending)
            )

    def await_end(self, deadline: clock.Deadline) -> bool:
        """Wait for the end of the router, if it was told to end.

        :returns: whether it ended before the deadline
        """
        router = self.router
        if router is None or not self._stopping or router.join(deadline):
            return True
        LOG.warning(
            'the router thread at %s did not end in time', router.endpoint
        )
        return False

    def forget(self) -> None:
        """Let go of this in a forked child, without using a socket."""
        if self.router is not None:
            self.router.forget()

    def remove_endpoint(self) -> None:
        """Remove the file of the endpoint, which libzmq leaves behind."""
        with contextlib.suppress(OSError, ipc.IpcDirectoryError):
            pathlib.Path(self._directory.socket_path(self._member)).unlink()

    def _new_backlog(self) -> backlog.Backlog:
        return backlog.Backlog(
            self._settings.rpc_zmq_topic_backlog,
            self._settings.max_backlog_size,
            self.unfinished,
        )

    def _keep(self, listener: _Listener) -> None:
        with self._lock:
            self._listeners.add(listener)

    def _running_router(
        self, addresses: Sequence[address.Address], server: str
    ) -> router_.Router:
        """Return the router, made for the first listener, which is this."""
        with self._lock:
            if self._closed:
                raise errors.DriverClosed('the transport was cleaned up')
            return self.router or self._start_router(addresses, server)

    def _start_router(
        self, addresses: Sequence[address.Address], server: str
    ) -> router_.Router:
        router = router_.Router(
            self._member,
            self._context,
            self._directory.endpoint(self._member),
            self._socket_options,
            self._counters,
            self._bind_tcp(addresses, server) if self._spans_hosts else None,
            recent.Recent(settings=self._settings),
        )
        # A child that is forked meanwhile has to close what is bound.
        self.router = router
        try:
            router.start(clock.Deadline(BIND_TIMEOUT))
            self._directory.share(self._directory.socket_path(self._member))
            if self._spans_hosts:
                # Else the local matchmaker does it.
                sweep.Sweep(self._directory.path).run()
        except ipc.IpcDirectoryError as error:
            self.router = None
            router.stop(clock.Deadline(BIND_TIMEOUT))
            raise errors.ListenFailure(str(error)) from error
        except errors.ListenFailure:
            self.router = None
            router.stop(clock.Deadline(0.0))
            raise
        except BaseException:
            self.router = None
            router.stop(clock.Deadline(BIND_TIMEOUT))
            raise
        return router

    def _bind_tcp(
        self, addresses: Sequence[address.Address], server: str
    ) -> Callable[[sockets.RouterSocket], str]:
        """Return what binds a router to where others look for it."""
        settings = self._settings
        try:
            ports = self._matchmaker.ports(addresses, server)
        except matchmaker_base.MatchmakerUnavailable as error:
            raise errors.ListenFailure(str(error)) from error
        return listening.TcpListening(
            settings.rpc_zmq_bind_address,
            settings.rpc_zmq_host,
            settings.rpc_zmq_port,
            settings.rpc_zmq_port_count,
            ports or None,
        ).bind
