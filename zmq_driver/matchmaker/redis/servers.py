# SPDX-License-Identifier: Apache-2.0
"""Which Redis to connect to: always the same, or whom Sentinel names."""

from collections.abc import Callable
from collections.abc import Sequence
import random
import threading
from typing import Protocol

import redis

from zmq_driver import clock
from zmq_driver.matchmaker.redis import link as link_

#: Connects to a server by a deadline.
Connect = Callable[[link_.Server, clock.Deadline], link_.Link]


class Servers(Protocol):
    """Finds the Redis that takes writes.

    Thread: any.
    """

    #: Seconds after which a connection is replaced, because another Redis
    #: may be the master by then; None: never.
    max_age: float | None

    def connect(self, deadline: clock.Deadline) -> link_.Link:
        """Return a new link.

        :raises redis.RedisError: there is none to be had
        """

    def forget(self) -> None:
        """Let go of what a forked child inherited."""


class FixedServer:
    """One Redis, whose address never changes.

    Thread: any.
    """

    max_age: float | None = None

    def __init__(self, server: link_.Server, connect: Connect) -> None:
        """Remember where it is."""
        self._server = server
        self._connect = connect

    def connect(self, deadline: clock.Deadline) -> link_.Link:
        """Return a new link.

        :raises redis.RedisError: it cannot be connected to
        """
        return self._connect(self._server, deadline)

    def forget(self) -> None:
        """Nothing is inherited."""

    def __str__(self) -> str:
        return f'Redis at {self._server}'


class SentinelGroup:
    """The master of a group that Sentinels watch over.

    It follows the protocol for Sentinel clients: ask one Sentinel after the
    other where the master is, each with a short time-out; connect there; ask
    that server for its role, and believe only a master.

    Thread: any.
    """

    def __init__(
        self,
        group: str,
        sentinels: Sequence[link_.Server],
        connect_sentinel: Connect,
        connect: Connect,
        max_age: float = 30.0,
    ) -> None:
        """Remember whom to ask, in an order by chance.

        :param max_age: seconds; an old master does not know that it is one
            until Sentinel gets hold of it, and its clients do not either
            until they ask again
        """
        self.max_age: float | None = max_age
        self._group = group
        self._connect_sentinel = connect_sentinel
        self._connect = connect
        self._lock = threading.Lock()
        # Whoever answered goes first next time.
        self._sentinels = random.sample(list(sentinels), len(sentinels))
        self._text = ', '.join(str(server) for server in sentinels)

    def connect(self, deadline: clock.Deadline) -> link_.Link:
        """Return a new link to the master.

        :raises redis.RedisError: no Sentinel names one, or it is none
        """
        problems: list[str] = []
        lasting = True
        with self._lock:
            sentinels = tuple(self._sentinels)
        for sentinel in sentinels:
            try:
                master = self._ask(sentinel, deadline)
                link = self._connect_master(master, deadline)
            except redis.RedisError as exc:
                problems.append(f'Sentinel {sentinel}: {exc}')
                lasting = lasting and link_.is_lasting(exc)
                self._put_last(sentinel)
                continue
            return link
        if lasting:
            raise redis.AuthenticationError('; '.join(problems))
        raise redis.ConnectionError('; '.join(problems))

    def forget(self) -> None:
        """Make a new lock in a forked child."""
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f'Redis group {self._group} of the Sentinels {self._text}'

    def _ask(
        self, sentinel: link_.Server, deadline: clock.Deadline
    ) -> link_.Server:
        """Return the master that a Sentinel names."""
        link = self._connect_sentinel(sentinel, deadline)
        try:
            answer = link.ask(
                deadline, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', self._group
            )
        finally:
            link.close()
        if not answer:
            raise redis.ResponseError(
                f'it knows no master group {self._group!r}; the path of the '
                f'URL is /group/virtual-host'
            )
        host, port = answer
        return link_.Server(host.decode(), int(port))

    def _connect_master(
        self, master: link_.Server, deadline: clock.Deadline
    ) -> link_.Link:
        link = self._connect(master, deadline)
        try:
            role = link.ask(deadline, 'ROLE')[0]
            if role != b'master':
                raise redis.ReadOnlyError(
                    f'{master}, which it names as the master, is a '
                    f'{role.decode()}'
                )
        except BaseException:
            link.close()
            raise
        return link

    def _put_last(self, sentinel: link_.Server) -> None:
        with self._lock:
            self._sentinels.remove(sentinel)
            self._sentinels.append(sentinel)
