# SPDX-License-Identifier: Apache-2.0
"""How the store asks Redis, and what its errors mean."""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import redis

from zmq_driver import clock as clocks
from zmq_driver import options as options_
from zmq_driver.matchmaker.redis import connections as connections_
from zmq_driver.matchmaker.redis import link as link_
from zmq_driver.matchmaker.redis import scripts
from zmq_driver.matchmaker.redis import servers as servers_
from zmq_driver.store import base

#: Idle connections that are kept: for threads that store at the same time.
MAX_IDLE = 16

#: Seconds after a failure for which one who is in a hurry does not ask.
AWAY_TTL = 1.0

#: Keys of copies in one run of a script, which nothing interrupts: a few
#: milliseconds of the server's time.
CHUNK = 256

#: How an error answer begins that another attempt may not get.
_PASSING = ('LOADING', 'MASTERDOWN', 'NOREPLICAS', 'READONLY', 'UNKILLABLE')

Argument = bytes | str | int


class Access:
    """Runs the scripts of one store, by deadlines.

    Thread: any.
    """

    def __init__(
        self,
        servers: servers_.Servers,
        options: options_.Settings,
        virtual_host: str,
        clock: clocks.Clock = clocks.monotonic,
    ) -> None:
        """Connect to nothing yet."""
        self._connections = connections_.Connections(servers, clock, MAX_IDLE)
        self._clock = clock
        host = scripts.encode(virtual_host)
        self._keys = [f'{options.redis_key_prefix}stored:{host}:']
        self._why_closed = ''
        self._away_until = float('-inf')

    def run(
        self,
        what: str,
        script: scripts.Script,
        arguments: Sequence[Argument],
        deadline: clocks.Deadline,
    ) -> Any:
        """Run a script, which may run twice, and return what it returns.

        :param what: what is done, for errors
        :raises base.StoreAway: Redis does not answer, but may later
        :raises base.StoreUnavailable: it refuses
        """
        if self._why_closed:
            raise base.StoreUnavailable(self._why_closed)
        sent: list[None] = []
        try:
            return self._connections.ask(
                script,
                self._keys,
                arguments,
                deadline,
                lambda: sent.append(None),
            )
        except redis.RedisError as error:
            raise self._failure(what, error, bool(sent)) from error

    def is_away(self) -> bool:
        """Return whether Redis did not answer a moment ago."""
        return self._clock() < self._away_until

    def close(self) -> None:
        """Close all connections; what is asked later is refused."""
        self._why_closed = (
            'notifications are not stored any more, the transport was '
            'cleaned up'
        )
        self._connections.close()

    def forget(self) -> None:
        """Let go of what a forked child inherited."""
        self._why_closed = 'the store was inherited over a fork'
        self._connections.forget()

    def __str__(self) -> str:
        return f'in {self._connections}'

    def _failure(
        self, what: str, error: redis.RedisError, sent: bool
    ) -> base.StoreUnavailable:
        reason = str(error)
        if reason.startswith('LAPSED'):
            return base.StoreUnavailable('another process drains it now')
        if reason.startswith('LAYOUT'):
            return base.StoreUnavailable(
                f'{self._connections} has notifications in '
                f'{reason.lower()}, this release of the driver knows another '
                f'one: run the release that wrote them, or set another '
                f'redis_key_prefix'
            )
        text = self._connections.explain(what, error)
        # An answer that is an error says that nothing was done.
        answered = isinstance(error, redis.ResponseError)
        passing = isinstance(error, redis.ReadOnlyError) or reason.startswith(
            _PASSING
        )
        if link_.is_lasting(error) or (answered and not passing):
            return base.StoreUnavailable(text)
        self._away_until = self._clock() + AWAY_TTL
        return base.StoreAway(text, may_be_done=sent and not answered)


def chunks(keys: Sequence[base.Key]) -> Iterator[list[Argument]]:
    """Give queue and number of each key, in bounded pieces."""
    for start in range(0, len(keys), CHUNK):
        yield [part for key in keys[start : start + CHUNK] for part in key]
