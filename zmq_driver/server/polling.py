# SPDX-License-Identifier: Apache-2.0
"""The loop that polls a notification listener and hands over batches."""

from collections.abc import Callable
import functools
import logging
from typing import Any

from zmq_driver import _oslo
from zmq_driver import counters as counters_
from zmq_driver.server import listener as listener_

LOG = logging.getLogger(__name__)


class PollingLoop(_oslo.PollStyleListenerAdapter):  # type: ignore[misc]
    """oslo.messaging's loop, which loses no batch that is not taken.

    Thread: any.
    """

    def __init__(
        self,
        listener: listener_.NotificationListener,
        batch_size: int,
        batch_timeout: float | None,
    ) -> None:
        """Poll *listener* for batches, as oslo.messaging's loop does."""
        super().__init__(listener, batch_size, batch_timeout)
        self._listener = listener

    def start(self, on_incoming_callback: Callable[[list[Any]], Any]) -> None:
        """Poll from now on.

        :param on_incoming_callback: given a list of notifications; what it
            raises says that it has taken none of them
        """
        log = counters_.LimitedLog(LOG, logging.WARNING)
        hand_over = functools.partial(_hand_over, on_incoming_callback, log)
        if self.batch_size == 1:
            # There is no batch to wait for, so no thread is needed for it.
            self._listener.hand_over_to(hand_over)
        super().start(hand_over)


def _hand_over(
    callback: Callable[[list[Any]], Any],
    log: counters_.LimitedLog,
    batch: list[Any],
) -> None:
    try:
        callback(batch)
    except Exception as error:
        # The executor has no thread, for example. They are under way here, so
        # nobody else gets them.
        log(
            "The listener's executor did not take %d notifications; they are "
            'tried again: %s',
            len(batch),
            error,
        )
        for message in batch:
            message.requeue()
