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
