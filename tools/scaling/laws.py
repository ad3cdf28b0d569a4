# SPDX-License-Identifier: Apache-2.0
"""What follows from the design alone, whatever the site is like."""

from collections.abc import Callable
import math
import statistics

from scaling import costs as costs_
from scaling import inputs

#: A socket that nobody uses is closed at the next look of the reaper.
REAP_DELAY = inputs.POOL_REAP_INTERVAL / 2
#: Sockets are lent for so long at most: up to a tenth less, by chance.
_MAX_AGES = [inputs.POOL_MAX_AGE * (0.905 + 0.01 * n) for n in range(10)]
#: Sizes between which a limit is looked for.
_RANGE = (3, 100_000)


def mean_period() -> float:
    """Return the seconds between two renewals of a process."""
    return inputs.HEARTBEAT_FREQ * (1.0 - inputs.RENEWAL_JITTER / 2)


def pays_within(costs: costs_.Costs, heartbeat_interval: float) -> float:
    """Return how often a socket has to be used to be worth keeping.

    :returns: seconds between two uses, at which its heartbeats take as much
        processor time, at both ends together, as a new connection
    """
    often = inputs.HEARTBEAT_INTERVAL / heartbeat_interval
    idle = often * (costs.server_idle.each + costs.client_idle.each)
    opening = costs.fanout_closed.each - costs.fanout_open.each
    return (opening + costs.accepting) / idle


def in_turn_hit_ratio(workers: int, calls: float, idle_ttl: float) -> float:
    """Return the hit ratio of one process that calls *workers* in turn.

    :param calls: per second
    :param idle_ttl: seconds; 0 keeps sockets for ever
    """
    back = workers / calls
    if idle_ttl and back > idle_ttl + REAP_DELAY:
        return 0.0
    # Of the leases of a socket, all but the first one find it.
    leases = statistics.mean(math.ceil(age / back) for age in _MAX_AGES)
    return 1.0 - 1.0 / leases


def reached_at(figure: Callable[[float], float], limit: float) -> float | None:
    """Return the least size at which *figure* reaches *limit*.

    :returns: None if a site of 100,000 nodes does not
    """
    low, high = _RANGE
    if figure(high) < limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if figure(middle) < limit:
            low = middle
        else:
            high = middle
    return high
