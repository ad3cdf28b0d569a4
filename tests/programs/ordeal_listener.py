# SPDX-License-Identifier: Apache-2.0
"""A member of a listener pool that writes down what it is given.

Its journal (``tests.fault.journal``) has a line when the endpoint begins with
a notification, and one when it ends: ``seen`` or ``requeued``. Some are
requeued when this process is given them for the first time. It stops when its
input ends, on the line ``stop``, or on SIGTERM.
"""

import argparse
import logging
import random
import signal
import threading
import time
import zlib

from oslo_config import cfg
import oslo_messaging

from tests.fault import journal
from tests.programs import server

#: One of so many is requeued.
REQUEUED = 50

#: Seconds that handling takes: mostly at most the first, seldom the second.
USUAL = 0.004
LONG = 0.2
LONG_SHARE = 0.01


class Endpoint:
    """Writes down what it sees.

    Thread: any.
    """

    def __init__(self, args):
        self._pool = args.pool or ''
        self._name = args.name
        self._journal = journal.Journal(args.journal)
        self._lock = threading.Lock()
        self._requeued = set()
        self._rng = random.Random(args.seed)

    def _note(self, kind, id):
        self._journal.write(
            k=kind, id=id, pool=self._pool, by=self._name, t=time.monotonic()
        )

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        self._note('begun', payload)
        long = self._rng.random() < LONG_SHARE
        time.sleep(LONG if long else self._rng.uniform(0, USUAL))
        if zlib.crc32(payload.encode()) % REQUEUED == 0:
            with self._lock:
                first = payload not in self._requeued
                self._requeued.add(payload)
            if first:
                self._note('requeued', payload)
                return oslo_messaging.NotificationResult.REQUEUE
        self._note('seen', payload)
        return oslo_messaging.NotificationResult.HANDLED


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--name', required=True)
    parser.add_argument('--pool')
    parser.add_argument('--journal', required=True)
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('--log', help='file for all that the driver logs')
    args = parser.parse_args()
    if args.log:
        logging.basicConfig(
            filename=args.log,
            format='%(asctime)s %(threadName)s %(message)s',
        )
        logging.getLogger('zmq_driver').setLevel(logging.DEBUG)
    cfg.CONF([], project='zmq-driver-tests')
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    transport = oslo_messaging.get_notification_transport(cfg.CONF, args.url)
    listener = oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(topic=args.topic)],
        [Endpoint(args)],
        executor='threading',
        pool=args.pool,
        allow_requeue=True,
    )
    listener.start()
    server.tell(ready=True)
    server.wait_for_stop(terminated)
    listener.stop()
    listener.wait()
    transport.cleanup()
    server.tell(stopped=True)


if __name__ == '__main__':
    main()
