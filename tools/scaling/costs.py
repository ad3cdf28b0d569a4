# SPDX-License-Identifier: Apache-2.0
"""What things cost: straight lines through the measured points.

The largest size of each quantity is left out of its line, so that it can
show how well the line foretells. What is no straight line has one from each
point to the next.
"""

from collections.abc import Mapping
from typing import NamedTuple

from scaling import points


class Line(NamedTuple):
    """``base + each * size``."""

    base: float
    each: float

    def __call__(self, size: float) -> float:
        return self.base + self.each * size


def fit(found: Mapping[int, float]) -> Line:
    """Return the line with the least squares of relative errors."""
    weights = {size: 1.0 / value**2 for size, value in found.items() if value}
    total = sum(weights.values())
    middle = sum(w * size for size, w in weights.items()) / total
    mean = sum(w * found[size] for size, w in weights.items()) / total
    spread = sum(w * (size - middle) ** 2 for size, w in weights.items())
    both = sum(
        w * (size - middle) * (found[size] - mean)
        for size, w in weights.items()
    )
    each = both / spread
    return Line(mean - each * middle, each)


def foretold(found: Mapping[int, float]) -> Line:
    """Return the line through all points but that of the largest size."""
    return fit(_smaller(found))


def _smaller(found: Mapping[int, float]) -> dict[int, float]:
    largest = max(found)
    return {size: at for size, at in found.items() if size != largest}


class Curve:
    """Straight lines from each measured point to the next.

    Thread: any (immutable).
    """

    def __init__(self, found: Mapping[int, float]) -> None:
        """Go through all points, and on as between the last two."""
        self._points = sorted(found.items())

    def __call__(self, size: float) -> float:
        """Return the cost; that of the least size for what is less."""
        (left, low), *others = self._points
        value = low
        for right, high in others:
            if size > left:
                value = low + (high - low) * (size - left) / (right - left)
            if size <= right:
                break
            left, low = right, high
        return value


def extended(found: Mapping[int, float]) -> Curve:
    """Return the curve through all points but that of the largest size."""
    return Curve(_smaller(found))


class Costs:
    """What the model takes from the measured points.

    Thread: any (immutable).
    """

    def __init__(self, measured: points.Points) -> None:
        """Draw the lines."""

        def line(quantity: str) -> Line:
            return foretold(measured[quantity])

        #: KiB of so many connections at a server, and at a client.
        self.server_memory = line('server memory')
        self.client_memory = line('client memory')
        #: ms/s of processor time that idle ones take both.
        self.server_idle = line('server idle processor')
        self.client_idle = line('client idle processor')
        #: ms of a server for a new connection and an exchange.
        accepted = measured['reconnect server processor']
        self.accepting = 1000 * accepted[max(accepted)] / max(accepted)
        #: KiB in Redis of so many agents, and of so many connections.
        self.redis_memory = line('redis memory')
        self.redis_client_memory = line('redis client memory')
        #: µs of Redis for a look-up of so many listeners, and a message to
        #: so many subscribers.
        self.look_up = Curve(measured['redis look-up'])
        self.publish = Curve(measured['redis publish'])
        #: KiB of the answer to a look-up.
        self.answer = Curve(measured['redis look-up answer'])
        #: µs of Redis for a renewal of one, and of all topics of an agent:
        #: at the size that is nearest to most sites.
        self.renewal = measured['redis renewal of 1'][5000]
        self.agent_renewal = measured['redis renewal of 10'][5000]
        #: ms of processor time of the sender for a fanout to so many, over
        #: sockets that are open, and that are not.
        self.fanout_open = line('fanout processor, pool of 256')
        self.fanout_closed = line('fanout processor, pool of 32')
