# SPDX-License-Identifier: Apache-2.0
"""Notifications: to the listeners that are there, or into the store."""

from collections.abc import Collection
from collections.abc import Sequence
import logging
import threading

import cachetools

from zmq_driver import address
from zmq_driver import clock as clock_
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver.client import delivery as delivery_
from zmq_driver.client import exchange as exchange_
from zmq_driver.client import outbox as outbox_
from zmq_driver.client import request as request_
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.client import sender as sender_
from zmq_driver.client import slow_pools
from zmq_driver.client import unstored as unstored_
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.store import base as store_

LOG = logging.getLogger(__name__)

_FLAGS = envelope.NOTIFICATION | envelope.WANT_ACK

#: Addresses of which is remembered that it was told that nobody is known.
MAX_TOLD = 10000


class Notifier:
    """Sees to it that each listener pool gets a notification.

    Thread: any; each operation runs on its caller's thread.
    """

    def __init__(
        self,
        delivery: delivery_.Delivery,
        sender: sender_.Sender,
        routing: routing_.Routing,
        ids: exchange_.MessageIds,
        outbox: outbox_.Outbox,
        direct_timeout: float,
        clock: clock_.Clock = clock_.monotonic,
    ) -> None:
        """Send with *sender*, or leave it to *outbox*.

        :param direct_timeout: seconds that a listener has to handle what it
            is sent, before that is stored
        """
        self._delivery = delivery
        self._unstored = unstored_.UnstoredNotifier(delivery, routing)
        self._sender = sender
        self._routing = routing
        self._ids = ids
        self._outbox = outbox
        self._store = outbox.store
        self._direct_timeout = direct_timeout
        self._lock = threading.Lock()
        self._slow = slow_pools.SlowPools(clock)
        self._told: cachetools.LRUCache[address.Address, bool] = (
            cachetools.LRUCache(MAX_TOLD)
        )
        self._store_log = counters_.LimitedLog(LOG, logging.WARNING)
        self._unclaimed_log = counters_.LimitedLog(LOG, logging.WARNING)

    def notify(
        self,
        where: address.Address,
        body: bytes,
        *,
        deadline: clock_.Deadline,
        retry: int | None,
    ) -> None:
        """Return when each listener pool has handled it, or will get it.

        A pool is one that has a member now, or had one and is remembered by
        the store. If there is none, whoever comes first gets it.

        :param body: context and message, serialized
        :param retry: more attempts after one that reached no listener, for
            each pool, without a store; or no store that answers; None or -1:
            as many as the deadline allows
        :raises errors.DeliveryRefused: nobody has it, and it is not stored
        :raises errors.DeliveryUnconfirmed: the same, but a listener has it
            or may have it, or the store
        """
        message_id = self._ids.next()
        if not self._store.stores:
            self._unstored.notify(
                where, message_id, body, deadline=deadline, retry=retry
            )
            return
        self._outbox.start()
        direct = deadline.within(self._direct_timeout)
        live = self._live_pools(where, direct)
        copies = self._send(where, live, body, message_id, direct)
        served = len(live) - len(copies)
        attempts = self._delivery.attempts(retry, deadline)
        # After that: a store that is away holds up nobody who is here.
        durable = self._durable_pools(where, message_id, live, attempts)
        self._show(where, live)
        copies += [store_.Copy(p) for p in sorted(durable) if p not in live]
        if not live and not durable:
            copies.append(store_.Copy(None))
        if copies:
            self._keep(where, message_id, body, copies, served, attempts)

    def _live_pools(
        self, where: address.Address, deadline: clock_.Deadline
    ) -> Sequence[str]:
        try:
            routes = self._routing.find(where, None, deadline)
        except matchmaker_base.MatchmakerUnavailable as error:
            LOG.debug('who listens to %s is not known: %s', where, error)
            return ()
        if len(routes) == 1:
            return [routes[0].server]
        return sorted({route.server for route in routes})

    def _durable_pools(
        self,
        where: address.Address,
        message_id: bytes,
        live: Collection[str],
        attempts: retry_.Attempts,
    ) -> Collection[str]:
        """Return the durable pools; a store that does not tell is asked again.

        :raises errors.DeliveryRefused: nobody is known to whom to deliver
        """
        try:
            return self._store.pools(where)
        except store_.StoreError as error:
            LOG.debug('listener pools of %s cannot be read: %s', where, error)
        while True:
            try:
                return self._store.pools(where)
            except store_.StoreError as error:
                failure = error
            if live:
                # Those that are here need no store.
                self._store_log(
                    'listener pools that are away may get no notifications: '
                    '%s',
                    failure,
                )
                return ()
            if not isinstance(failure, store_.StoreAway) or (
                not attempts.failed()
            ):
                raise errors.DeliveryRefused(
                    f'notification {message_id.hex()} to {where} was not '
                    f'sent: nobody listens, and who did is not known: '
                    f'{failure}'
                ) from failure
            attempts.pause()

    def _show(self, where: address.Address, live: Collection[str]) -> None:
        """Let the store know who is here."""
        if not live:
            return
        try:
            self._store.saw(where, live)
        except store_.StoreError as error:
            self._store_log(
                'listener pools that are here may be forgotten: %s', error
            )

    def _send(
        self,
        where: address.Address,
        pools: Sequence[str],
        body: bytes,
        message_id: bytes,
        deadline: clock_.Deadline,
    ) -> list[store_.Copy]:
        """Send to each pool; return what is to be stored."""
        copies = []
        for index, pool in enumerate(pools):
            if self._slow.contains(where, pool):
                copies.append(store_.Copy(pool))
                continue
            # One pool that does not answer leaves the others their share.
            share = deadline.within(deadline.left() / (len(pools) - index))
            request = request_.Request(where, pool, _FLAGS, body, message_id)
            copy = self._send_to_pool(request, pool, share)
            if copy is not None:
                copies.append(copy)
        return copies

    def _send_to_pool(
        self,
        request: request_.Request,
        pool: str,
        deadline: clock_.Deadline,
    ) -> store_.Copy | None:
        """Give it to one member; return None if that has handled it."""
        where = request.where
        try:
            routes = self._routing.find(where, pool, deadline)
        except matchmaker_base.MatchmakerUnavailable:
            routes = ()
        for route in self._routing.in_turn(where, pool, routes):
            try:
                self._sender.request(route, request, deadline)
            except errors.NoTimeLeft:
                pass
            except (errors.PeerNotReady, errors.Refused) as error:
                LOG.debug('%s; trying elsewhere', error)
                if not isinstance(error, errors.Busy):
                    self._routing.invalidate(where)
            except (errors.DeliveryRefused, errors.DriverClosed) as error:
                LOG.debug('%s; it is stored', error)
                break
            except (errors.PeerLost, errors.ReplyTimeout) as error:
                LOG.debug('%s; it is stored', error)
                self._slow.late(where, pool)
                holder = store_.Holder(route.endpoint, route.incarnation)
                return store_.Copy(pool, holder)
            else:
                self._slow.in_time(where, pool)
                return None
            if deadline.passed():
                # What comes next must not overtake it.
                self._slow.late(where, pool)
                break
        return store_.Copy(pool)

    def _keep(
        self,
        where: address.Address,
        message_id: bytes,
        body: bytes,
        copies: Sequence[store_.Copy],
        served: int,
        attempts: retry_.Attempts,
    ) -> None:
        """Store what was not handled.

        :param served: how many pools have handled it
        """
        may_have_run = served > 0 or any(copy.holder for copy in copies)
        while True:
            try:
                self._store.add(
                    where, message_id, body, copies, attempts.deadline
                )
            except store_.StoreError as error:
                if isinstance(error, store_.StoreAway):
                    may_have_run = may_have_run or error.may_be_done
                    if attempts.failed() and _pause(attempts):
                        continue
                elif isinstance(error, store_.StoreUncertain):
                    may_have_run = True
                failure = (
                    errors.DeliveryUnconfirmed
                    if may_have_run
                    else errors.DeliveryRefused
                )
                raise failure(
                    f'notification {message_id.hex()} to {where} was handled '
                    f'by {served} of {served + len(copies)} listener pools, '
                    f'and could not be stored for the others: {error}'
                ) from error
            break
        if any(copy.pool is None for copy in copies):
            self._tell_unclaimed(where)
        self._outbox.wake()

    def _tell_unclaimed(self, where: address.Address) -> None:
        """Tell once that something waits which maybe nobody ever wants."""
        with self._lock:
            told, self._told[where] = where in self._told, True
        if not told:
            self._unclaimed_log(
                'no listener of %s is known: its notifications are stored for '
                'the first that comes, up to notification_store_max_count, '
                '_max_size and _max_age; if nobody ever comes, see '
                '"zmq-driver notifications purge"',
                where,
            )


def _pause(attempts: retry_.Attempts) -> bool:
    """Wait a moment; return whether there is a point in going on."""
    try:
        attempts.pause()
    except errors.DriverClosed:
        # That nothing was sent is not what is to be told.
        return False
    return True
