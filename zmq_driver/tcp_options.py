# SPDX-License-Identifier: Apache-2.0
"""The options that concern TCP; :mod:`zmq_driver.options` reads them."""

import typing

from oslo_config import cfg
from oslo_config import types

#: The most that Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL, and for
#: TCP_KEEPCNT (include/net/tcp.h). libzmq hides its refusal.
MAX_KEEPALIVE_SECONDS = 32767
MAX_KEEPALIVE_COUNT = 127


class Switch(types.Boolean):
    """On or off; the drivers before had -1 for what the system does: off.

    Thread: any (immutable).
    """

    def __call__(self, value: typing.Any) -> bool:
        """Return *value* as a bool.

        :raises ValueError: it is none
        """
        if str(value).strip() == '-1':
            return False
        return bool(super().__call__(value))


OPTIONS = [
    cfg.StrOpt(
        'rpc_zmq_bind_address',
        default='*',
        deprecated_group='DEFAULT',
        help='Where processes listen for other hosts, if the matchmaker spans '
        'hosts: "*" is every address of this host, IPv4 and IPv6; or one '
        'IPv4 or IPv6 address; or the name of a network interface such as '
        'eth0, which stands for its first address. One address of an '
        'internal network keeps the services unreachable from elsewhere.',
    ),
    cfg.StrOpt(
        'rpc_zmq_host',
        deprecated_group='DEFAULT',
        sample_default='the address of rpc_zmq_bind_address, or the name of '
        'this host',
        help='The name or address by which other hosts reach this one. A name '
        'must have an address on all of them; an address saves them the '
        'look-up. Set it if rpc_zmq_bind_address is "*" and the name of '
        'the host is not known everywhere.',
    ),
    cfg.IntOpt(
        'rpc_zmq_port',
        default=9501,
        min=1,
        max=65535,
        deprecated_group='DEFAULT',
        help='The first TCP port on which processes listen for other hosts, '
        'if the matchmaker spans hosts. The ports from here on should '
        'lie outside of net.ipv4.ip_local_port_range, from which the '
        'kernel takes ports for outgoing connections.',
    ),
    cfg.IntOpt(
        'rpc_zmq_port_count',
        default=1000,
        min=1,
        max=65535,
        help='How many ports from rpc_zmq_port on may be used, up to port '
        '65535; 1: rpc_zmq_port and no other. Each process takes the '
        'first one that is free, so as many processes of this host can '
        'listen. A smaller range is easier to open in a firewall.',
    ),
    cfg.Opt(
        'tcp_keepalive',
        type=Switch(),
        default=False,
        deprecated_name='zmq_tcp_keepalive',
        help='Whether the kernel probes TCP connections on which nothing is '
        'sent. The heartbeats of the driver (heartbeat_interval) do that '
        'already and see more; this is for middleboxes that only count '
        'probes of the kernel.',
    ),
    cfg.IntOpt(
        'tcp_keepalive_idle',
        default=0,
        min=-1,
        max=MAX_KEEPALIVE_SECONDS,
        deprecated_name='zmq_tcp_keepalive_idle',
        help='Seconds without traffic after which tcp_keepalive begins to '
        'probe; 0 or -1: as the system is configured.',
    ),
    cfg.IntOpt(
        'tcp_keepalive_count',
        default=0,
        min=-1,
        max=MAX_KEEPALIVE_COUNT,
        deprecated_name='zmq_tcp_keepalive_cnt',
        help='Probes of tcp_keepalive without an answer after which the '
        'kernel ends the connection; 0 or -1: as the system is '
        'configured.',
    ),
    cfg.IntOpt(
        'tcp_keepalive_interval',
        default=0,
        min=-1,
        max=MAX_KEEPALIVE_SECONDS,
        deprecated_name='zmq_tcp_keepalive_intvl',
        help='Seconds between two probes of tcp_keepalive; 0 or -1: as the '
        'system is configured.',
    ),
]
