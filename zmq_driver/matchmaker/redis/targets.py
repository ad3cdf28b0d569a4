# SPDX-License-Identifier: Apache-2.0
"""From the URL and the options to the servers that are connected to."""

import functools

import oslo_messaging

from zmq_driver import options as options_
from zmq_driver.matchmaker.redis import link as link_
from zmq_driver.matchmaker.redis import servers

SENTINEL_PORT = 26379

#: Seconds after which a connection to a master is replaced at the latest.
MAX_AGE = 30.0


def redis_server(
    url: oslo_messaging.TransportURL | None, options: options_.Settings
) -> servers.Servers:
    """Return the one Redis of a zmq+redis URL, or of the options."""
    server = link_.Server(options.redis_host, options.redis_port)
    if url is not None and url.hosts:
        host = url.hosts[0]
        server = link_.Server(
            host.hostname or options.redis_host,
            host.port or options.redis_port,
        )
    return servers.FixedServer(server, _connector(url, options))


def sentinel_group(
    url: oslo_messaging.TransportURL | None, options: options_.Settings
) -> servers.Servers:
    """Return the master group of a zmq+sentinel URL.

    :raises ValueError: the URL names no Sentinel
    """
    if url is None or not url.hosts:
        raise ValueError('this matchmaker needs the URL of the Sentinels')
    group, _ = split_path(url)
    timeout = options.sentinel_timeout
    ask = functools.partial(
        link_.Link,
        link_.Login(options.sentinel_username, options.sentinel_password),
        0,
        _tls(options),
        link_.Limits(timeout, timeout),
    )
    return servers.SentinelGroup(
        group or options.sentinel_group,
        [
            link_.Server(host.hostname, host.port or SENTINEL_PORT)
            for host in url.hosts
        ],
        ask,
        _connector(url, options),
        # Shorter than a period, so that each renewal asks again.
        max_age=min(MAX_AGE, options.matchmaker_heartbeat_freq / 2),
    )


def split_path(url: oslo_messaging.TransportURL) -> tuple[str, str]:
    """Return master group and virtual host of a zmq+sentinel URL.

    Group names are letters, digits and ``.-_``, so nothing is ambiguous.
    """
    group, _, virtual_host = (url.virtual_host or '').partition('/')
    return group, virtual_host


def _connector(
    url: oslo_messaging.TransportURL | None, options: options_.Settings
) -> servers.Connect:
    """Return what connects to a Redis."""
    return functools.partial(
        link_.Link,
        _login(url, options),
        options.redis_db,
        _tls(options),
        link_.Limits(options.redis_connect_timeout, options.redis_timeout),
    )


def _login(
    url: oslo_messaging.TransportURL | None, options: options_.Settings
) -> link_.Login:
    host = url.hosts[0] if url is not None and url.hosts else None
    if host is not None and (host.username or host.password):
        return link_.Login(host.username or '', host.password or '')
    password = options.redis_password
    if password == 'None':  # noqa: S105 - what the guide of 2015 shows
        password = ''
    return link_.Login(options.redis_username, password)


def _tls(options: options_.Settings) -> link_.Tls | None:
    if not options.redis_ssl:
        return None
    return link_.Tls(
        options.redis_ssl_ca_file,
        options.redis_ssl_cert_file,
        options.redis_ssl_key_file,
        options.redis_ssl_check_hostname,
    )
