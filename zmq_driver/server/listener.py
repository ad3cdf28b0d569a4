# SPDX-License-Identifier: Apache-2.0
"""Listeners: what a router delivers to, and oslo.messaging serves from."""

from collections.abc import Callable
import logging
import os
import random
import threading
from typing import Any

from zmq_driver import _oslo
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver.server import backlog as backlog_
from zmq_driver.server import incoming
from zmq_driver.server import router as router_
from zmq_driver.server import sink as sink_
from zmq_driver.server import subscription as subscription_

LOG = logging.getLogger(__name__)

#: Seconds after which a waiting poll() looks round unasked.
POLL_INTERVAL = 5.0
#: Seconds before a requeued notification is seen again: the first and the
#: longest pause. It doubles each time, so that an endpoint that always asks
#: for a message again does not turn into a busy loop.
REQUEUE_PAUSES = (0.05, 5.0)


class RpcListener(_oslo.Listener):  # type: ignore[misc]
    """Hands each call or cast to the server, on the router thread.

    Thread: any, except :meth:`deliver` and :meth:`serves`: router.
    """

    def __init__(
        self,
        subscription: subscription_.Subscription,
        router: router_.Router,
        backlog: backlog_.Backlog,
        max_size: int,
    ) -> None:
        """Describe the listener; it receives once it is started.

        :param backlog: counts the messages that are in the server's hands
        :param max_size: bytes that a reply may have
        """
        super().__init__(batch_size=1, batch_timeout=None)
        self.incarnation = subscription.incarnation
        self._subscription = subscription
        self._router = router
        self._backlog = backlog
        self._max_size = max_size
        self._failed_log = counters_.LimitedLog(LOG, logging.WARNING)
        self._withdrawn = False
        self._pid = os.getpid()

    def start(self, on_incoming_callback: Callable[[list[Any]], Any]) -> None:
        """Receive from now on.

        :param on_incoming_callback: given a list of one message; it must
            not block, since it runs on the router thread
        :raises errors.ListenFailure: nobody can find us
        """
        super().start(on_incoming_callback)
        self._withdrawn = False
        self._subscription.open(
            self, clock.Deadline(subscription_.STOP_TIMEOUT)
        )

    def stop(self) -> None:
        """Receive no more; replies to what was received still go out."""
        if os.getpid() == self._pid:
            self.withdraw(clock.Deadline(subscription_.STOP_TIMEOUT))

    def withdraw(self, deadline: clock.Deadline) -> None:
        """Stop, because the driver ends before the server was stopped."""
        self._withdrawn = True
        self._subscription.close(self, deadline)
        super().stop()

    def cleanup(self) -> None:
        """Stop, if that was not done."""
        self.stop()

    def serves(self, header: envelope.Header) -> bool:
        """Return whether a request is addressed to this listener."""
        return self._subscription.serves(header)

    def deliver(self, delivery: sink_.Delivery) -> envelope.NackReason | None:
        """Hand a request to the server, or say why not."""
        callback = self.on_incoming_callback
        if callback is None:
            return envelope.NackReason.STOPPED
        leave = self._backlog.enter(len(delivery.body))
        if leave is None:
            return envelope.NackReason.BUSY
        message = incoming.RpcIncoming(
            self._router, delivery, self._max_size, leave
        )
        try:
            callback([message])
        except RuntimeError as error:
            # The executor is shut down, or has no thread: nothing ran.
            message.refuse()
            if self._withdrawn:
                return envelope.NackReason.STOPPED
            # Clients would avoid a listener for ever that says STOPPED.
            self._failed_log(
                "The server's executor did not take a message, which was "
                'refused: %s',
                error,
            )
            return envelope.NackReason.FAILED
        except BaseException:
            message.refuse()
            raise
        return None


class NotificationListener(_oslo.PollStyleListener):  # type: ignore[misc]
    """Queues notifications until the server polls them.

    Thread: any, except :meth:`deliver` and :meth:`serves`: router.
    """

    def __init__(
        self,
        subscription: subscription_.Subscription,
        router: router_.Router,
        backlog: backlog_.Backlog,
        counters: counters_.Counters,
        time: clock.Clock = clock.monotonic,
    ) -> None:
        """Describe the listener; it receives once it is opened.

        :param backlog: counts the notifications that are in its hands
        """
        super().__init__()
        self.incarnation = subscription.incarnation
        self._subscription = subscription
        self._router = router
        self._backlog = backlog
        self._counters = counters
        self._time = time
        self._changed = threading.Condition(threading.Lock())
        # Under the lock: what can be polled, what can be polled later (with
        # the time from which on).
        self._ready: list[incoming.NotificationIncoming] = []
        self._paused: list[tuple[float, incoming.NotificationIncoming]] = []
        self._stopped = False
        self._polling_ends = False
        # Takes each one instead of poll(), if that is wanted.
        self._take: Callable[[list[Any]], None] | None = None
        self._pid = os.getpid()

    def open(self, deadline: clock.Deadline) -> None:
        """Receive from now on.

        :raises errors.ListenFailure: nobody can find us
        """
        self._subscription.open(self, deadline)

    def hand_over_to(self, take: Callable[[list[Any]], None]) -> None:
        """Give what comes from now on to *take*, on the router thread.

        It saves a thread on the way. What has come, and what is requeued, is
        polled.

        :param take: given one notification in a list; must not wait or raise
        """
        with self._changed:
            self._take = take

    def poll(
        self,
        timeout: float | None = None,
        batch_size: int = 1,
        batch_timeout: float | None = None,
    ) -> list[incoming.NotificationIncoming]:
        """Wait for a batch of notifications.

        :param timeout: seconds to wait for the first one; None is for ever,
            that is, until :meth:`stop`
        :param batch_size: how many to wait for
        :param batch_timeout: seconds to wait for the others once there is
            one; None waits for all of them
        :returns: at most *batch_size*; none after the stop once all that was
            received has been polled
        """
        with self._changed:
            self._wait_locked(1, timeout)
            if self._ready:
                self._wait_locked(batch_size, batch_timeout)
            elif self._stopped and not self._polling_ends:
                self._changed.wait(POLL_INTERVAL)
            batch = self._ready[:batch_size]
            del self._ready[:batch_size]
            return batch

    def stop(self) -> None:
        """Receive no more, and let poll() return at once from now on."""
        if os.getpid() != self._pid:
            return
        self.withdraw(clock.Deadline(subscription_.STOP_TIMEOUT))
        with self._changed:
            self._polling_ends = True
            self._changed.notify_all()

    def withdraw(self, deadline: clock.Deadline) -> None:
        """Receive no more, because the driver ends; poll() still waits.

        oslo.messaging's loop goes on to poll until it is told to stop, and
        would spin if poll() returned at once with nothing. What it was given
        to see again later is given back to its sender.
        """
        self._subscription.close(self, deadline)
        with self._changed:
            self._stopped = True
            paused, self._paused = self._paused, []
            self._changed.notify_all()
        for _, message in paused:
            message.turn_away()

    def cleanup(self) -> None:
        """Stop, and give back what nobody has polled."""
        if os.getpid() != self._pid:
            return
        self.stop()
        self.give_back()

    def give_back(self) -> None:
        """Give to its sender what was not polled, which nobody will do."""
        with self._changed:
            ready, self._ready = self._ready, []
        for message in ready:
            message.turn_away()

    def present(self) -> list[tuple[address.Address, str]]:
        """Return what it listens to, each with its listener pool."""
        return self._subscription.present()

    def serves(self, header: envelope.Header) -> bool:
        """Return whether a notification is addressed to this listener."""
        return self._subscription.serves(header)

    def deliver(self, delivery: sink_.Delivery) -> envelope.NackReason | None:
        """Queue a notification, or say why not."""
        with self._changed:
            if self._stopped:
                return envelope.NackReason.STOPPED
            leave = self._backlog.enter(len(delivery.body))
            if leave is None:
                return envelope.NackReason.BUSY
            message = incoming.NotificationIncoming(
                self._router, delivery, leave, self._requeue
            )
            take = self._take
            if take is None:
                self._ready.append(message)
                self._changed.notify()
        if take is not None:
            take([message])
        return None

    def _requeue(self, message: incoming.NotificationIncoming) -> None:
        self._counters.add('requeued')
        first, longest = REQUEUE_PAUSES
        pause = min(longest, first * 2 ** min(message.requeued - 1, 16))
        ready_at = self._time() + pause * random.uniform(0.5, 1.0)
        with self._changed:
            stopped = self._stopped
            if not stopped:
                self._paused.append((ready_at, message))
                self._changed.notify()
        if stopped:
            message.turn_away()

    def _wait_locked(self, count: int, timeout: float | None) -> None:
        """Wait until *count* messages are ready, or the stop."""
        end = None if timeout is None else self._time() + timeout
        while not self._stopped:
            now = self._time()
            pause = self._resume_locked(now)
            if len(self._ready) >= count:
                return
            if end is not None:
                if now >= end:
                    return
                pause = min(pause, end - now)
            self._changed.wait(pause)

    def _resume_locked(self, now: float) -> float:
        """Make ready whose pause is over; return the seconds to the next."""
        if not self._paused:
            return POLL_INTERVAL
        self._ready += [m for at, m in self._paused if at <= now]
        self._paused = [(at, m) for at, m in self._paused if at > now]
        next_at = min(
            (at for at, _ in self._paused), default=now + POLL_INTERVAL
        )
        return min(next_at - now, POLL_INTERVAL)
