#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how exactly a call to nobody takes its time-out.

usage: measure_nobody.py [--timeout S] [--rounds N] [--threads 1,8,32]
                         [--calls N] [--no-redis]

Every thread calls topics that nobody serves, one that is the same for all and
one of its own in turn. In each round the local matchmaker, one at a Redis that
the tool starts, and threads that only sleep so long are measured in turn: on a
machine that has other work even those are late. Ends with 1 when a call ended
before its time-out, or the 95th percentile is later than 1.2 times the
time-out.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from oslo_config import cfg
import oslo_messaging

from tests.fixtures import redis_server

#: How late the 95th percentile may be, as a multiple of the time-out.
LATEST = 1.2


class Measured:
    """Something that takes a time-out, and how long it took."""

    def __init__(self, name, timeout):
        self.name = name
        self._timeout = timeout
        self._took = {}
        self._processor = {}

    def operations(self, number):
        """Return what a thread does in turn."""
        return [lambda: time.sleep(self._timeout)]

    def close(self):
        """Release what it has."""

    def measure(self, threads, calls):
        ready = threading.Barrier(threads)
        took = self._took.setdefault(threads, [])
        processor = time.process_time()

        def work(number):
            operations = self.operations(number)
            ready.wait(30)
            for n in range(calls):
                start = time.monotonic()
                operations[n % len(operations)]()
                took.append(time.monotonic() - start)

        workers = [
            threading.Thread(target=work, args=(n,)) for n in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(calls * self._timeout * 10 + 60)
        self._processor[threads] = (
            self._processor.get(threads, 0.0) + time.process_time() - processor
        )

    def report(self, threads):
        """Print a line; return whether the figures are as promised."""
        took = sorted(self._took[threads])
        early = sum(1 for seconds in took if seconds < self._timeout)
        p50, p95, p99 = (
            took[min(len(took) - 1, int(len(took) * share))]
            for share in (0.5, 0.95, 0.99)
        )
        print(
            f'{self.name} {threads:3} thread(s), {len(took):5} calls: '
            f'{early} early, shortest {took[0]:.4f} s, p50 {p50:.4f} s, '
            f'p95 {p95:.4f} s, p99 {p99:.4f} s, longest {took[-1]:.4f} s, '
            f'processor {self._processor[threads] / len(took) * 1e3:.2f} ms'
        )
        return not early and p95 <= LATEST * self._timeout


class Calls(Measured):
    """Calls to nobody over a transport."""

    def __init__(self, name, url, timeout):
        super().__init__(name, timeout)
        self._transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self._client = oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(topic='nobody'),
            timeout=timeout,
        )

    def operations(self, number):
        return [
            lambda: self._call(self._client),
            lambda: self._call(self._client.prepare(topic=f'nobody-{number}')),
        ]

    def _call(self, client):
        try:
            client.call({}, 'nothing')
        except oslo_messaging.MessagingTimeout:
            return
        raise AssertionError('somebody answered')

    def close(self):
        self._transport.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--timeout', type=float, default=0.5)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--calls', type=int, default=8)
    parser.add_argument('--threads', default='1,8,32')
    parser.add_argument('--no-redis', action='store_true')
    args = parser.parse_args()
    counts = [int(count) for count in args.threads.split(',')]

    cfg.CONF([], project='measure')
    directory = tempfile.mkdtemp(prefix='zm')
    query = f'?rpc_zmq_ipc_dir={directory}'
    found = [
        Measured('sleep', args.timeout),
        Calls('local', f'zmq:///{query}', args.timeout),
    ]
    server = None
    if not args.no_redis:
        server = redis_server.RedisServer().start()
        url = f'zmq+redis://{server.address}/{query}'
        found.append(Calls('redis', url, args.timeout))
    for _ in range(args.rounds):
        for count in counts:
            for one in found:
                one.measure(count, args.calls)
    for one in found:
        one.close()
    if server is not None:
        server.close()
    shutil.rmtree(directory)
    print(
        f'time-out {args.timeout} s, {args.rounds} rounds, '
        f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}'
    )
    good = [one.report(count) for one in found for count in counts]
    # The first ones only slept.
    return 0 if all(good[len(counts) :]) else 1


if __name__ == '__main__':
    sys.exit(main())
