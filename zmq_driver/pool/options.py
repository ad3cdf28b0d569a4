# SPDX-License-Identifier: Apache-2.0
"""The limits of a socket pool, checked once."""

import dataclasses
import math

#: The least that each limit can be.
_LEAST = {'max_size': 1, 'max_per_peer': 1, 'max_waiters': 0, 'min_idle': 0}
#: The times that 0 turns off.
_TIMES = ('idle_ttl', 'max_age', 'leak_after')


@dataclasses.dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a pool may hold, and for how long; times are in seconds.

    :raises ValueError: a limit is out of bounds; the text names the option,
        the value and what to do

    Thread: any.
    """

    #: Sockets that may exist at once, to all peers together, those being
    #: opened or closed included. At least 1.
    max_size: int = 256
    #: Sockets that may exist at once to one peer. From 1 to ``max_size``.
    max_per_peer: int = 32
    #: Threads that may wait for a socket at once. 0: nobody waits.
    max_waiters: int = 1024
    #: For how long a socket stays open that nobody uses. 0: for ever.
    idle_ttl: float = 0.0
    #: The age after which a socket is not lent again; each socket has an age
    #: of its own, from 0.9 to 1.0 of this. 0: no age is too old.
    max_age: float = 0.0
    #: Between two runs of the reaper, which closes what is idle for too long
    #: or too old. More than 0.
    reap_interval: float = 5.0
    #: Idle sockets that each peer has as soon as it has any: ``idle_ttl``
    #: does not close them, and what is missing is opened ahead. From 0 to
    #: ``max_per_peer``.
    min_idle: int = 0
    #: For how long a socket may be lent until the log tells of it. 0: as long
    #: as anybody likes. Else each checkout takes note of the caller's stack.
    leak_after: float = 0.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f'{name}={value!r} is no limit: '
                    f'give a whole number of {least} or more'
                )
        for name in _TIMES:
            if not _is_time(getattr(self, name)):
                raise ValueError(
                    f'{name}={getattr(self, name)!r} is no time: '
                    f'give a number of seconds, or 0 to turn it off'
                )
        if not self.reap_interval or not _is_time(self.reap_interval):
            raise ValueError(
                f'reap_interval={self.reap_interval!r} is no interval: '
                f'give a number of seconds greater than 0'
            )
        self._check_order('max_per_peer', 'max_size')
        self._check_order('min_idle', 'max_per_peer')

    @property
    def needs_upkeep(self) -> bool:
        """Whether there is something for the reaper's thread to do."""
        return bool(
            self.idle_ttl or self.max_age or self.min_idle or self.leak_after
        )

    def _check_order(self, less: str, more: str) -> None:
        if getattr(self, less) > getattr(self, more):
            raise ValueError(
                f'{less}={getattr(self, less)} can never be reached with '
                f'{more}={getattr(self, more)}: '
                f'lower the one or raise the other'
            )


def _is_time(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )
