# SPDX-License-Identifier: Apache-2.0
"""An RPC server, or a notification listener, in a process of its own.

It prints JSON lines: first ``{"ready": ...}``, then one for each message that
an endpoint was given. It stops when its standard input ends, on the line
``stop``, or on SIGTERM.
"""

import argparse
import collections
import json
import os
import select
import signal
import sys
import threading
import time

from oslo_config import cfg
import oslo_messaging

_print_lock = threading.Lock()


def tell(**what):
    with _print_lock:
        print(json.dumps(what), flush=True)


def wait_for_stop(terminated):
    """Wait for SIGTERM, the line ``stop`` or the end of the input."""
    while not terminated.is_set():
        # A signal that another thread of the process got interrupts nothing.
        if select.select([sys.stdin], [], [], 0.1)[0]:
            read = os.read(sys.stdin.fileno(), 4096)
            if not read or b'stop' in read:
                return


class Unpicklable(Exception):
    """Has an argument that JSON cannot carry."""


class Endpoint:
    target = oslo_messaging.Target(version='1.5')

    def __init__(self, server):
        self._server = server
        self._lock = threading.Lock()
        self._runs = collections.Counter()

    def counted_echo(self, ctxt, id, value, delay=0.0):
        with self._lock:
            self._runs[id] += 1
        time.sleep(delay)
        return {'id': id, 'value': value}

    def counted_runs(self, ctxt):
        with self._lock:
            return {
                'ids': len(self._runs),
                'twice': [i for i, n in self._runs.items() if n > 1],
            }

    def who(self, ctxt):
        return {'server': self._server, 'pid': os.getpid()}

    def echo(self, ctxt, value, delay=0.0):
        time.sleep(delay)
        return value

    def context(self, ctxt):
        return ctxt

    def record(self, ctxt, id, delay=0.0):
        tell(ran=id, server=self._server)
        time.sleep(delay)
        return id

    def fail(self, ctxt, kind):
        if kind == 'value':
            raise ValueError('no such value')
        if kind == 'timeout':
            raise oslo_messaging.MessagingTimeout('from the server')
        if kind == 'local':
            raise Unpicklable('text')
        raise Unpicklable('text', object())

    def unserializable(self, ctxt):
        return {'deep': [object()]}

    def large(self, ctxt, size):
        return 'x' * size


class Namespaced:
    target = oslo_messaging.Target(namespace='other', version='2.3')

    def who(self, ctxt):
        return 'other'


class NotificationEndpoint:
    def __init__(self, server, requeue, delay):
        self._server = server
        self._requeue = requeue
        self._delay = delay

    def _note(self, priority, event_type, payload):
        if self._delay:
            tell(entered=payload, server=self._server)
            time.sleep(self._delay)
        tell(
            notified=payload,
            event_type=event_type,
            priority=priority,
            server=self._server,
        )
        if self._requeue > 0:
            self._requeue -= 1
            return oslo_messaging.NotificationResult.REQUEUE
        return oslo_messaging.NotificationResult.HANDLED

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        return self._note('info', event_type, payload)

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        return self._note('error', event_type, payload)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--exchange')
    parser.add_argument('--server', default='server')
    parser.add_argument('--executor-threads', type=int, default=64)
    parser.add_argument('--notifications', action='store_true')
    parser.add_argument('--listener-pool')
    parser.add_argument('--requeue', type=int, default=0)
    parser.add_argument('--delay', type=float, default=0.0)
    return parser.parse_args()


def make_server(conf, args):
    if args.notifications:
        transport = oslo_messaging.get_notification_transport(conf, args.url)
        return transport, oslo_messaging.get_notification_listener(
            transport,
            [oslo_messaging.Target(topic=args.topic, exchange=args.exchange)],
            [NotificationEndpoint(args.server, args.requeue, args.delay)],
            executor='threading',
            pool=args.listener_pool,
            allow_requeue=True,
        )
    transport = oslo_messaging.get_rpc_transport(conf, args.url)
    return transport, oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(
            topic=args.topic, server=args.server, exchange=args.exchange
        ),
        [Endpoint(args.server), Namespaced()],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )


def main():
    args = parse()
    conf = cfg.CONF
    conf([], project='zmq-driver-tests')
    transport, server = make_server(conf, args)
    server.start(override_pool_size=args.executor_threads)
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    tell(ready=True, pid=os.getpid())
    wait_for_stop(terminated)
    server.stop()
    server.wait()
    transport.cleanup()
    tell(
        stopped=True,
        threads=[
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith('zmq-')
        ],
    )


if __name__ == '__main__':
    main()
