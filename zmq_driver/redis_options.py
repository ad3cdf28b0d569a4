# SPDX-License-Identifier: Apache-2.0
"""The options of Redis and Sentinel; :mod:`zmq_driver.options` reads them."""

import dataclasses

from oslo_config import cfg

from zmq_driver import option_types

#: The group in which the ZeroMQ deployment guide of 2015 had three of them.
_OLD_GROUP = 'matchmaker_redis'

OPTIONS = [
    option_types.seconds(
        'matchmaker_heartbeat_ttl',
        60.0,
        1.0,
        deprecated_group='DEFAULT',
        help='Seconds after which Redis drops the registration of a server '
        'that does not renew it. A killed server is listed that long; '
        'a larger value survives longer outages of Redis.',
    ),
    option_types.seconds(
        'matchmaker_heartbeat_freq',
        15.0,
        0.1,
        deprecated_group='DEFAULT',
        help='Seconds between two renewals of the registrations of a '
        'process, less up to a fifth by chance. It must be smaller than '
        'matchmaker_heartbeat_ttl, better a quarter of it. A smaller '
        'value brings registrations that Redis lost back sooner, and '
        'is more work for Redis.',
    ),
    cfg.HostAddressOpt(
        'redis_host',
        default='127.0.0.1',
        deprecated_opts=[cfg.DeprecatedOpt('host', group=_OLD_GROUP)],
        help='Host of Redis when the transport URL names none: a name or an '
        'address. An address saves asking the name service, whose '
        'silence no time-out of the driver bounds.',
    ),
    cfg.PortOpt(
        'redis_port',
        default=6379,
        min=1,
        deprecated_opts=[cfg.DeprecatedOpt('port', group=_OLD_GROUP)],
        help='Port of Redis when the transport URL names none. Sentinels '
        'without a port in the URL are asked at 26379.',
    ),
    cfg.StrOpt(
        'redis_username',
        default='',
        help='ACL user of Redis when the transport URL names none. Without '
        'one, the password is that of the default user.',
    ),
    cfg.StrOpt(
        'redis_password',
        default='',
        secret=True,
        deprecated_opts=[cfg.DeprecatedOpt('password', group=_OLD_GROUP)],
        help='Password of Redis when the transport URL has none. The word '
        'None, which stood in the guide of 2015, means no password.',
    ),
    cfg.IntOpt(
        'redis_db',
        default=0,
        min=0,
        help='Number of the Redis database. Deployments that share a Redis '
        'are kept apart better by redis_key_prefix, which an ACL can '
        'check.',
    ),
    cfg.StrOpt(
        'redis_key_prefix',
        default='oslo:zmq:',
        help='How the names of all keys and channels in Redis begin. Only '
        'processes with the same prefix, database and virtual host find '
        'each other.',
    ),
    option_types.seconds(
        'redis_connect_timeout',
        0.5,
        0.01,
        help='Seconds that connecting to Redis may take. A larger value '
        'tolerates a slower network; what waits for an unknown server '
        'is told later that Redis is down.',
    ),
    option_types.seconds(
        'redis_timeout',
        1.0,
        0.01,
        help='Seconds that an answer of Redis may take. A larger value '
        'tolerates a busier Redis, and notices a frozen one later.',
    ),
    cfg.BoolOpt(
        'redis_ssl',
        default=False,
        help='Whether Redis and Sentinel are connected to with TLS. Their '
        'certificates are always verified.',
    ),
    cfg.StrOpt(
        'redis_ssl_ca_file',
        default='',
        help='File of the certificate authorities, in PEM, that Redis and '
        'Sentinel are verified by; those of the system if empty.',
    ),
    cfg.StrOpt(
        'redis_ssl_cert_file',
        default='',
        help='File of the certificate, in PEM, that Redis and Sentinel are '
        'shown, if they ask for one.',
    ),
    cfg.StrOpt(
        'redis_ssl_key_file',
        default='',
        help='File of the private key, in PEM, that belongs to the '
        'certificate in redis_ssl_cert_file.',
    ),
    cfg.BoolOpt(
        'redis_ssl_check_hostname',
        default=True,
        help='Whether the certificate must be for the host name or address '
        'that was connected to. Sentinel names masters by address unless '
        'it is told to resolve host names.',
    ),
    cfg.StrOpt(
        'sentinel_group',
        default='mymaster',
        help='Name of the master group that the Sentinels are asked for when '
        'the path of a zmq+sentinel URL begins with none.',
    ),
    cfg.StrOpt(
        'sentinel_username',
        default='',
        help='ACL user of the Sentinels, which is apart from that of Redis. '
        'Without one, the password is that of the default user.',
    ),
    cfg.StrOpt(
        'sentinel_password',
        default='',
        secret=True,
        help='Password of the Sentinels. The user and password in a '
        'zmq+sentinel URL are those of Redis, not of the Sentinels.',
    ),
    option_types.seconds(
        'sentinel_timeout',
        0.3,
        0.01,
        help='Seconds that connecting to a Sentinel, and its answer, may '
        'take each before the next Sentinel is asked.',
    ),
]


@dataclasses.dataclass(frozen=True)
class RedisSettings:
    """The value of every option in :data:`OPTIONS`, of the same name.

    Thread: any (immutable).
    """

    matchmaker_heartbeat_ttl: float
    matchmaker_heartbeat_freq: float
    redis_host: str
    redis_port: int
    redis_username: str
    redis_password: str = dataclasses.field(repr=False)
    redis_db: int
    redis_key_prefix: str
    redis_connect_timeout: float
    redis_timeout: float
    redis_ssl: bool
    redis_ssl_ca_file: str
    redis_ssl_cert_file: str
    redis_ssl_key_file: str
    redis_ssl_check_hostname: bool
    sentinel_group: str
    sentinel_username: str
    sentinel_password: str = dataclasses.field(repr=False)
    sentinel_timeout: float
