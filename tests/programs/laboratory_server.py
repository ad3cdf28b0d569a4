# SPDX-License-Identifier: Apache-2.0
"""A server of the fault laboratory: RPC and notifications in one process.

It appends each execution to a journal (``tests.fault.journal``), prints JSON
lines, and obeys the lines of its input::

    clock 3600      the wall clock jumps by as many seconds
    slow 0.5        each method takes this long from now on
    status N        {"status N": {counter: count}}
    stop            stops in an orderly way, and ends
"""

import argparse
import json
import os
import sys
import time

from oslo_config import cfg
import oslo_messaging

from tests.fault import journal
from tests.programs import laboratory_clock


def tell(**what):
    print(json.dumps(what), flush=True)


class Service:
    """Writes down what it executes."""

    def __init__(self, server, path):
        self._server = server
        self._journal = journal.Journal(path)
        self.slow = 0.0

    def run(self, ctxt, id, delay=0.0):
        self._journal.write(
            id=id, server=self._server, pid=os.getpid(), at=time.monotonic()
        )
        time.sleep(max(delay, self.slow))
        return id

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        self.run(ctxt, payload)


def start(args, service):
    conf = cfg.CONF
    conf([], project='zmq-driver-tests')
    rpc = oslo_messaging.get_rpc_transport(conf, args.url)
    server = oslo_messaging.get_rpc_server(
        rpc,
        oslo_messaging.Target(topic=args.topic, server=args.server),
        [service],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    notifications = oslo_messaging.get_notification_transport(conf, args.url)
    listener = oslo_messaging.get_notification_listener(
        notifications,
        [oslo_messaging.Target(topic=f'{args.topic}-events')],
        [service],
        executor='threading',
        pool='laboratory',
    )
    for one in (server, listener):
        one.start(override_pool_size=args.threads)
    return server, listener


def counts(messaging_server):
    runtime = messaging_server.transport._driver.runtime()
    return runtime.counters.snapshot()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--server', required=True)
    parser.add_argument('--journal', required=True)
    parser.add_argument('--threads', type=int, default=8)
    args = parser.parse_args()
    service = Service(args.server, args.journal)
    servers = start(args, service)
    tell(ready=True, pid=os.getpid(), at=time.monotonic())
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == 'stop':
            break
        if command == 'clock':
            laboratory_clock.jump(float(arguments[0]))
        elif command == 'slow':
            service.slow = float(arguments[0])
        elif command == 'status':
            tell(**{line.strip(): counts(servers[0])})
    for one in servers:
        one.stop()
    for one in servers:
        one.wait()
        one.transport.cleanup()
    tell(stopped=True)


if __name__ == '__main__':
    main()
