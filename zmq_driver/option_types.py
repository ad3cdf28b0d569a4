# SPDX-License-Identifier: Apache-2.0
"""The types that options have beyond those of oslo.config."""

import math
import typing

from oslo_config import cfg
from oslo_config import types

#: The most that a time may be: libzmq counts milliseconds in 31 bits.
MAX_SECONDS = 2_000_000.0


class Seconds(types.Float):
    """A time in seconds, which neither nan nor infinity is.

    Thread: any (immutable).
    """

    def __call__(self, value: typing.Any) -> float:
        """Return *value* as a float.

        :raises ValueError: it is no number, or not a possible one
        """
        seconds: typing.Any = super().__call__(value)
        if not math.isfinite(seconds):
            raise ValueError(f'{value} is not a number of seconds')
        return float(seconds)


def seconds(
    name: str, default: float | None, least: float, **kwargs: typing.Any
) -> cfg.Opt:
    """Return an option that is a time in seconds.

    :param name: the name of the option
    :param default: seconds, or None
    :param least: the lower bound, in seconds
    """
    return cfg.Opt(
        name,
        type=Seconds(min=least, max=MAX_SECONDS),
        default=default,
        **kwargs,
    )
