#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the Redis matchmaker against a Redis that this starts.

    python tools/measure_matchmaker.py

prints medians; run it on an idle machine.
"""

import argparse
import contextlib
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

from oslo_config import cfg
import oslo_messaging

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tests.fixtures import redis_server
from zmq_driver import address
from zmq_driver import clock
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver.matchmaker import base
from zmq_driver.matchmaker import refreshed
from zmq_driver.matchmaker.redis import matchmaker as redis_matchmaker
from zmq_driver.matchmaker.redis import record
from zmq_driver.matchmaker.redis import renewal

WHERE = address.Address(address.Scope.RPC, 'nova', 'compute')


def deadline():
    return clock.Deadline(60.0)


def make(server, directory):
    conf = cfg.ConfigOpts()
    conf([], project='measure')
    url = oslo_messaging.TransportURL.parse(
        conf, f'zmq+redis://{server.address}/'
    )
    return redis_matchmaker.RedisMatchmaker(
        base.MatchmakerSettings(
            ipc.IpcDirectory(directory),
            '',
            os.urandom(8).hex(),
            url=url,
            options=options.load(conf, url),
        )
    )


def entry(number):
    """Return the record of a server as it would be in a large site."""
    host = f'compute-{number:05}.rack{number % 400:03}.example.org'
    return record.Entry(
        ipc_endpoint=f'ipc:///run/zmq-driver/{os.urandom(8).hex()}.ipc',
        tcp_endpoint=f'tcp://10.{number >> 16}.{number >> 8 & 255}.'
        f'{number & 255}:{9501 + number % 1000}',
        mark=os.urandom(16),
        incarnation=os.urandom(16),
        server=host,
        host=host,
        pid=random.randrange(1 << 22),
        started='2026-11-20T11:17:33+00:00',
    )


def fill(matchmaker, count, where=lambda number: WHERE):
    records = [(where(i), entry(i).encode()) for i in range(count)]
    matchmaker._store.register(records, deadline())
    return records


def times(call, rounds):
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found


def show(name, seconds, unit=1e6, suffix='us'):
    median = statistics.median(seconds) * unit
    worst = sorted(seconds)[int(len(seconds) * 0.99)] * unit
    print(f'{name:52} {median:9.2f} {suffix}   (99 %: {worst:.2f})')


def used_memory(server):
    return int(server.command('INFO', 'memory')['used_memory'])


def measure_cached(matchmaker):
    cached = refreshed.RefreshedMatchmaker(
        matchmaker, member='0' * 16, ttl=600.0
    )
    limit = deadline()
    cached.lookup(WHERE, limit)
    batch = range(1000)

    def thousand():
        for _ in batch:
            cached.lookup(WHERE, limit)

    show('cached lookup', [t / 1000 for t in times(thousand, 501)])


def measure_lookups(matchmaker, server):
    for count in (1, 100, 1_000, 10_000):
        server.command('FLUSHALL')
        fill(matchmaker, count)
        rounds = 31 if count > 1000 else 301
        show(
            f'uncached lookup, {count} servers on one topic',
            times(lambda: matchmaker.lookup(WHERE, deadline()), rounds),
            1e3,
            'ms',
        )


def measure_writes(matchmaker, server):
    server.command('FLUSHALL')
    fill(matchmaker, 10_000)
    mine = fill(matchmaker, 1)
    show(
        'renewal of 1 registration among 10000',
        times(lambda: matchmaker._store.register(mine, deadline()), 501),
        1e3,
        'ms',
    )
    many = fill(matchmaker, 100, lambda i: WHERE._replace(topic=f't{i}'))
    show(
        'renewal of 100 registrations of one process',
        times(lambda: matchmaker._store.register(many, deadline()), 201),
        1e3,
        'ms',
    )


def measure_memory(matchmaker, server):
    for name, where in (
        ('one topic', lambda number: WHERE),
        ('400 topics', lambda n: WHERE._replace(topic=f'compute-{n % 400}')),
        ('13000 topics', lambda n: WHERE._replace(topic=f'compute-{n}')),
    ):
        server.command('FLUSHALL')
        before = used_memory(server)
        fill(matchmaker, 13_000, where)
        after = used_memory(server)
        print(
            f'{"memory of 13000 servers on " + name:52} '
            f'{(after - before) / 1e6:9.2f} MB'
        )


def simulate_spread(processes, freq, seconds):
    """Show how renewals spread when all processes begin at once."""
    due = [freq * random.uniform(0.2, 1) for _ in range(processes)]
    counts = [0] * int(seconds)
    for first in due:
        at = first
        while at < seconds:
            counts[int(at)] += 1
            at += freq * random.uniform(1 - renewal.JITTER, 1.0)
    tail = counts[int(freq) :]
    print(
        f'{f"renewals per second, {processes} processes":52} '
        f'{statistics.mean(tail):9.0f}      (most: {max(tail)}; '
        f'in the first {freq:.0f} s: {max(counts[: int(freq)])})'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with contextlib.ExitStack() as stack:
        server = redis_server.RedisServer()
        stack.callback(server.close)
        server.start()
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        matchmaker = make(server, directory)
        stack.callback(matchmaker.close, deadline())
        fill(matchmaker, 100)
        measure_cached(matchmaker)
        measure_lookups(matchmaker, server)
        measure_writes(matchmaker, server)
        measure_memory(matchmaker, server)
    simulate_spread(13_000, 15.0, 120)


if __name__ == '__main__':
    main()
