# SPDX-License-Identifier: Apache-2.0
"""The driver that oslo.messaging loads for ``zmq://`` transport URLs."""

import _thread
from collections.abc import Iterable
import os
import sys
import threading
from typing import Any
import weakref

from oslo_config import cfg
import oslo_messaging

from zmq_driver import _oslo
from zmq_driver import address
from zmq_driver import body as body_
from zmq_driver import clock
from zmq_driver import errors
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver import report
from zmq_driver import runtime as runtime_
from zmq_driver.server import polling
from zmq_driver.store import loading

#: Seconds that a call may take when the caller gives no time-out; the
#: default of oslo.messaging's rpc_response_timeout.
DEFAULT_CALL_TIMEOUT = 60.0

_drivers: 'weakref.WeakSet[ZmqDriver]' = weakref.WeakSet()

# Runtimes inherited over a fork. They are kept, because collecting them
# would run finalizers that know nothing of the fork.
_inherited: list[runtime_.Runtime] = []


class MonkeyPatchedError(RuntimeError):
    """The process runs on green threads, which this driver does not do."""


class ZmqDriver(_oslo.BaseDriver):  # type: ignore[misc]
    """Carries RPC and notifications between processes over ZeroMQ.

    Making a driver opens nothing: no socket, context, thread or file, and
    needs no network. Those are made on first use, in the process that uses
    it. Services may therefore build their transports before they fork.

    Thread: any.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        url: oslo_messaging.TransportURL,
        default_exchange: str | None = None,
        allowed_remote_exmods: list[str] | None = None,
    ) -> None:
        """Read the options and check the transport URL.

        :raises oslo_messaging.InvalidTransportURL: the URL cannot be used
        :raises MonkeyPatchedError: eventlet or gevent has patched threads
        """
        refuse_green_threads()
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        self._settings = options.load(conf, url)
        self._matchmaker, self._virtual_host = _matchmaker_of(
            url, self._settings
        )
        try:
            loading.choose(self._settings.notification_store, self._matchmaker)
        except RuntimeError as error:
            raise options.invalid_url(url, str(error)) from None
        self._lock = threading.Lock()
        self._runtime: runtime_.Runtime | None = None
        self._finalizer: weakref.finalize[..., ZmqDriver] | None = None
        self._closed = False
        _drivers.add(self)
        report.add_section()

    def require_features(self, requeue: bool = False) -> None:
        """Accept every feature: notifications can be requeued."""

    def send(
        self,
        target: oslo_messaging.Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,
        transport_options: Any = None,
    ) -> Any:
        """Send a call, a cast or a fanout.

        See :class:`zmq_driver.client.rpc.RpcClient` for what is raised.

        :param timeout: seconds; a call takes 60 by default, a cast
            ``rpc_cast_timeout``
        :param call_monitor_timeout: seconds without a heartbeat after which
            a call is given up
        :param retry: see :class:`zmq_driver.client.retry.Attempts`
        :param transport_options: ``TransportOptions`` or None
        """
        client = self.runtime().rpc
        where = self._address(address.Scope.RPC, target, target.topic)
        body = self._encode(ctxt, message)
        server = target.server or None
        mandatory = bool(
            transport_options is not None
            and getattr(transport_options, 'at_least_once', False)
        )
        if wait_for_reply:
            return client.call(
                where,
                server,
                body,
                deadline=clock.Deadline(
                    DEFAULT_CALL_TIMEOUT if timeout is None else timeout
                ),
                monitor_timeout=call_monitor_timeout or 0.0,
                retry=retry,
                mandatory=mandatory,
            )
        deadline = clock.Deadline(
            self._settings.rpc_cast_timeout if timeout is None else timeout
        )
        if target.fanout:
            client.fanout(where, body, deadline=deadline, retry=retry)
        else:
            client.cast(
                where,
                server,
                body,
                deadline=deadline,
                retry=retry,
                mandatory=mandatory,
            )
        return None

    def send_notification(
        self,
        target: oslo_messaging.Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        version: float,
        retry: int | None = None,
    ) -> None:
        """Send a notification; *target.topic* is ``topic.priority``.

        *version* makes no difference: every message has an envelope.

        :raises errors.DeliveryRefused: no listener took it
        """
        notifier = self.runtime().notifier
        notifier.notify(
            self._address(address.Scope.NOTIFICATION, target, target.topic),
            self._encode(ctxt, message),
            deadline=clock.Deadline(self._settings.notify_timeout),
            retry=retry,
        )

    def listen(
        self,
        target: oslo_messaging.Target,
        batch_size: int,
        batch_timeout: float | None,
    ) -> Any:
        """Return a listener for the RPC messages of *target*.

        :raises errors.ListenFailure: this process cannot be reached
        """
        return self.runtime().listen(
            self._address(address.Scope.RPC, target, target.topic),
            target.server,
        )

    def listen_for_notifications(
        self,
        targets_and_priorities: Iterable[tuple[oslo_messaging.Target, str]],
        pool: str | None,
        batch_size: int,
        batch_timeout: float | None,
    ) -> Any:
        """Return a listener for notifications.

        :param pool: the listener pool: one member of each gets a copy
        :raises errors.ListenFailure: this process cannot be reached
        """
        addresses = [
            self._address(
                address.Scope.NOTIFICATION,
                target,
                f'{target.topic}.{priority}',
            )
            for target, priority in targets_and_priorities
        ]
        listener = self.runtime().listen_for_notifications(
            addresses, pool or ''
        )
        return polling.PollingLoop(listener, batch_size, batch_timeout)

    def cleanup(self) -> None:
        """Release everything; bounded by ``cleanup_timeout``, idempotent."""
        with self._lock:
            self._closed = True
            if self._runtime is not None and self._runtime.pid != os.getpid():
                # After a fork that Python was not told of.
                self._leave_to_parent()
            runtime, self._runtime = self._runtime, None
            if self._finalizer is not None:
                self._finalizer.detach()
        if runtime is not None:
            runtime.close(clock.Deadline(self._settings.cleanup_timeout))

    def runtime(self) -> runtime_.Runtime:
        """Return what this process uses, made on first use.

        :raises errors.DriverClosed: the driver was cleaned up
        :raises errors.IpcDirectoryUnusable: it cannot be made
        """
        runtime = self._runtime
        if runtime is not None and runtime.pid == os.getpid():
            return runtime
        with self._lock:
            if self._closed:
                raise errors.DriverClosed(
                    'the transport was cleaned up; make a new one'
                )
            if self._runtime is None or self._runtime.pid != os.getpid():
                # The latter after a fork that Python was not told of.
                self._leave_to_parent()
                try:
                    self._runtime = runtime_.Runtime(
                        self._settings,
                        self._matchmaker,
                        self._virtual_host,
                        self._allowed_remote_exmods,
                        self._url,
                    )
                except ipc.IpcDirectoryError as error:
                    raise errors.IpcDirectoryUnusable(str(error)) from error
                self._end_with_me(self._runtime)
            return self._runtime

    def _end_with_me(self, runtime: runtime_.Runtime) -> None:
        """See to it that *runtime* ends when this driver is collected.

        It must not end by being collected itself: ending a zmq context
        waits, on whatever thread the collector happens to run.
        """
        self._finalizer = weakref.finalize(
            self, _close_forgotten, runtime, self._settings.cleanup_timeout
        )
        # Nothing has to be waited for when the interpreter exits.
        self._finalizer.atexit = False

    def _address(
        self, scope: address.Scope, target: oslo_messaging.Target, topic: str
    ) -> address.Address:
        exchange = target.exchange or self._default_exchange or ''
        return address.Address(scope, exchange, topic)

    def _encode(self, ctxt: Any, message: Any) -> bytes:
        try:
            return body_.encode_request(
                ctxt, message, self._settings.max_message_size
            )
        except body_.BodyTooLarge as error:
            raise errors.MessageTooLarge(str(error)) from None

    def forget_inherited(self) -> None:
        """Begin anew in a forked child; called by the fork itself."""
        self._lock = threading.Lock()
        self._leave_to_parent()

    def _leave_to_parent(self) -> None:
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            _inherited.append(runtime)
            runtime.forget()


def _close_forgotten(runtime: runtime_.Runtime, timeout: float) -> None:
    """Close the runtime of a driver that nobody has cleaned up.

    A finalizer may run anywhere, also while its thread holds the locks of
    the threading module; this way of starting a thread takes none.
    """
    if runtime.pid == os.getpid():
        _thread.start_new_thread(runtime.close, (clock.Deadline(timeout),))
    else:
        _inherited.append(runtime)


def refuse_green_threads() -> None:
    """Raise if eventlet or gevent has replaced the threads of this process.

    Neither is imported to find out.

    :raises MonkeyPatchedError: with what to do about it
    """
    eventlet = sys.modules.get('eventlet.patcher')
    gevent = sys.modules.get('gevent.monkey')
    if eventlet is not None and eventlet.is_monkey_patched('thread'):
        culprit = 'eventlet'
    elif gevent is not None and gevent.is_module_patched('threading'):
        culprit = 'gevent'
    else:
        return
    raise MonkeyPatchedError(
        f'the zmq driver runs on native threads and {culprit} has '
        f'monkey-patched them. Run the service with the threading executor '
        f'and without monkey patching (for OpenStack services: set '
        f'OS_NOVA_DISABLE_EVENTLET_PATCHING=true or the switch of that '
        f'service), or use another transport.'
    )


def _matchmaker_of(
    url: oslo_messaging.TransportURL, settings: options.Settings
) -> tuple[str, str]:
    """Return the name of the matchmaker, which exists, and virtual host."""
    _, plus, suffix = str(url.transport).partition('+')
    name = suffix if plus else settings.rpc_zmq_matchmaker
    try:
        matchmaker = runtime_.MATCHMAKERS.load(name)
    except RuntimeError:
        raise options.invalid_url(
            url,
            f'there is no matchmaker {name!r}; use one of: '
            f'{", ".join(runtime_.MATCHMAKERS.names())}',
        ) from None
    problem = matchmaker.check_url(url)
    if problem:
        raise options.invalid_url(url, problem)
    return name, matchmaker.virtual_host(url)


def _after_fork_in_child() -> None:
    for driver in list(_drivers):
        driver.forget_inherited()


os.register_at_fork(after_in_child=_after_fork_in_child)
