# SPDX-License-Identifier: Apache-2.0
"""Notices that the router thread did not run, rule DL-53.

A process that is stopped and goes on finds what came meanwhile, and cannot
know which of the senders still wait. So it lets them ask again.
"""

import logging

from zmq_driver import clock as clock_
from zmq_driver import counters as counters_
from zmq_driver import envelope

LOG = logging.getLogger(__name__)

#: Seconds between two looks at the socket that are too many: the router
#: thread rests for half of it at most.
STALL = 1.0
#: Seconds that a stall lasts at least: libzmq's thread did not run either,
#: and has to read what the kernel holds before the socket can be empty.
SETTLE = 0.25
#: Requests after which a stall ends, should the socket never be empty.
MAX_ASKED = 100_000
#: Stalls one after the other, with nothing handed over in between, after
#: which the next one is overlooked: a process that runs only now and then
#: must get on all the same.
MAX_IN_A_ROW = 3

#: What is the same in a request that is sent once more.
_Asked = tuple[bytes, bytes, str, int]


class Stall:
    """Tells the requests that are to be sent once more.

    Thread: router.
    """

    def __init__(
        self,
        counters: counters_.Counters,
        clock: clock_.Clock = clock_.monotonic,
    ) -> None:
        """Watch from the first look on."""
        self._counters = counters
        self._clock = clock
        self._log = counters_.LimitedLog(LOG, logging.WARNING, clock=clock)
        self._looked_at = float('inf')
        #: When the stall was noticed; None: there is none.
        self._noticed_at: float | None = None
        self._seconds = 0.0
        self._asked: set[_Asked] = set()
        self._in_a_row = 0

    def look(self, found: bool) -> None:
        """Take note of a look at the socket.

        :param found: whether there was a message
        """
        now = self._clock()
        gap = now - self._looked_at
        self._looked_at = now
        if gap > STALL:
            self._begin(now, gap)
        elif (
            self._noticed_at is not None
            and not found
            and now - self._noticed_at >= SETTLE
        ):
            self._end()

    def refuses(self, header: envelope.Header) -> bool:
        """Return whether a request is to be sent once more."""
        if self._noticed_at is not None:
            # One that comes as before has a sender that was told and waits.
            asked = (
                header.message_id,
                header.incarnation,
                header.server,
                header.flags,
            )
            if asked not in self._asked:
                self._asked.add(asked)
                self._counters.add('messages_stalled')
                if len(self._asked) >= MAX_ASKED:
                    self._end()
                return True
        self._in_a_row = 0
        return False

    def _begin(self, now: float, gap: float) -> None:
        if self._noticed_at is not None:
            self._end()
        if self._in_a_row >= MAX_IN_A_ROW:
            self._in_a_row = 0
            return
        self._noticed_at = now
        self._seconds = gap

    def _end(self) -> None:
        self._noticed_at = None
        asked, self._asked = self._asked, set()
        if asked:
            self._in_a_row += 1
            self._log(
                'The receiving thread did not run for %.1f s (the process was '
                'stopped or swapped out, or the interpreter lock was held); '
                '%d requests are asked for again.',
                self._seconds,
                len(asked),
            )
