# SPDX-License-Identifier: Apache-2.0
"""A process that serves, calls, casts and notifies, and just ends.

It never cleans up. It prints JSON lines like the other programs.
"""

import argparse
import faulthandler
import gc
import json
import signal
import sys
import threading

from oslo_config import cfg
import oslo_messaging

#: Seconds after which it ends, because it hangs.
PATIENCE = 20


def tell(**what):
    print(json.dumps(what), flush=True)


class Endpoint:
    def __init__(self):
        self.casts = threading.Event()

    def echo(self, ctxt, value):
        return value

    def log(self, ctxt):
        self.casts.set()


class NotificationEndpoint:
    def __init__(self):
        self.seen = threading.Event()

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        self.seen.set()


def use(url, topic):
    """Use everything that a driver has; return what must stay alive."""
    conf = cfg.CONF
    target = oslo_messaging.Target(topic=topic, server='ending')
    transport = oslo_messaging.get_rpc_transport(conf, url)
    endpoint = Endpoint()
    server = oslo_messaging.get_rpc_server(
        transport,
        target,
        [endpoint],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start()
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=20
    )
    client.cast({}, 'log')
    client.prepare(fanout=True).cast({}, 'log')
    tell(called=client.call({}, 'echo', value=7))
    tell(cast=endpoint.casts.wait(20))
    notifications = oslo_messaging.get_notification_transport(conf, url)
    witness = NotificationEndpoint()
    listener = oslo_messaging.get_notification_listener(
        notifications, [target], [witness], executor='threading'
    )
    listener.start()
    notifier = oslo_messaging.Notifier(
        notifications, publisher_id='p', driver='messagingv2', topics=[topic]
    )
    notifier.info({}, 'event', {})
    tell(notified=witness.seen.wait(20))
    return transport, server, listener


def forsake(url, topic):
    """Use a transport that nothing refers to afterwards."""
    client = oslo_messaging.get_rpc_client(
        oslo_messaging.get_rpc_transport(cfg.CONF, url),
        oslo_messaging.Target(topic=topic),
        timeout=20,
    )
    tell(called=client.call({}, 'echo', value=8))


def limit_life():
    """End this process, with its stack traces, if it hangs."""
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(PATIENCE)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('end', choices=['return', 'exit', 'wait', 'forsake'])
    args = parser.parse_args()
    limit_life()
    cfg.CONF([], project='zmq-driver-tests')
    used = use(args.url, args.topic)
    if args.end == 'forsake':
        forsake(args.url, args.topic)
        gc.collect()
        tell(collected=True)
    tell(ready=True, used=len(used))
    if args.end == 'exit':
        sys.exit(0)
    if args.end == 'wait':
        sys.stdin.read()


if __name__ == '__main__':
    main()
