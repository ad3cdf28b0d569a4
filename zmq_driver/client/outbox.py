# SPDX-License-Identifier: Apache-2.0
"""The thread that brings stored notifications to listeners.

Every process that notifies or listens has one, and of all that share a store
one drains it, or a few: the others wait until one of them is gone.
"""

from collections.abc import Callable
from collections.abc import Iterable
import logging
import os
import random
import threading

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters as counters_
from zmq_driver import threads
from zmq_driver.client import drain as drain_
from zmq_driver.client import retry as retry_
from zmq_driver.store import base as store_

LOG = logging.getLogger(__name__)

#: Pauses after the store has failed. The longest is shorter than what a lease
#: lasts without renewal, and than a listener that ends waits to be asked: who
#: drains goes on when the store is back, and nobody has to take over.
STORE_PAUSES = (0.1, 1.0)
#: Seconds between two times that the store is told who listens here; less if
#: pools are forgotten soon.
PRESENCE = 1.0
#: Seconds for which answers are waited for at the end.
GRACE = 0.2


#: An address, and a listener pool.
Present = tuple[address.Address, str]


class Outbox:
    """Drains a store, or waits for its turn to do so.

    Thread: any.
    """

    def __init__(
        self,
        driver_id: str,
        store: store_.NotificationStore,
        make_drain: Callable[[], drain_.Drain],
        presence: float = PRESENCE,
    ) -> None:
        """Describe it; nothing runs before :meth:`start`.

        :param presence: seconds between two times that the store is told
            who listens here
        """
        #: Where notifications wait.
        self.store = store
        #: Tells which pools have members in this process, by address.
        self.present: Callable[[], Iterable[Present]] = tuple
        self._presence = presence
        self._tell_at = clock.Deadline(0.0)
        self._make_drain = make_drain
        self._pid = os.getpid()
        self._thread = threads.LazyThread('drain', driver_id)
        self._closing = False
        # Something was stored here, or the end has come.
        self._wanted = threading.Event()
        self._log = counters_.LimitedLog(LOG, logging.WARNING)

    def start(self) -> None:
        """Start the thread, if there is a store; idempotent, and cheap."""
        if not self.store.stores:
            return
        try:
            self._thread.start(self._run)
        except RuntimeError as error:
            # What is stored stays there; another process drains.
            self._log('stored notifications wait: %s', error)

    def wake(self) -> None:
        """Tell the thread that something was stored."""
        self._wanted.set()

    def close(self, deadline: clock.Deadline) -> None:
        """End the thread, so that another process drains."""
        self._closing = True
        self._wanted.set()
        if not self._thread.end(deadline):
            LOG.warning('the thread of the outbox did not end in time')

    # What follows runs on the drain thread.

    def _run(self) -> None:
        drain: drain_.Drain | None = None
        backoff = retry_.Backoff(*STORE_PAUSES)
        rest = clock.Deadline(0.0)
        try:
            while not self._closing:
                self._wanted.clear()
                self._tell_who_is_here()
                if drain is None and not rest.passed():
                    self._wait(min(rest.left(), self._presence), True)
                    continue
                try:
                    if not self.store.claim():
                        if drain is not None:
                            self._leave(drain, 'this one did not run')
                            self.store.unclaim()
                        drain = None
                    elif drain is None:
                        drain = self._make_drain()
                    pause = self._standby() if drain is None else drain.run()
                    backoff = retry_.Backoff(*STORE_PAUSES)
                except drain_.Starved as error:
                    self._leave(drain, error)
                    drain = None
                    self.store.unclaim()
                    pause = self._standby()
                except store_.StoreError as error:
                    self._log('stored notifications wait: %s', error)
                    pause = backoff.pause()
                except Exception:
                    # What it has in its hands is not certain any more.
                    LOG.exception('the outbox begins anew after an error')
                    _close(drain)
                    drain = None
                    pause = backoff.pause()
                rest = clock.Deadline(pause)
                self._wait(min(pause, self._presence), drain is None)
        finally:
            self._end(drain)

    def _tell_who_is_here(self) -> None:
        """Keep the pools of this process from being forgotten.

        It costs nothing most of the time: the store knows when to write.
        """
        if not self._tell_at.passed():
            return
        self._tell_at = clock.Deadline(self._presence)
        try:
            for where, pool in self.present():
                self.store.saw(where, [pool])
        except store_.StoreError as error:
            self._log('listener pools may be taken for gone: %s', error)
        except Exception:
            LOG.exception('listener pools may be taken for gone')

    def _leave(self, drain: drain_.Drain | None, reason: object) -> None:
        """Stop, so that another process drains."""
        if drain is None:
            return
        self._log(
            'another process brings stored notifications now: %s', reason
        )
        _close(drain)

    def _wait(self, pause: float, standby: bool) -> None:
        deadline = clock.Deadline(pause)
        while not self._closing and not deadline.passed():
            self._wanted.wait(deadline.left())
            if not standby:
                return
            # It is for the process that drains, which looks for itself.
            self._wanted.clear()

    def _end(self, drain: drain_.Drain | None) -> None:
        if drain is None or self._pid != os.getpid():
            return
        try:
            drain.close(clock.Deadline(GRACE))
            self.store.unclaim()
        except store_.StoreError as error:
            LOG.warning('the outbox could not be left in order: %s', error)

    def _standby(self) -> float:
        return self.store.standby * random.uniform(0.5, 1.0)


def _close(drain: drain_.Drain | None) -> None:
    if drain is not None:
        try:
            drain.close(clock.Deadline(0.0))
        except store_.StoreError as error:
            LOG.debug('what was delivered is asked for again: %s', error)
