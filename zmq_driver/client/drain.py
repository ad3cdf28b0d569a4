# SPDX-License-Identifier: Apache-2.0
"""Brings stored notifications to listeners: one pass after the other."""

import collections
from collections.abc import Callable
from collections.abc import Sequence
import logging
import time

from zmq_driver import address
from zmq_driver import clock as clock_
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import sockets
from zmq_driver.client import retry as retry_
from zmq_driver.client import routing as routing_
from zmq_driver.client import stream as stream_
from zmq_driver.client import streams as streams_
from zmq_driver.client import waiting as queue_
from zmq_driver.matchmaker import base as matchmaker_base
from zmq_driver.store import base as store_

LOG = logging.getLogger(__name__)

#: Bytes of all copies in memory above which no queue takes more.
TOTAL_SIZE = 64 * 1024 * 1024
#: Queues that are looked at on one occasion; the others follow.
QUEUES = 1000
#: Seconds after which queues are looked for unasked.
LOOK_INTERVAL = 1.0
#: Seconds between two looks for them at least.
LOOK_PAUSE = 0.02
#: Seconds that all lookups of a pass may take, or it would seem frozen.
LOOKUP_TIMEOUT = 1.0
#: Seconds between two looks for answers: the first after something happened,
#: and the longest.
REST = (0.001, 0.05)
#: Seconds between two questions to the store whether something was added.
IDLE_REST = 0.2

_FLAGS = envelope.NOTIFICATION | envelope.WANT_ACK

#: Refusals after which nobody can say whether the listener has run it.
_DOUBTFUL = (
    envelope.NackReason.FORGOTTEN,
    envelope.NackReason.UNKNOWN_TARGET,
)
#: Refusals that are not the message's fault.
_STATE = (
    envelope.NackReason.BUSY,
    envelope.NackReason.STOPPED,
    envelope.NackReason.UNKNOWN_TARGET,
    envelope.NackReason.STALLED,
    envelope.NackReason.EXPIRED,
)

#: Reasons that a listener gives when it will never take anything again.
_GONE = (envelope.NackReason.STOPPED, envelope.NackReason.UNKNOWN_TARGET)


class Starved(Exception):
    """No descriptor is left in this process for a connection."""


class Drain:
    """What a process knows while it drains the store.

    Thread: drain.
    """

    def __init__(
        self,
        store: store_.NotificationStore,
        routing: routing_.Routing,
        open_socket: Callable[[str], sockets.PeerSocket],
        counters: counters_.Counters,
        max_deliveries: int,
        clock: clock_.Clock = clock_.monotonic,
    ) -> None:
        """Begin with nothing taken.

        :param open_socket: opens a socket to an endpoint, which can queue
            ``socket_options.PIPE_STREAMED`` messages
        :param max_deliveries: how many listeners a copy is given before it
            becomes a dead letter
        """
        self._store = store
        self._routing = routing
        self._counters = counters
        self._max_deliveries = max_deliveries
        self._clock = clock
        self._queues: dict[int, queue_.WaitingQueue] = {}
        self._streams = streams_.Streams(routing, open_socket, counters, clock)
        #: What was handled, until the store knows.
        self._done: list[store_.Key] = []
        #: What was refused, likewise.
        self._released: list[store_.Key] = []
        self._added = True
        #: Counts the looks for queues after something was added.
        self._additions = 0
        self._buried_log = counters_.LimitedLog(LOG, logging.WARNING)
        self._look_at = self._look_soon = clock()
        self._after = 0
        self._rest = retry_.Backoff(*REST)

    def run(self) -> float:
        """Make a pass; return the seconds after which to make the next.

        :raises store.StoreError: the store failed; make one a little later
        :raises Starved: another process had better do it
        """
        progress = self._hear()
        self._flush()
        self._look_for_queues()
        lookups = clock_.Deadline(LOOKUP_TIMEOUT)
        for queue in list(self._queues.values()):
            progress = self._serve(queue, lookups) or progress
        if self._streams.are_starved():
            raise Starved('no descriptor is left in this process')
        if progress:
            self._rest = retry_.Backoff(*REST)
        if self._streams.carry() or self._streams.connect():
            return self._rest.pause()
        return IDLE_REST

    def close(self, deadline: clock_.Deadline) -> None:
        """Give up; what is under way is asked for by whoever drains next.

        :param deadline: until when answers are waited for
        """
        while self._streams.carry():
            self._hear()
            if deadline.passed():
                break
            time.sleep(REST[0])
        self._streams.close()
        self._queues.clear()
        self._flush()

    def _hear(self) -> bool:
        """Take the answers that have come; return whether there were any."""
        progress = False
        for pool, stream in self._streams:
            for answer in stream.answers():
                progress = True
                self._answered(stream, answer)
            back = stream.advance()
            if stream.state is stream_.State.GONE:
                for queue in self._queues.values():
                    if queue.pool == pool:
                        queue.give_up(stream.holder)
            for item in reversed(back):
                self._return(item)
        self._streams.tidy()
        return progress

    def _answered(
        self, stream: stream_.Stream, answer: stream_.Answer
    ) -> None:
        item, reason = answer
        queue = self._queues.get(item.stored.key.queue)
        if reason is None:
            self._done.append(item.stored.key)
            self._counters.add('notifications_delivered_late')
            if queue is not None:
                queue.drop(item.stored)
            return
        self._counters.add('requests_refused')
        LOG.debug(
            'notification %s was refused by %s: %s',
            item.stored.message_id.hex(),
            stream.holder.endpoint,
            reason.name,
        )
        if reason is envelope.NackReason.STALLED:
            # Nothing ran, and the same listener is asked again.
            self._return(item)
            return
        if reason not in _STATE:
            stream.rest()
        item.holder = None
        doubtful = item.asked and reason in _DOUBTFUL
        if not doubtful and (
            item.asked or reason is envelope.NackReason.EXPIRED
        ):
            item.refused_by = stream.holder
        elif item.refused_by == stream.holder:
            item.refused_by = None
        if reason in _STATE and not doubtful:
            item.attempts -= 1
            self._released.append(item.stored.key)
        if reason in _GONE:
            self._routing.invalidate(item.stored.where)
            if stream.holder.incarnation != envelope.ANY_INCARNATION:
                self._routing.suspects.gone(_route(stream, item))
        self._return(item)

    def _return(self, item: stream_.Item) -> None:
        queue = self._queues.get(item.stored.key.queue)
        if queue is not None:
            queue.waiting.appendleft(item)

    def _flush(self) -> None:
        if self._done:
            self._store.done(self._done)
            self._done = []
        if self._released:
            self._store.release(self._released)
            self._released = []

    def _look_for_queues(self) -> None:
        now = self._clock()
        self._added = self._store.changed() or self._added
        if now < (self._look_soon if self._added else self._look_at):
            return
        found = self._store.pending(QUEUES, self._after)
        for one in found:
            queue = self._queues.get(one.number)
            if queue is None:
                self._queues[one.number] = queue_.WaitingQueue(one, now)
            else:
                queue.look_again(one.copies, self._store.renumbers, now)
        full = len(found) >= QUEUES
        self._after = found[-1].number if full else 0
        self._look_at = now if full else now + LOOK_INTERVAL
        self._look_soon = now + LOOK_PAUSE
        self._additions += self._added
        self._added = False
        if len(self._queues) > 2 * QUEUES:
            self._queues = {n: q for n, q in self._queues.items() if q.items}

    def _serve(
        self, queue: queue_.WaitingQueue, lookups: clock_.Deadline
    ) -> bool:
        """Send what can be sent; return whether anything was."""
        if self._clock() < queue.paused_until:
            return False
        if queue.exhausted and not queue.waiting:
            if not queue.items:
                del self._queues[queue.number]
            return False
        routes = self._routes(queue, lookups)
        if routes:
            queue.found()
            # Also while one who leaves takes its time to answer.
            queue.partial = False
        elif queue.is_idle() and not self._has_holders(queue):
            queue.put_back()
            queue.begin_pause(self._clock())
            self._store.put_back(queue.number)
            return False
        if queue.pool is None:
            return self._split(queue, routes)
        if routes:
            self._take(queue)
        return self._send(queue, queue.pool, routes)

    def _has_holders(self, queue: queue_.WaitingQueue) -> bool:
        """Return whether a listener can be asked what became of a copy.

        One that leaves is found by nobody, and answers for a moment.
        """
        if queue.pool is None:
            return False
        if not queue.is_held():
            queue.take_held(self._store)
        return bool(queue.items)

    def _routes(
        self, queue: queue_.WaitingQueue, deadline: clock_.Deadline
    ) -> Sequence[address.Route]:
        try:
            return self._routing.find(queue.where, queue.pool, deadline)
        except matchmaker_base.MatchmakerUnavailable as error:
            LOG.debug('stored notifications wait: %s', error)
            return ()

    def _split(
        self, queue: queue_.WaitingQueue, routes: Sequence[address.Route]
    ) -> bool:
        """Give what is for whoever comes first to all who are there."""
        copies = self._store.take(
            queue.number, queue_.TAKEN, size=queue_.TAKEN_SIZE
        )
        if not copies:
            queue.exhausted = True
            return False
        self._store.split(
            [one.key for one in copies], sorted({r.server for r in routes})
        )
        self._look_at = self._clock()
        return True

    def _take(self, queue: queue_.WaitingQueue) -> None:
        if queue.partial:
            return
        total = sum(one.size for one in self._queues.values())
        if total < TOTAL_SIZE:
            queue.take_early(self._store, self._additions, self._clock())
            queue.take(self._store)

    def _send(
        self,
        queue: queue_.WaitingQueue,
        pool: str,
        routes: Sequence[address.Route],
    ) -> bool:
        members = self._streams.members(queue.where, pool, routes)
        batches: streams_.Batches = {}
        kept: list[stream_.Item] = []
        buried: list[stream_.Item] = []
        for item in queue.waiting:
            if item.holder is None and item.attempts >= self._max_deliveries:
                buried.append(item)
                continue
            stream = (
                streams_.freest(members, batches)
                if item.holder is None
                else self._streams.get(item.holder, pool)
            )
            batch = [] if stream is None else batches.get(stream.holder, [])
            if stream is None or len(batch) >= stream.room():
                kept.append(item)
            else:
                batch.append(item)
                batches[stream.holder] = batch
        if buried:
            self._bury(queue, buried)
        queue.waiting = collections.deque(kept)
        sent = False
        while batches:
            holder = next(iter(batches))
            try:
                sent = self._send_batch(queue, pool, holder, batches) or sent
            except store_.StoreError:
                for batch in batches.values():
                    queue.waiting.extendleft(reversed(batch))
                raise
        return sent

    def _send_batch(
        self,
        queue: queue_.WaitingQueue,
        pool: str,
        holder: store_.Holder,
        batches: streams_.Batches,
    ) -> bool:
        """Send to one listener, after the store knows of it."""
        new = [item for item in batches[holder] if item.holder != holder]
        if new:
            self._store.hold([item.stored.key for item in new], holder)
        if not self._store.claim():
            # This process was frozen, and another one drains now.
            raise store_.StoreUnavailable('another process drains it now')
        for item in new:
            item.attempts += 1
        stream = self._streams.get(holder, pool)
        batch = batches.pop(holder)
        unsent = [item for item in batch if not stream.send(item, _FLAGS)]
        for item in unsent:
            if item.holder != holder:
                item.attempts -= 1
                self._released.append(item.stored.key)
        queue.waiting.extendleft(reversed(unsent))
        return len(unsent) < len(batch)

    def _bury(
        self, queue: queue_.WaitingQueue, items: Sequence[stream_.Item]
    ) -> None:
        self._store.bury([item.stored.key for item in items])
        self._buried_log(
            '%d notifications for listener pool %r of %s were given to %d '
            'listeners each, and handled by none; they are kept as dead '
            'letters, see "zmq-driver notifications list"',
            len(items),
            queue.pool,
            queue.where,
            self._max_deliveries,
        )
        for item in items:
            queue.drop(item.stored)


def _route(stream: stream_.Stream, item: stream_.Item) -> address.Route:
    holder = stream.holder
    return address.Route(
        holder.endpoint, holder.incarnation, item.stored.pool or ''
    )
