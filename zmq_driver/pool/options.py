# SPDX-License-Identifier: Apache-2.0
"""The limits of a socket pool, checked once."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a pool may hold.

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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least = 0 if field.name == 'max_waiters' else 1
            value = getattr(self, field.name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f'{field.name}={value!r} is no limit: '
                    f'give a whole number of {least} or more'
                )
        if self.max_per_peer > self.max_size:
            raise ValueError(
                f'max_per_peer={self.max_per_peer} can never be reached with '
                f'max_size={self.max_size}: lower the one or raise the other'
            )
