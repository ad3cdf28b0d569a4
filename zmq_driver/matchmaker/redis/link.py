# SPDX-License-Identifier: Apache-2.0
"""One connection to a Redis or a Sentinel, bounded by deadlines.

redis-py gives the protocol, TLS and the errors. Its client, pool, retries
and Sentinel support are not used: their defaults differ between versions
(redis-py 8 retries ten times, so one hung Sentinel costs a minute), and they
know time-outs only, no deadline of an operation.
"""

import dataclasses
import inspect
from typing import Any

import redis
from redis import backoff
from redis import connection
from redis import retry

from zmq_driver import clock


@dataclasses.dataclass(frozen=True)
class Server:
    """Where a server is.

    Thread: any (immutable).
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{host}:{self.port}'


@dataclasses.dataclass(frozen=True)
class Login:
    """How to log in; never shown.

    Thread: any (immutable).
    """

    username: str = dataclasses.field(default='', repr=False)
    password: str = dataclasses.field(default='', repr=False)

    def command(self) -> tuple[str, ...]:
        """Return the command that logs in, or nothing."""
        if self.username:
            return ('AUTH', self.username, self.password)
        return ('AUTH', self.password) if self.password else ()


@dataclasses.dataclass(frozen=True)
class Tls:
    """How a server is verified, and what it is shown; '' is nothing.

    Thread: any (immutable).
    """

    ca_file: str = ''
    cert_file: str = ''
    key_file: str = ''
    check_hostname: bool = True


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds that steps may take, besides the deadline of the operation.

    Thread: any (immutable).
    """

    connect: float
    answer: float


# What redis-py has gained since 4.3 and must not do: switch the protocol, and
# tell the server its own version, which costs round trips and rights.
_KNOWN = {
    name
    for kind in connection.Connection.__mro__[:-1]
    if '__init__' in vars(kind)
    for name in inspect.signature(vars(kind)['__init__']).parameters
}
_UNTOLD = (
    ('driver_info',)
    if 'driver_info' in _KNOWN
    else ('lib_name', 'lib_version')
)
_PLAIN: dict[str, Any] = {
    name: value
    for name, value in {'protocol': 2, **dict.fromkeys(_UNTOLD)}.items()
    if name in _KNOWN
}


#: What the text of an error has that waiting does not mend.
_LASTING = (
    'username-password',
    'Authentication required',
    'unauthenticated',
    'DB index',
    'no master group',
    'CERTIFICATE_VERIFY_FAILED',
)


def is_lasting(error: redis.RedisError) -> bool:
    """Return whether *error* is a mistake in the configuration.

    Everything else may be over soon: a server that is down, starts, or is
    about to become the master.
    """
    return isinstance(
        error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)
    ) or any(sign in str(error) for sign in _LASTING)


class Link:
    """An open connection that is logged in, used by one thread at a time.

    Thread: any one.
    """

    def __init__(
        self,
        login: Login,
        db: int,
        tls: Tls | None,
        limits: Limits,
        server: Server,
        deadline: clock.Deadline,
    ) -> None:
        """Connect and log in.

        :param db: the number of the database
        :param tls: None: no TLS
        :raises redis.RedisError: it cannot be done, or not in time
        """
        self.server = server
        self.limits = limits
        limit = min(limits.connect, deadline.left())
        if limit <= 0:
            raise redis.TimeoutError(f'no time left to connect to {server}')
        settings: dict[str, Any] = {
            'host': server.host,
            'port': server.port,
            'socket_connect_timeout': limit,
            # Between two parts of an answer; how long the first part may
            # take is in ask().
            'socket_timeout': limits.answer,
            'socket_keepalive': True,
            'retry': retry.Retry(backoff.NoBackoff(), 0),
            **_PLAIN,
        }
        kind: Any = connection.Connection
        if tls is not None:
            kind = connection.SSLConnection
            settings.update(_tls(tls))
        self._connection = kind(**settings)
        self._open = True
        try:
            try:
                self._connection.connect()
            except ValueError as exc:  # a host name that cannot be one
                raise redis.ConnectionError(f'{server}: {exc}') from exc
            if command := login.command():
                self.ask(deadline, *command)
            if db:
                self.ask(deadline, 'SELECT', db)
        except BaseException:
            self.close()
            raise

    def ask(self, deadline: clock.Deadline, *command: Any) -> Any:
        """Send a command and return the answer.

        An error answer of the server leaves the link usable; after any other
        error it is closed.

        :raises redis.RedisError: there is no answer in time, or it is an
            error
        """
        self.send(*command)
        limit = min(self.limits.answer, deadline.left())
        if not self.wait(limit):
            self.close()
            raise redis.TimeoutError(
                f'{self.server} did not answer within {limit:.3f} s'
            )
        return self.receive()

    def send(self, *command: Any) -> None:
        """Send a command.

        :raises redis.RedisError: it cannot be sent
        """
        self._check_open()
        try:
            self._connection.send_command(*command)
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float) -> bool:
        """Return whether there is something to receive.

        :raises redis.RedisError: the connection is broken
        """
        self._check_open()
        try:
            return bool(self._connection.can_read(timeout=max(seconds, 0.0)))
        except BaseException:
            self.close()
            raise

    def receive(self) -> Any:
        """Return what the server sent.

        :raises redis.RedisError: it is an error, or the connection broke
        """
        self._check_open()
        try:
            return self._connection.read_response()
        except redis.ResponseError:
            raise
        except BaseException:
            self.close()
            raise

    def is_open(self) -> bool:
        """Return whether it was not closed at this end."""
        return self._open

    def is_idle(self) -> bool:
        """Return whether it can be used again: open, with nothing to read."""
        try:
            return self._open and not self.wait(0.0)
        except redis.RedisError:
            return False

    def close(self) -> None:
        """Close the connection; idempotent, and never an error."""
        self._open = False
        self._connection.disconnect()

    def _check_open(self) -> None:
        # redis-py would connect again by itself, without logging in.
        if not self._open:
            raise redis.ConnectionError(f'{self.server} was disconnected')


def _tls(tls: Tls) -> dict[str, Any]:
    return {
        'ssl_cert_reqs': 'required',
        'ssl_check_hostname': tls.check_hostname,
        'ssl_ca_certs': tls.ca_file or None,
        'ssl_certfile': tls.cert_file or None,
        'ssl_keyfile': tls.key_file or None,
    }
