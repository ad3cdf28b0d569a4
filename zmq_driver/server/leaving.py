# SPDX-License-Identifier: Apache-2.0
"""The last moments of a router, in which it only refuses."""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import time
from typing import NamedTuple

import zmq

from zmq_driver import clock
from zmq_driver.server import channel as channel_

#: Seconds for which a router that ends goes on refusing messages, and between
#: two looks for one: longer than a client relies on a local lookup.
GRACE = 0.1
GRACE_PAUSE = 0.005


def _not_known() -> bool:
    return False


class Ending(NamedTuple):
    """How a router is to end.

    Thread: any (immutable).
    """

    #: Asked when nothing is taken any more: tells whether all that listeners
    #: took is dealt with, so that what is on its way to us has not run.
    all_done: Callable[[], bool] = _not_known
    #: Until when, but for ``linger``, the answers that were made may take to
    #: be sent: who reads a large one slowly is to get all of it.
    sending: clock.Deadline = clock.Deadline(0.0)


#: Nothing is known, and there is no time but ``linger``.
AT_ONCE = Ending()


def refuse_rest(
    channel: channel_.Channel,
    receive: Callable[[Sequence[bytes]], None],
    alone: float = 0.0,
) -> None:
    """Answer what still comes in, so that its senders go elsewhere.

    A sender that looked us up before we left may send a little later.

    :param receive: takes the frames of a message, and refuses it
    :param alone: seconds since the last listener left, and was found by
        nobody any more
    """
    grace = clock.Deadline(GRACE)
    late = clock.Deadline(max(GRACE - alone, 0.0))
    with contextlib.suppress(zmq.ContextTerminated):
        while not grace.passed():
            frames = channel.receive()
            if frames is not None:
                receive(frames)
            elif late.passed():
                return
            else:
                time.sleep(GRACE_PAUSE)
