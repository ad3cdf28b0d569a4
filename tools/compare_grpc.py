#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure calls against unary calls of gRPC, in the same run.

usage: compare_grpc.py [--seconds S] [--rounds N] [--size BYTES]
                       [--threads 1,8,32]

Needs grpcio, which is no dependency of anything here. Each peer has a server
process with 64 workers that returns what it gets, and a client process with
all the threads. gRPC runs over a Unix socket, because the driver has ipc on
one host, and with the same JSON as body. Rounds are interleaved. Of each
figure the median of the rounds is printed, and that of the best fifth of
them, which other load disturbed least. The CPU time is that of both
processes.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

import measure_calls
from oslo_config import cfg
import oslo_messaging

METHOD = 'compare/echo'
WORKERS = 64
OPTIONS = [('grpc.so_reuseport', 0)]


def encode(value):
    return json.dumps(value, separators=(',', ':')).encode()


def serve_grpc(address):
    import grpc

    def echo(request, context):
        return request[1]['args']['payload']

    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(WORKERS), options=OPTIONS
    )
    handler = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=json.loads, response_serializer=encode
    )
    service, method = METHOD.split('/')
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    server.add_insecure_port(address)
    server.start()
    wait()
    server.stop(0)


def serve_zmq(topic):
    class Endpoint:
        def echo(self, ctxt, payload):
            return payload

    transport = oslo_messaging.get_rpc_transport(cfg.CONF, 'zmq://')
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=topic, server='s'),
        [Endpoint()],
        executor='threading',
    )
    server.start()
    wait()
    server.stop()
    server.wait()
    transport.cleanup()


def wait():
    print('ready', flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


def call_grpc(address, size):
    import grpc

    channel = grpc.insecure_channel(address)
    call = channel.unary_unary(
        f'/{METHOD}',
        request_serializer=encode,
        response_deserializer=json.loads,
    )
    message = {'method': 'echo', 'args': {'payload': 'x' * int(size)}}
    take_orders(lambda: call([{}, message], timeout=30))
    channel.close()


def call_zmq(topic, size):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, 'zmq://')
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=30
    )
    payload = 'x' * int(size)
    take_orders(lambda: client.call({}, 'echo', payload=payload))
    transport.cleanup()


def take_orders(call):
    call()
    print('ready', flush=True)
    for line in sys.stdin:
        threads, seconds = line.split()
        begun = time.process_time()
        latencies, rate = measure_calls.run(call, int(threads), float(seconds))
        cpu = (time.process_time() - begun) / len(latencies)
        p50 = measure_calls.percentile(latencies, 0.5)
        p99 = measure_calls.percentile(latencies, 0.99)
        print(json.dumps([p50, p99, rate, cpu, len(latencies)]), flush=True)


class Program:
    def __init__(self, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == 'ready\n'

    def ask(self, order=''):
        self._process.stdin.write(order + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self):
        self._process.stdin.close()
        self._process.wait(30)


class Peer:
    def __init__(self, name, where, size):
        self.name = name
        self._server = Program(f'serve_{name}', where)
        self._client = Program(f'call_{name}', where, str(size))
        self.rounds = {}

    def measure(self, threads, seconds):
        before = self._server.ask()
        p50, p99, rate, cpu, count = self._client.ask(f'{threads} {seconds}')
        cpu += (self._server.ask() - before) / count
        self.rounds.setdefault(threads, []).append((p50, p99, rate, cpu))

    def stop(self):
        self._client.stop()
        self._server.stop()


def report(peers, counts):
    for threads in counts:
        for peer in peers:
            columns = [
                sorted(c) for c in zip(*peer.rounds[threads], strict=True)
            ]
            columns[2].reverse()
            for which, place in ('median', 0.5), ('best fifth', 0.1):
                p50, p99, rate, cpu = (
                    column[int(len(column) * place)] for column in columns
                )
                print(
                    f'{threads:3} thread(s) {peer.name:4} {which:10}: '
                    f'p50 {p50 * 1e6:6.0f} us, p99 {p99 * 1e6:6.0f} us, '
                    f'{rate:5.0f} calls/s, CPU {cpu * 1e6:4.0f} us a call'
                )
        ratios = sorted(
            mine[2] / theirs[2]
            for mine, theirs in zip(
                *(peer.rounds[threads] for peer in peers), strict=True
            )
        )
        print(
            f'    rate of the first, times that of the other: median '
            f'{statistics.median(ratios):.2f} ({ratios[0]:.2f} to '
            f'{ratios[-1]:.2f} in {len(ratios)} rounds)'
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=1.0)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--threads', default='1,8,32')
    args = parser.parse_args()
    counts = [int(count) for count in args.threads.split(',')]
    with tempfile.TemporaryDirectory(prefix='zg') as directory:
        address = f'unix:{pathlib.Path(directory) / "grpc"}'
        topic = f'compare-{uuid.uuid4().hex[:8]}'
        peers = [
            Peer('zmq', topic, args.size),
            Peer('grpc', address, args.size),
        ]
        for peer in peers:
            peer.measure(max(counts), 0.5)
            peer.rounds.clear()
        for turn in range(args.rounds):
            for threads in counts:
                for peer in peers if turn % 2 else reversed(peers):
                    peer.measure(threads, args.seconds)
        for peer in peers:
            peer.stop()
    print(f'{args.size} bytes, {args.rounds} rounds, {os.cpu_count()} cores')
    report(peers, counts)


if __name__ == '__main__':
    programs = (serve_grpc, serve_zmq, call_grpc, call_zmq)
    chosen = {p.__name__: p for p in programs}.get((*sys.argv, '', '')[1])
    if chosen:
        cfg.CONF([], project='measure')
        chosen(*sys.argv[2:])
    else:
        main()
