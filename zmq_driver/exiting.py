# SPDX-License-Identifier: Apache-2.0
"""The exit of a process that listens and never called ``cleanup()``.

The interpreter runs what is registered with :mod:`atexit` when all threads
that are not daemons have ended, the newest first. So what is done here comes
before futurist ends its workers and forgets what waits for one: a server has
made its executor before it listens.
"""

import atexit
from collections.abc import Callable
import logging
import os
import threading
from typing import Protocol
import weakref

from zmq_driver import clock

LOG = logging.getLogger(__name__)

#: Seconds in which all listeners must be withdrawn; Redis may hang.
LEAVE_TIMEOUT = 1.0
#: Seconds that there are for the last steps, whatever took long before: to
#: pass on notifications and to send, and, besides ``linger``, to close the
#: sockets.
LAST_TIMEOUT = 1.0


class Listening(Protocol):
    """The part of a runtime that ends with the process.

    Thread: any.
    """

    #: The process that it is for.
    pid: int
    #: Seconds for which accepted messages are waited for.
    cleanup_timeout: float
    #: Seconds for which what was sent may wait for its reader.
    linger: float

    def leave(self, deadline: clock.Deadline) -> None:
        """Be found by nobody any more, and receive nothing."""

    def finish(self, deadline: clock.Deadline) -> bool:
        """Wait for what was accepted; return whether all of it was done."""

    def end_reception(self, deadline: clock.Deadline) -> None:
        """Begin to send the answers that were made, and to end.

        :param deadline: when they are given up, but for ``linger``
        """

    def await_end(self, deadline: clock.Deadline) -> None:
        """Wait until that is done."""


_lock = threading.Lock()
_listening: 'weakref.WeakSet[Listening]' = weakref.WeakSet()


def end_well(listening: Listening) -> None:
    """Let *listening* end well if the process exits; idempotent."""
    with _lock:
        _listening.add(listening)
        # What is registered last is run first: before what its user has
        # registered until now, and before the end of futurist's workers.
        atexit.unregister(_end_all)
        atexit.register(_end_all)


def end_no_more(listening: Listening) -> None:
    """Forget *listening*, which was closed."""
    with _lock:
        _listening.discard(listening)


def _end_all() -> None:
    """End everything that still listens in this process."""
    with _lock:
        # What a forked child inherited is its parent's to end.
        here = [one for one in _listening if one.pid == os.getpid()]
    leave = clock.Deadline(LEAVE_TIMEOUT)
    for index, one in enumerate(here):
        # One that is held up leaves the others their share.
        share = leave.left() / (len(here) - index)
        _try(one.leave, leave.within(share))
    # After all have left: what still runs may need the others to send.
    finish = [clock.Deadline(one.cleanup_timeout) for one in here]
    for one, deadline in zip(here, finish, strict=True):
        _try(one.finish, deadline)
    send = [
        clock.Deadline(max(deadline.left(), LAST_TIMEOUT))
        for deadline in finish
    ]
    for one, deadline in zip(here, send, strict=True):
        _try(one.end_reception, deadline)
    # All of them send, and linger, at the same time.
    end = [
        clock.Deadline(deadline.left() + one.linger + LAST_TIMEOUT)
        for one, deadline in zip(here, send, strict=True)
    ]
    for one, deadline in zip(here, end, strict=True):
        _try(one.await_end, deadline)


def _try(
    step: Callable[[clock.Deadline], object], deadline: clock.Deadline
) -> None:
    try:
        step(deadline)
    except Exception:
        # The others are to end well all the same.
        LOG.exception('the process exits, and something went wrong')


def _begin_anew() -> None:
    """Do without a lock that some other thread of the parent held."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)
