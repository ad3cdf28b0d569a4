# SPDX-License-Identifier: Apache-2.0
"""The oslo.messaging transports of a server or client process."""

import os
import shutil
from typing import Any

from oslo_config import cfg
import oslo_messaging

from zmq_driver import options as options_
from zmq_driver.bench.programs import link

Options = dict[str, Any]


def configuration(options: Options) -> cfg.ConfigOpts:
    """Return the configuration of this process."""
    conf = cfg.CONF
    conf(
        [f'--config-file={name}' for name in options['config_files']],
        project='zmq-driver-bench',
        default_config_files=[],
    )
    # An exchange of the run's own meets nothing on a shared broker.
    oslo_messaging.set_transport_defaults(options['topic'])
    if options['url'].startswith('zmq'):
        # So are the listener pools of a store of the run's own.
        options_.load(conf, oslo_messaging.TransportURL.parse(conf, 'zmq://'))
        conf.set_default(
            'notification_store_directory',
            options['directory'],
            group=options_.GROUP,
        )
    return conf


def rpc(conf: cfg.ConfigOpts, options: Options) -> Any:
    """Return a transport for RPC."""
    made = oslo_messaging.get_rpc_transport(conf, options['url'])
    leave_nothing(conf)
    return made


def notifications(conf: cfg.ConfigOpts, options: Options) -> Any:
    """Return a transport for notifications."""
    made = oslo_messaging.get_notification_transport(conf, options['url'])
    leave_nothing(conf)
    return made


def leave_nothing(conf: cfg.ConfigOpts) -> None:
    """Have the queues of RabbitMQ end with those who read them."""
    if 'oslo_messaging_rabbit' in conf:
        conf.set_override(
            'amqp_auto_delete', True, group='oslo_messaging_rabbit'
        )


def remove_directory(options: Options) -> None:
    """Remove what the one that started this process cannot: it was killed."""
    if options['directory'] and os.getppid() != options['parent']:
        shutil.rmtree(options['directory'], ignore_errors=True)


def wants_rpc(command: link.Command) -> bool:
    """Return whether any pattern of RPC is measured."""
    return any(pattern != 'notify' for pattern in command['patterns'])


def wants_notifications(command: link.Command) -> bool:
    """Return whether notifications are measured."""
    return 'notify' in command['patterns']
