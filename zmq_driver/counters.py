# SPDX-License-Identifier: Apache-2.0
"""Counts of what happens to messages, and logging that cannot flood."""

import logging
import threading

from zmq_driver import clock as clock_

LOG = logging.getLogger(__name__)


class LimitedLog:
    """Logs at most one line per interval and says how many it left out.

    Thread: any.
    """

    def __init__(
        self,
        log: logging.Logger,
        level: int,
        interval: float = 10.0,
        clock: clock_.Clock = clock_.monotonic,
    ) -> None:
        """Limit *log*.

        :param level: the level of the lines
        :param interval: seconds between two lines
        """
        self._log = log
        self._level = level
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._next_at = float('-inf')
        self._left_out = 0

    def __call__(self, text: str, *args: object) -> None:
        """Log *text* % *args*, or count it as left out."""
        now = self._clock()
        with self._lock:
            if now < self._next_at:
                self._left_out += 1
                return
            self._next_at = now + self._interval
            left_out, self._left_out = self._left_out, 0
        if left_out:
            text += f' ({left_out} more like this since the last line)'
        self._log.log(self._level, text, *args)


class Counters:
    """Named counts that only grow.

    Thread: any.
    """

    #: Every name that may be counted, with its meaning.
    NAMES = {
        'requests_sent': 'requests handed to a connected socket',
        'requests_answered': 'requests that were acknowledged or replied to',
        'requests_retried': 'attempts that were made after one that failed',
        'requests_resent': (
            'requests sent again to the same listener after the connection '
            'to it was lost'
        ),
        'requests_timed_out': 'requests without an answer by their deadline',
        'requests_refused': 'attempts that were answered with a NACK',
        'requests_not_sent': 'attempts without a connected peer',
        'peers_lost': 'peers that went away during an exchange',
        'replies_late': 'answers dropped because nobody waits for them',
        'fanout_copies_failed': 'fanout copies that no server confirmed',
        'messages_received': 'requests accepted by a listener',
        'messages_refused': 'requests answered with a NACK',
        'messages_undecodable': 'messages dropped because they do not parse',
        'messages_duplicate': 'requests that came again and did not run again',
        'messages_stalled': 'requests found after a stop, to be sent again',
        'messages_expired': 'calls not started because they waited too long',
        'messages_forgotten': 'requests sent again that may have run before',
        'replies_unroutable': 'replies whose client is gone',
        'requeued': 'notifications that a listener asked to see again',
        'notifications_delivered_late': (
            'stored copies of notifications that a listener has handled'
        ),
        'notifications_stored': 'notifications stored for some pool',
        'notifications_dropped': (
            'stored copies of notifications dropped at a bound of the store'
        ),
        'notifications_buried': (
            'stored copies of notifications that became dead letters'
        ),
    }

    def __init__(self) -> None:
        """Start every count at zero."""
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(self.NAMES, 0)
        self._garbage_log = LimitedLog(LOG, logging.WARNING)

    def add(self, name: str, count: int = 1) -> None:
        """Add *count* to the counter *name*, one of :attr:`NAMES`.

        :raises KeyError: there is no such counter
        """
        with self._lock:
            self._counts[name] += count

    def add_undecodable(self, text: str, *args: object) -> None:
        """Count a message that does not parse, and log *text* % *args*.

        Who sends garbage can send much of it, so not every line is logged.
        """
        self.add('messages_undecodable')
        self._garbage_log(text, *args)

    def snapshot(self) -> dict[str, int]:
        """Return every count by name."""
        with self._lock:
            return dict(self._counts)
