# SPDX-License-Identifier: Apache-2.0
"""Notifies at a steady rate, and writes down what it was told.

Its journal (``tests.fault.journal``) has a line before each notification, and
one when notify() has returned or raised. It obeys the lines of its input::

    rate 50     so many a second from now on
    die         kills itself right after the next notify() has returned
    stop        ends in an orderly way; SIGTERM does so too
"""

import argparse
import itertools
import json
import logging
import os
import select
import signal
import sys
import threading
import time

from oslo_config import cfg
import oslo_messaging

from tests.fault import journal


def tell(**what):
    print(json.dumps(what), flush=True)


class Load:
    """Threads that notify.

    Thread: any.
    """

    def __init__(self, args, transport):
        self._args = args
        self._transport = transport
        self._target = oslo_messaging.Target(topic=f'{args.topic}.info')
        self._journal = journal.Journal(args.journal)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._due = time.monotonic()
        self.rate = 0.0
        self.dying = False
        self.ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run) for _ in range(args.threads)
        ]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self.ending.is_set():
            with self._lock:
                now = time.monotonic()
                if not self.rate:
                    pause = 0.05
                else:
                    # What was missed is made up for, but not all at once.
                    due = max(self._due, now - 1.0)
                    pause = due - now
                    if pause <= 0:
                        self._due = due + 1 / self.rate
            if pause > 0:
                self.ending.wait(min(pause, 0.05))
                continue
            self._notify(f'{self._args.name}-{next(self._numbers)}')

    def _notify(self, id):
        note = self._journal.write
        note(k='about', id=id, t=time.monotonic())
        try:
            # The notifier of oslo.messaging would log an error, not raise it.
            self._transport._send_notification(
                self._target,
                {},
                {
                    'event_type': 'event',
                    'publisher_id': self._args.name,
                    'priority': 'INFO',
                    'payload': id,
                },
                version=2.0,
            )
        except Exception as error:
            note(
                k='failed',
                id=id,
                t=time.monotonic(),
                error=type(error).__name__,
                may_have_run=getattr(error, 'may_have_run', None),
                text=str(error)[:400],
            )
            return
        note(k='accepted', id=id, t=time.monotonic())
        if self.dying:
            os.kill(os.getpid(), signal.SIGKILL)


def obey(load):
    """Obey lines until the end is wanted."""
    read = b''
    while not load.ending.is_set():
        # A signal that another thread of the process got interrupts nothing.
        if not select.select([sys.stdin], [], [], 0.1)[0]:
            continue
        more = os.read(sys.stdin.fileno(), 4096)
        if not more:
            return
        *lines, read = (read + more).split(b'\n')
        for command, *arguments in map(bytes.split, lines):
            if command == b'rate':
                load.rate = float(arguments[0])
            elif command == b'die':
                load.dying = True
            elif command == b'stop':
                return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--name', required=True)
    parser.add_argument('--journal', required=True)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--log', help='file for all that the driver logs')
    args = parser.parse_args()
    if args.log:
        logging.basicConfig(
            filename=args.log,
            format='%(asctime)s %(threadName)s %(message)s',
        )
        logging.getLogger('zmq_driver').setLevel(logging.DEBUG)
    cfg.CONF([], project='zmq-driver-tests')
    transport = oslo_messaging.get_notification_transport(cfg.CONF, args.url)
    load = Load(args, transport)
    signal.signal(signal.SIGTERM, lambda *_: load.ending.set())
    tell(ready=True)
    obey(load)
    load.ending.set()
    load.join()
    transport.cleanup()
    tell(ended=True)


if __name__ == '__main__':
    main()
