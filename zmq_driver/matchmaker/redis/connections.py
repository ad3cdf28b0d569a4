# SPDX-License-Identifier: Apache-2.0
"""The connections of a matchmaker or store, and how scripts run over them."""

from collections.abc import Callable
from collections.abc import Sequence
import threading
from typing import Any

import redis

from zmq_driver import clock as clocks
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker.redis import link as link_
from zmq_driver.matchmaker.redis import scripts
from zmq_driver.matchmaker.redis import servers as servers_

#: Idle connections that are kept. Most operations come one at a time.
MAX_IDLE = 4

#: What to do about an error of the server, by what its text or type has.
_HINTS = (
    (
        'NoPermissionError',
        'grant the user the rights that the documentation lists',
    ),
    ('username-password', 'check user name and password'),
    ('Authentication required', 'check user name and password'),
    # What a long command gets.
    ('unauthenticated', 'check user name and password'),
    ('ReadOnlyError', 'name the master, or use zmq+sentinel'),
    ('maxmemory', 'raise its maxmemory'),
    ('MISCONF', 'it cannot write to its disk, see its log'),
)


class Connections:
    """Runs scripts, each on a connection of its own, and keeps a few.

    Thread: any.
    """

    def __init__(
        self,
        servers: servers_.Servers,
        clock: clocks.Clock,
        max_idle: int = MAX_IDLE,
    ) -> None:
        """Connect to nothing yet.

        :param max_idle: how many idle connections are kept
        """
        self._servers = servers
        self._clock = clock
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[tuple[float, link_.Link]] = []
        self._closed = False
        #: The server that was connected to last.
        self.latest: link_.Server | None = None

    def run(
        self,
        what: str,
        script: scripts.Script,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | int],
        deadline: clocks.Deadline,
    ) -> Any:
        """Run a script and return what it returns.

        All scripts of the matchmaker may run twice. So what fails on a
        connection that was kept is tried once more on a new one: the server
        was restarted, or is no master any more.

        :param what: what is done, for errors
        :raises base.MatchmakerUnavailable: it was not run, or that is not
            known
        """
        try:
            return self.ask(script, keys, arguments, deadline)
        except redis.RedisError as exc:
            raise self.unavailable(what, exc) from exc

    def ask(
        self,
        script: scripts.Script,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | int],
        deadline: clocks.Deadline,
        on_sent: Callable[[], object] = lambda: None,
    ) -> Any:
        """Run a script and return what it returns; it may run twice.

        :param on_sent: called before anything is sent that could run
        :raises redis.RedisError: it was not run, or that is not known
        """
        command = (len(keys), *keys, *arguments)
        kept = self._take()
        if kept is not None:
            try:
                on_sent()
                return self._run_on(*kept, script, command, deadline)
            except redis.TimeoutError:
                raise
            except (redis.ConnectionError, redis.ReadOnlyError):
                self._drop_idle()
        made = self.connect(deadline)
        on_sent()
        return self._run_on(self._clock(), made, script, command, deadline)

    def connect(self, deadline: clocks.Deadline) -> link_.Link:
        """Return a new link, which the caller closes.

        :raises redis.RedisError: there is none to be had
        """
        link = self._servers.connect(deadline)
        self.latest = link.server
        return link

    def unavailable(
        self, what: str, error: Exception
    ) -> base.MatchmakerUnavailable:
        """Return the error that says what failed and what to do."""
        text = self.explain(what, error)
        if isinstance(error, redis.RedisError) and link_.is_lasting(error):
            return base.MatchmakerMisconfigured(text)
        return base.MatchmakerUnavailable(text)

    def explain(self, what: str, error: Exception) -> str:
        """Return what failed, why, and what to do."""
        kind = type(error).__name__
        text = f'cannot {what}: {self._servers}: {error}'
        for sign, hint in _HINTS:
            if sign == kind or sign in str(error):
                return f'{text} ({hint})'
        return text

    def __str__(self) -> str:
        return str(self._servers)

    def close(self) -> None:
        """Close all connections; those in use when they come back."""
        with self._lock:
            self._closed = True
        self._drop_idle()

    def forget(self) -> None:
        """Let go of what a forked child inherited.

        Its copies of the sockets are closed without a word to the server,
        which redis-py sees to by the process id.
        """
        self._lock = threading.Lock()
        self._idle = []
        self._closed = True
        self._servers.forget()

    def _run_on(
        self,
        made_at: float,
        link: link_.Link,
        script: scripts.Script,
        command: tuple[Any, ...],
        deadline: clocks.Deadline,
    ) -> Any:
        try:
            try:
                return link.ask(deadline, 'EVALSHA', script.sha, *command)
            except redis.exceptions.NoScriptError:
                return link.ask(deadline, 'EVAL', script.text, *command)
        except redis.ReadOnlyError:
            # It was the master when we connected.
            link.close()
            raise
        finally:
            self._put_back(made_at, link)

    def _take(self) -> tuple[float, link_.Link] | None:
        """Return a kept connection that works, if there is one."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                made_at, link = self._idle.pop()
            if not self._is_old(made_at) and link.is_idle():
                return made_at, link
            link.close()

    def _is_old(self, made_at: float) -> bool:
        most = self._servers.max_age
        return most is not None and self._clock() - made_at >= most

    def _put_back(self, made_at: float, link: link_.Link) -> None:
        if link.is_open():
            with self._lock:
                if not self._closed and len(self._idle) < self._max_idle:
                    self._idle.append((made_at, link))
                    return
        link.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, link in idle:
            link.close()
