# SPDX-License-Identifier: Apache-2.0
"""Small answers that libzmq has no room for yet."""

import collections
from collections.abc import Callable
from collections.abc import Sequence

from zmq_driver import clock as clock_

#: Bytes that an answer may have; an acknowledgement has less.
MAX_SIZE = 256
#: Answers to one connection: twice as many as it may be owed (stream.WINDOW).
MAX_OF_ONE = 512
#: Answers to all.
MAX_HELD = 10_000
#: Seconds after which a connection that takes nothing reads nothing.
TTL = 2.0
#: Seconds between two attempts to send them.
PAUSE = 0.002

_Answer = Sequence[bytes]


class Held:
    """Keeps what was not sent because a connection's queue was full.

    Whoever drains a store is owed hundreds of acknowledgements at once. The
    queue of libzmq is short, so that strangers who read nothing cannot fill
    the memory with replies; and its thread may be late.

    Thread: any; its user's lock is held.
    """

    def __init__(self, clock: clock_.Clock = clock_.monotonic) -> None:
        """Hold nothing."""
        self._clock = clock
        self._count = 0
        # By routing id: what waits, and since when nothing was taken.
        self._waiting: dict[bytes, collections.deque[_Answer]] = {}
        self._since: dict[bytes, float] = {}

    def __bool__(self) -> bool:
        """Return whether anything is held; needs no lock."""
        return self._count > 0

    def holds(self, routing_id: bytes) -> bool:
        """Return whether something waits for a connection."""
        return routing_id in self._waiting

    def add(self, frames: _Answer) -> bool:
        """Hold an answer; return False if it is too large, or one too many.

        :param frames: the first one names the connection
        """
        if sum(map(len, frames)) > MAX_SIZE or self._count >= MAX_HELD:
            return False
        waiting = self._waiting.setdefault(frames[0], collections.deque())
        if len(waiting) >= MAX_OF_ONE:
            return False
        self._since.setdefault(frames[0], self._clock())
        waiting.append(frames)
        self._count += 1
        return True

    def retry(
        self, send: Callable[[_Answer], bool], is_full: Callable[[], bool]
    ) -> list[_Answer]:
        """Send what can be sent; return what nobody will ever read.

        :param send: returns whether it was sent
        :param is_full: whether that was for want of room
        """
        dropped: list[_Answer] = []
        now = self._clock()
        for routing_id, waiting in tuple(self._waiting.items()):
            gone = False
            while waiting and not gone:
                if send(waiting[0]):
                    waiting.popleft()
                    self._count -= 1
                    self._since[routing_id] = now
                elif is_full() and now - self._since[routing_id] < TTL:
                    break
                else:
                    gone = True
            if gone:
                self._count -= len(waiting)
                dropped += waiting
            if gone or not waiting:
                del self._waiting[routing_id], self._since[routing_id]
        return dropped
