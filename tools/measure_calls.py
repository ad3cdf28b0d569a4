#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure calls against a raw ping-pong, in the same run.

usage: measure_calls.py [--seconds S] [--rounds N] [--size BYTES]
                        [--threads 1,2,8,32,64] [--url zmq://] [--thin]

The floor is a raw pyzmq DEALER/ROUTER ping-pong between two processes, over
ipc and over TCP on loopback. Rounds of all variants are interleaved, so that
a noisy machine hits all of them alike; ratios are of the medians over the
rounds. With --thin, the thinnest driver that oslo.messaging can have over
ZeroMQ is measured too: what it needs above the raw ping-pong is not ours.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid

from oslo_config import cfg
import oslo_messaging
import thin_driver
import zmq

SERVER = """
import os
import sys
from oslo_config import cfg
import oslo_messaging
sys.path.insert(0, sys.argv[3])
class Endpoint:
    def echo(self, ctxt, payload):
        return payload
cfg.CONF([], project='measure')
if sys.argv[1].startswith('ipc:'):
    import thin_driver
    transport = thin_driver.make_transport(cfg.CONF, sys.argv[1])
else:
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1])
server = oslo_messaging.get_rpc_server(
    transport, oslo_messaging.Target(topic=sys.argv[2], server='s'),
    [Endpoint()], executor='threading')
server.start()
print('ready', flush=True)
sys.stdin.read()
if sys.argv[1].startswith('ipc:'):
    os._exit(0)
server.stop()
server.wait()
transport.cleanup()
"""

PONG = """
import sys
import zmq
context = zmq.Context()
router = context.socket(zmq.ROUTER)
router.bind(sys.argv[1])
print(router.last_endpoint.decode(), flush=True)
poller = zmq.Poller()
poller.register(router, zmq.POLLIN)
poller.register(sys.stdin.fileno(), zmq.POLLIN)
while True:
    ready = dict(poller.poll(1000))
    if router in ready:
        router.send_multipart(router.recv_multipart())
    elif ready:
        break
router.close(0)
context.term()
"""


class Program:
    def __init__(self, source, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer = self._process.stdout.readline().strip()
        assert self.answer, 'a program did not start'
        self.pid = self._process.pid

    def stop(self):
        self._process.stdin.close()
        self._process.wait(10)


def percentile(latencies, share):
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))]


def run(call, threads, seconds):
    """Return the sorted latencies and the rate of one round."""
    results = [[] for _ in range(threads)]
    go = threading.Barrier(threads + 1)

    def work(mine):
        go.wait(30)
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            if start >= end:
                return
            call()
            mine.append(time.perf_counter() - start)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in results]
    for worker in workers:
        worker.start()
    go.wait(30)
    begin = time.perf_counter()
    for worker in workers:
        worker.join(seconds + 60)
    elapsed = time.perf_counter() - begin
    latencies = sorted(latency for mine in results for latency in mine)
    return latencies, len(latencies) / elapsed


class Raw:
    """A ping-pong with nothing but pyzmq."""

    def __init__(self, endpoint, size):
        self._program = Program(PONG, endpoint)
        self._context = zmq.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.connect(self._program.answer)
        self._frames = [b'h' * 60, b'x' * size]
        self.medians = []

    def call(self):
        self._dealer.send_multipart(self._frames)
        self._dealer.recv_multipart()

    def close(self):
        self._dealer.close(0)
        self._context.term()
        self._program.stop()


class Rpc:
    """Calls through oslo.messaging, over a URL or the thin driver."""

    def __init__(self, name, url, size):
        self.name = name
        topic = f'measure-{uuid.uuid4().hex[:8]}'
        tools = str(pathlib.Path(__file__).parent)
        self._program = Program(SERVER, url, topic, tools)
        if url.startswith('ipc:'):
            self._transport = thin_driver.make_transport(cfg.CONF, url)
        else:
            self._transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self._client = oslo_messaging.get_rpc_client(
            self._transport, oslo_messaging.Target(topic=topic), timeout=30
        )
        self._payload = 'x' * size
        self.medians, self.tails, self.rates = {}, {}, {}

    def call(self):
        self._client.call({}, 'echo', payload=self._payload)

    def cast(self):
        self._client.cast({}, 'echo', payload=self._payload)

    @property
    def server_pid(self):
        return self._program.pid

    def measure(self, threads, seconds):
        latencies, rate = run(self.call, threads, seconds)
        self.medians.setdefault(threads, []).append(percentile(latencies, 0.5))
        self.tails.setdefault(threads, []).append(percentile(latencies, 0.99))
        self.rates.setdefault(threads, []).append(rate)

    def report(self, floor):
        first = None
        for threads, medians in self.medians.items():
            p50 = statistics.median(medians)
            rate = statistics.median(self.rates[threads])
            first = first or rate
            ratios = ', '.join(
                f'{p50 / raw:5.2f} x {name}' for name, raw in floor.items()
            )
            print(
                f'{self.name} {threads:3} thread(s): '
                f'p50 {p50 * 1e6:7.0f} us ({ratios}), '
                f'p99 {statistics.median(self.tails[threads]) * 1e6:8.0f} us, '
                f'{rate:6.0f} calls/s ({rate / first:4.2f} x the first)'
            )

    def close(self):
        self._transport.cleanup()
        self._program.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=2.0)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--threads', default='1,2,8,32,64')
    parser.add_argument('--url', default='zmq://')
    parser.add_argument('--thin', action='store_true')
    args = parser.parse_args()
    counts = [int(count) for count in args.threads.split(',')]

    cfg.CONF([], project='measure')
    directory = pathlib.Path(tempfile.mkdtemp(prefix='zm'))
    raws = {
        'ipc': Raw(f'ipc://{directory}/raw', args.size),
        'tcp': Raw('tcp://127.0.0.1:*', args.size),
    }
    drivers = [Rpc('driver', args.url, args.size)]
    if args.thin:
        drivers.append(Rpc('thin  ', f'ipc://{directory}/thin', args.size))
    for driver in drivers:
        run(driver.call, max(counts), 0.5)
    for _ in range(args.rounds):
        for raw in raws.values():
            latencies, _rate = run(raw.call, 1, args.seconds / 2)
            raw.medians.append(percentile(latencies, 0.5))
        for count in counts:
            for driver in drivers:
                driver.measure(count, args.seconds)
    for measured in (*drivers, *raws.values()):
        measured.close()
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()

    floor = {
        name: statistics.median(raw.medians) for name, raw in raws.items()
    }
    print(
        f'{args.size} bytes, {args.rounds} rounds of {args.seconds} s, '
        f'{os.cpu_count()} cores, {args.url}'
    )
    for name, p50 in floor.items():
        print(f'raw ping-pong over {name}: p50 {p50 * 1e6:.0f} us')
    for driver in drivers:
        driver.report(floor)


if __name__ == '__main__':
    main()
