# SPDX-License-Identifier: Apache-2.0
"""The options of the driver, and how a transport URL overrides them."""

import copy
import dataclasses
import typing

from oslo_config import cfg
import oslo_messaging

from zmq_driver import duplicate_options
from zmq_driver import notification_options
from zmq_driver import option_types
from zmq_driver import redis_options
from zmq_driver import tcp_options

GROUP = 'oslo_messaging_zmq'

#: The names that the ZeroMQ deployment guide of 2015 used are kept. They
#: stood in [DEFAULT] then, where they still work as deprecated names.
_OPTIONS = [
    cfg.StrOpt(
        'rpc_zmq_matchmaker',
        default='local',
        deprecated_group='DEFAULT',
        help='How peers are found when the transport URL is plain "zmq://". '
        '"local": the processes of one host find each other through '
        'rpc_zmq_ipc_dir, with no server. A URL such as '
        '"zmq+NAME://" names the matchmaker itself.',
    ),
    cfg.StrOpt(
        'rpc_zmq_ipc_dir',
        deprecated_group='DEFAULT',
        sample_default='$XDG_RUNTIME_DIR/zmq-driver, or '
        '<temporary directory>/zmq-driver-<user id>',
        help='Directory of the ipc sockets and registrations of this host. '
        'Processes find each other when they share it. It must not be '
        'world-writable; services that run as different users share it '
        'through a group. Its path may have at most 86 bytes.',
    ),
    cfg.IntOpt(
        'rpc_zmq_contexts',
        default=1,
        min=1,
        max=16,
        deprecated_group='DEFAULT',
        help='Number of I/O threads of the one zmq context of a driver. One '
        'carries about a gigabyte per second; more help only beyond '
        'that, and each is a thread that wakes up.',
    ),
    cfg.IntOpt(
        'rpc_zmq_topic_backlog',
        default=10000,
        min=1,
        deprecated_group='DEFAULT',
        help='Messages that a listener holds at once, accepted and not yet '
        'processed. Beyond it, a sender is told to try another server '
        'or to wait. A larger value takes longer bursts and more '
        'memory, and makes callers wait longer for a slow server.',
    ),
    cfg.IntOpt(
        'max_backlog_size',
        default=256 * 1024 * 1024,
        min=4096,
        help='Bytes that the messages of rpc_zmq_topic_backlog may have '
        'together, as they were on the wire; in memory they take several '
        'times as much. Beyond it, a sender is told to try another server '
        'or to wait. A single message is taken however large it is.',
    ),
    option_types.seconds(
        'rpc_cast_timeout',
        30.0,
        0.001,
        deprecated_group='DEFAULT',
        help='Seconds within which a server must acknowledge that it has '
        'received a cast, or each copy of a fanout. A larger value '
        'waits longer for servers that are down; the caller of cast() '
        'is blocked meanwhile.',
    ),
    option_types.seconds(
        'notify_timeout',
        30.0,
        0.001,
        help='Seconds that storing a notification may take. If '
        'notification_store is "none": seconds within which a listener of '
        'each listener pool must have handled it.',
    ),
    cfg.IntOpt(
        'max_message_size',
        default=64 * 1024 * 1024,
        min=4096,
        max=2**31 - 1,
        help='Bytes that a serialized message may have. The sender refuses '
        'a larger one with an error, the receiver drops the '
        'connection that it comes from; so set it alike everywhere.',
    ),
    option_types.seconds(
        'connect_timeout',
        2.0,
        0.01,
        help='Seconds to wait for a connection to a registered server '
        'before the next server is tried.',
    ),
    option_types.seconds(
        'heartbeat_interval',
        0.5,
        0.1,
        help='Seconds between two ZMTP heartbeats of a client on each '
        'connection. They are sent, and answered, by libzmq itself, also '
        'while Python is busy.',
    ),
    option_types.seconds(
        'heartbeat_timeout',
        1.0,
        0.1,
        help='Seconds without an answer to a heartbeat after which the peer '
        'is taken for dead. A frozen or unplugged peer is seen after '
        'heartbeat_interval plus heartbeat_timeout. Smaller values see '
        'it sooner and mistake a long pause for death.',
    ),
    option_types.seconds(
        'linger',
        1.0,
        0.0,
        help='Seconds that a closed socket goes on trying to send what was '
        'handed to it; for answers, after what is left of cleanup_timeout. '
        'It bounds the time that cleanup() can take.',
    ),
    option_types.seconds(
        'cleanup_timeout',
        5.0,
        0.1,
        help='Seconds that cleanup() waits for operations that still run, '
        'and for answers that clients read slowly.',
    ),
    option_types.seconds(
        'retry_interval',
        1.0,
        0.0,
        help='Seconds that one of a limited number of retries waits for a '
        'server to appear. With unlimited retries, new servers are '
        'looked for all the time until the deadline.',
    ),
    cfg.IntOpt(
        'pool_max_size',
        default=256,
        min=1,
        help='Sockets that a process opens to its peers, in total. Each '
        'costs two descriptors. When the limit is reached, the socket '
        'that was not used for longest is closed for a new one.',
    ),
    cfg.IntOpt(
        'pool_max_per_peer',
        default=64,
        min=1,
        help='Sockets that a process opens to one peer: the number of '
        'threads that can call it at the same time. Further threads '
        'wait in turn.',
    ),
    cfg.IntOpt(
        'pool_max_waiters',
        default=1000,
        min=1,
        help='Threads that may wait for a socket. One more gets an error '
        'at once.',
    ),
    option_types.seconds(
        'pool_idle_ttl',
        60.0,
        0.0,
        help='Seconds after which a socket that nobody uses is closed; 0 '
        'keeps it for ever. A smaller value saves descriptors and '
        'memory on both ends, a larger one saves peers that are called '
        'seldom a new connection each time.',
    ),
    option_types.seconds(
        'pool_max_age',
        3600.0,
        0.0,
        help='Seconds after which a socket is replaced however it is used, '
        'less up to a tenth by chance; 0 keeps it for ever. A smaller '
        'value follows changes of routes, firewalls and balancers '
        'sooner, a larger one connects less often.',
    ),
    cfg.IntOpt(
        'pool_min_idle',
        default=0,
        min=0,
        help='Unused sockets to each peer that are kept open, and opened '
        'ahead where they are missing, once the peer was called and as '
        'long as it runs. More save calls that begin together, or after '
        'a pause, the time of a connection; each costs two descriptors, '
        'and none is opened when pool_max_size is reached.',
    ),
    option_types.seconds(
        'pool_reap_interval',
        5.0,
        0.1,
        help='Seconds between two looks for sockets to close or to open '
        'ahead. A smaller value keeps closer to pool_idle_ttl, '
        'pool_max_age and pool_min_idle, and notices the death of idle '
        'peers sooner; each look costs some microseconds per socket.',
    ),
    option_types.seconds(
        'pool_leak_after',
        0.0,
        0.0,
        help='Seconds of one use after which a socket is logged together '
        'with the stack of the thread that uses it; 0 turns it off. '
        'It finds threads that hang, and adds several microseconds to '
        'each call. It should be longer than the longest call.',
    ),
    option_types.seconds(
        'statistics_interval',
        60.0,
        0.0,
        help='Seconds between two lines in the log, at level DEBUG, with all '
        'figures of the driver; 0 turns them off. They begin if that '
        'level is on when the driver is first used.',
    ),
    option_types.seconds(
        'lookup_ttl',
        None,
        0.001,
        sample_default='2 with the local matchmaker, 30 with Redis',
        help='Seconds for which an answer of the matchmaker is used again. '
        'Matchmakers notice joins and leaves sooner; this bounds what '
        'they miss.',
    ),
    option_types.seconds(
        'lookup_negative_ttl',
        None,
        0.001,
        sample_default='0.02 with the local matchmaker, 1 with Redis',
        help='Seconds for which the answer that nobody listens is used '
        'again. It bounds how late a waiting client sees a new server, '
        'and how often the matchmaker is asked meanwhile.',
    ),
    option_types.seconds(
        'lookup_stale_ttl',
        3600.0,
        0.0,
        help='Seconds for which an old answer is used while the matchmaker '
        'cannot be asked.',
    ),
    cfg.StrOpt(
        'ringfile',
        default='/etc/oslo/matchmaker_ring.json',
        deprecated_group='matchmaker_ring',
        help='JSON file of the matchmaker "ring", which lists the hosts of '
        'each topic, if the transport URL has no path. It is read again '
        'when it changes.',
    ),
    *duplicate_options.OPTIONS,
    *notification_options.OPTIONS,
    *redis_options.OPTIONS,
    *tcp_options.OPTIONS,
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options for oslo-config-generator.

    :returns: pairs of group name and options
    """
    return [(GROUP, copy.deepcopy(_OPTIONS))]


@dataclasses.dataclass(frozen=True)
class Settings(
    duplicate_options.DuplicateSettings,
    notification_options.NotificationSettings,
    redis_options.RedisSettings,
):
    """The value of every option, read once when a driver is made.

    One field per option, of the same name.

    Thread: any (immutable).
    """

    rpc_zmq_matchmaker: str
    rpc_zmq_ipc_dir: str | None
    rpc_zmq_contexts: int
    rpc_zmq_topic_backlog: int
    max_backlog_size: int
    rpc_cast_timeout: float
    notify_timeout: float
    max_message_size: int
    connect_timeout: float
    heartbeat_interval: float
    heartbeat_timeout: float
    linger: float
    cleanup_timeout: float
    retry_interval: float
    pool_max_size: int
    pool_max_per_peer: int
    pool_max_waiters: int
    pool_idle_ttl: float
    pool_max_age: float
    pool_min_idle: int
    pool_reap_interval: float
    pool_leak_after: float
    statistics_interval: float
    lookup_ttl: float | None
    lookup_negative_ttl: float | None
    lookup_stale_ttl: float
    ringfile: str
    rpc_zmq_bind_address: str
    rpc_zmq_host: str | None
    rpc_zmq_port: int
    rpc_zmq_port_count: int
    tcp_keepalive: bool
    tcp_keepalive_idle: int
    tcp_keepalive_count: int
    tcp_keepalive_interval: int


def load(conf: cfg.ConfigOpts, url: oslo_messaging.TransportURL) -> Settings:
    """Register the options with *conf* and read them.

    The query of *url* overrides the configuration:
    ``zmq:///?rpc_cast_timeout=5&linger=0``.

    :param conf: the global configuration object or a private one
    :param url: the transport URL
    :raises oslo_messaging.InvalidTransportURL: the query names an unknown
        option, or gives one a value that it cannot have
    :raises oslo_config.cfg.ConfigFileValueError: the configuration does
    """
    conf.register_opts(_OPTIONS, group=GROUP)
    values = {option.name: conf[GROUP][option.name] for option in _OPTIONS}
    values.update(_overrides(url))
    settings = Settings(**values)
    if settings.matchmaker_heartbeat_freq >= settings.matchmaker_heartbeat_ttl:
        raise invalid_url(
            url,
            f'matchmaker_heartbeat_freq '
            f'({settings.matchmaker_heartbeat_freq:g} s) must be smaller than '
            f'matchmaker_heartbeat_ttl '
            f'({settings.matchmaker_heartbeat_ttl:g} s), or registrations '
            f'expire before they are renewed',
        )
    if settings.pool_max_per_peer > settings.pool_max_size:
        settings = dataclasses.replace(
            settings, pool_max_per_peer=settings.pool_max_size
        )
    if settings.pool_min_idle > settings.pool_max_per_peer:
        settings = dataclasses.replace(
            settings, pool_min_idle=settings.pool_max_per_peer
        )
    return settings


def _overrides(url: oslo_messaging.TransportURL) -> dict[str, typing.Any]:
    known = {option.name: option for option in _OPTIONS}
    values = {}
    for name, text in url.query.items():
        option = known.get(name)
        if option is None:
            raise invalid_url(
                url,
                f'unknown option {name!r} in the query; the options of '
                f'[{GROUP}] are: {", ".join(sorted(known))}',
            )
        try:
            values[name] = option.type(text)
        except (ValueError, TypeError) as error:
            raise invalid_url(
                url,
                f'value {text!r} of option {name!r} in the query is '
                f'invalid: {error}',
            ) from None
    return values


def masked(url: oslo_messaging.TransportURL) -> str:
    """Return a transport URL without users, passwords and query."""
    hosts = ','.join(
        f'{host.hostname or ""}' + (f':{host.port}' if host.port else '')
        for host in url.hosts
    )
    return f'{url.transport}://{hosts}/{url.virtual_host or ""}'


def invalid_url(
    url: oslo_messaging.TransportURL, problem: str
) -> oslo_messaging.InvalidTransportURL:
    """Return the error for a transport URL, with passwords left out.

    :param problem: what is wrong and what to do
    """
    shown = masked(url)
    return oslo_messaging.InvalidTransportURL(
        shown, f'Invalid transport URL {shown}: {problem}'
    )
