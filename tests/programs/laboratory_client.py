# SPDX-License-Identifier: Apache-2.0
"""A client of the fault laboratory: threads that call, cast and notify.

Each operation is written to a journal (``tests.fault.journal``) when it begins
and when it ends. It prints JSON lines, and obeys the lines of its input::

    begin WINDOW    the load begins; all ids begin with WINDOW
    pause N         the load ends; {"pause N": true}, once all have ended
    clock 3600      the wall clock jumps by as many seconds
    status N        {"status N": {counter: count}}
    stop            ends
"""

import argparse
import json
import random
import sys
import threading
import time
import uuid

from oslo_config import cfg
import oslo_messaging

from tests.fault import journal
from tests.programs import laboratory_clock

#: Threads by pattern.
THREADS = {'call': 3, 'cast': 2, 'fanout': 1, 'notification': 1}

#: Every so often a method takes longer, so that faults hit it at work.
LONG_SHARE = 0.1
LONG = 0.3


def tell(**what):
    print(json.dumps(what), flush=True)


class Sender:
    """Sends one message by each pattern."""

    def __init__(self, args):
        conf = cfg.CONF
        conf([], project='zmq-driver-tests')
        self._topic = args.topic
        self.rpc = oslo_messaging.get_rpc_transport(conf, args.url)
        self.notifications = oslo_messaging.get_notification_transport(
            conf, args.url
        )
        self._client = oslo_messaging.get_rpc_client(
            self.rpc,
            oslo_messaging.Target(topic=args.topic),
            timeout=args.deadline,
        )
        self._everybody = self._client.prepare(fanout=True)

    def call(self, id, delay):
        assert self._client.call({}, 'run', id=id, delay=delay) == id

    def cast(self, id, delay):
        self._client.cast({}, 'run', id=id, delay=delay)

    def fanout(self, id, delay):
        self._everybody.cast({}, 'run', id=id)

    def notification(self, id, delay):
        # A Notifier logs errors and keeps them to itself.
        self.notifications._send_notification(
            oslo_messaging.Target(topic=f'{self._topic}-events.info'),
            {},
            {
                'message_id': str(uuid.uuid4()),
                'publisher_id': 'laboratory',
                'timestamp': '2026-01-01 00:00:00.000000',
                'priority': 'INFO',
                'event_type': 'run',
                'payload': id,
            },
            version=2.0,
        )

    def counts(self):
        total = {}
        for transport in (self.rpc, self.notifications):
            counters = transport._driver.runtime().counters
            for name, count in counters.snapshot().items():
                total[name] = total.get(name, 0) + count
        return total


class Load:
    """The threads of all patterns.

    Thread: any.
    """

    def __init__(self, args, sender):
        self._args = args
        self._sender = sender
        self._journal = journal.Journal(args.journal)
        self._condition = threading.Condition()
        self._window = None
        self._busy = 0
        number = 0
        for pattern, count in THREADS.items():
            for _ in range(count):
                number += 1
                threading.Thread(
                    target=self._run, args=(pattern, number), daemon=True
                ).start()

    def begin(self, window):
        with self._condition:
            self._window = window
            self._condition.notify_all()

    def pause(self):
        self._window = None
        with self._condition:
            return self._condition.wait_for(
                lambda: self._busy == 0, self._args.deadline + 15
            )

    def _run(self, pattern, number):
        rng = random.Random(self._args.seed * 100 + number)
        count = 0
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._window)
                window = self._window
                self._busy += 1
            try:
                while self._window == window:
                    count += 1
                    name = f'{window}/{self._args.name}-{number}-{count}'
                    delay = LONG if rng.random() < LONG_SHARE else 0.0
                    self._send(pattern, name, delay)
                    time.sleep(rng.uniform(0, 2) * self._args.pause)
            finally:
                with self._condition:
                    self._busy -= 1
                    self._condition.notify_all()

    def _send(self, pattern, id, delay):
        self._journal.write(
            id=id,
            pattern=pattern,
            begin=time.monotonic(),
            deadline=self._args.deadline,
        )
        outcome, may_have_run, text = 'ok', None, ''
        try:
            getattr(self._sender, pattern)(id, delay)
        except Exception as error:
            outcome = type(error).__name__
            may_have_run = getattr(error, 'may_have_run', None)
            text = str(error)
        self._journal.write(
            id=id,
            end=time.monotonic(),
            outcome=outcome,
            may_have_run=may_have_run,
            text=text,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--topic', required=True)
    parser.add_argument('--name', required=True)
    parser.add_argument('--journal', required=True)
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('--deadline', type=float, required=True)
    parser.add_argument('--pause', type=float, default=0.01)
    args = parser.parse_args()
    sender = Sender(args)
    load = Load(args, sender)
    tell(ready=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == 'stop':
            break
        if command == 'begin':
            load.begin(arguments[0])
        elif command == 'pause':
            tell(**{line.strip(): load.pause()})
        elif command == 'clock':
            laboratory_clock.jump(float(arguments[0]))
        elif command == 'status':
            tell(**{line.strip(): sender.counts()})


if __name__ == '__main__':
    main()
