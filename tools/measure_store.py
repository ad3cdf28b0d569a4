#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the stores of notifications.

usage: measure_store.py [--seconds S] [--size BYTES] [--directory DIR]
                        [--rounds N] [--rows N] [--rows-in STORE]

First how many notifications a second are stored, and how many a second are
taken and done in pieces of 64, in SQLite with either value of
notification_store_sync and in a redis-server on the loopback with either
value of appendfsync, by 1 and 8 threads and by 4 processes; in --rounds that
take turns, of which the best counts. Then --rows of them are stored and
drained with nothing else, in tenths: the time of each tenth shows whether it
is linear, the resident memory whether it is flat.
"""

import argparse
import contextlib
import multiprocessing
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from oslo_config import cfg
import oslo_messaging

from zmq_driver import address
from zmq_driver import clock
from zmq_driver import counters
from zmq_driver import ipc
from zmq_driver import options
from zmq_driver.store import base
from zmq_driver.store import loading
from zmq_driver.store import persistent
from zmq_driver.store import tidying

WHERE = address.Address(address.Scope.NOTIFICATION, 'openstack', 'n.info')
HOLDER = base.Holder('ipc:///run/a.ipc', b'a' * 16)
PIECE = 64

#: What is measured: the store, and when it waits for the disk.
KINDS = (
    ('sqlite', 'normal'),
    ('sqlite', 'full'),
    ('redis', 'everysec'),
    ('redis', 'always'),
)


@contextlib.contextmanager
def place_of(kind, sync, directory):
    """Give the URL of an empty store, which is removed afterwards."""
    bounds = (
        '&notification_store_max_count=100000000'
        '&notification_store_max_size=1000000000000'
    )
    place = tempfile.mkdtemp(dir=directory)
    try:
        if kind == 'sqlite':
            yield (
                f'zmq:///?notification_store_directory={place}'
                f'&notification_store_sync={sync}{bounds}'
            )
        else:
            with redis_server(place, sync) as port:
                yield f'zmq+redis://127.0.0.1:{port}/?redis_db=0{bounds}'
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def redis_server(directory, sync):
    """Start a Redis that writes to a directory; give its port."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = found.getsockname()[1]
    settings = {
        'port': port,
        'bind': '127.0.0.1',
        'dir': directory,
        'save': '',
        'appendonly': 'yes',
        'appendfsync': sync,
    }
    server = subprocess.Popen(
        [
            'redis-server',
            *(
                word
                for k, v in settings.items()
                for word in (f'--{k}', str(v))
            ),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait(20)


def make(place):
    conf = cfg.ConfigOpts()
    conf([], project='measure')
    url = oslo_messaging.TransportURL.parse(conf, place)
    return loading.make_store(
        base.StoreSettings(
            ipc.IpcDirectory(None),
            'local /',
            options.load(conf, url),
            counters.Counters(),
            url.transport.partition('+')[2] or 'local',
            url=url,
        )
    )


def add(store, body):
    store.add(
        WHERE, os.urandom(16), body, [base.Copy('')], clock.Deadline(30.0)
    )


def drain(store, limit=None):
    """Take, hold and remove as one who drains does; return how many."""
    assert store.claim()
    (queue,) = store.pending(1)
    count = 0
    while limit is None or count < limit:
        keys = [one.key for one in store.take(queue.number, PIECE)]
        if not keys:
            break
        store.hold(keys, HOLDER)
        if not store.claim():
            raise RuntimeError('another one drains')
        store.done(keys)
        count += len(keys)
    return count


def run_threads(store, threads, seconds, body):
    counts = [0] * threads

    def work(index):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            add(store, body)
            counts[index] += 1

    workers = [
        threading.Thread(target=work, args=(index,))
        for index in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts)


def run_process(place, seconds, body, go, results):
    store = make(place)
    go.wait(30)
    results.put(run_threads(store, 1, seconds, body))
    store.close()


def run_processes(place, count, seconds, body):
    context = multiprocessing.get_context('spawn')
    go = context.Barrier(count)
    results = context.Queue()
    processes = [
        context.Process(
            target=run_process,
            args=(place, seconds, body, go, results),
        )
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=seconds + 60) for _ in processes]
    for process in processes:
        process.join(30)
    return sum(found), min(found) / max(max(found), 1)


def measure(place, threads, arguments, body):
    """Return stored/s, drained/s, and the least of the most writer's."""
    store = make(place)
    fair = 1.0
    if threads:
        stored = run_threads(store, threads, arguments.seconds, body)
    else:
        stored, fair = run_processes(place, 4, arguments.seconds, body)
    start = time.perf_counter()
    drained = drain(store)
    elapsed = time.perf_counter() - start
    assert drained == stored, (drained, stored)
    store.close()
    return stored / arguments.seconds, drained / elapsed, fair


def rates(directory, arguments, body):
    best = {}
    for _ in range(arguments.rounds):
        for writers, threads in (
            ('1 thread', 1),
            ('8 threads', 8),
            ('4 processes', 0),
        ):
            for kind in KINDS:
                with place_of(*kind, directory) as place:
                    found = measure(place, threads, arguments, body)
                before = best.get((*kind, writers), (0, 0, 0))
                best[*kind, writers] = tuple(map(max, before, found))
    print('store   sync      writers      stored/s  drained/s  least/most')
    for (kind, sync, writers), (stored, drained, fair) in sorted(best.items()):
        print(
            f'{kind:7} {sync:9} {writers:12} {stored:8.0f} {drained:10.0f}  '
            f'{fair:10.2f}',
            flush=True,
        )


def resident():
    text = pathlib.Path('/proc/self/statm').read_text()
    return int(text.split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def on_disk(directory):
    return sum(
        path.stat().st_size
        for path in pathlib.Path(directory).rglob('*')
        if path.is_file()
    )


def growth(directory, kind, rows, body):
    with place_of(*kind, directory) as place:
        store = make(place)
        part = rows // 10
        print('\n    rows  stored in s    MiB of memory   MiB on disk')
        for index in range(1, 11):
            start = time.perf_counter()
            for _ in range(part):
                add(store, body)
            show(index * part, start, directory)
        print('\n    left  drained in s   MiB of memory   MiB on disk')
        for index in range(1, 11):
            start = time.perf_counter()
            drain(store, part)
            show(rows - index * part, start, directory)
        if kind[0] == 'sqlite':
            start = time.perf_counter()
            while store._database.read(tidying.wastes_space, False):
                store.pending(1)
                time.sleep(persistent.TIDY_INTERVAL)
            print(
                f'\n{on_disk(directory) / 2**20:.1f} MiB on disk after '
                f'{time.perf_counter() - start:.0f} s more'
            )
        store.close()


def show(rows, start, directory):
    print(
        f'{rows:8}  {time.perf_counter() - start:10.2f}   {resident():12.1f} '
        f'{on_disk(directory) / 2**20:14.1f}',
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--rows', type=int, default=200_000)
    parser.add_argument(
        '--rows-in', choices=('sqlite', 'redis'), default='sqlite'
    )
    parser.add_argument('--directory', help='on the disk to be measured')
    arguments = parser.parse_args()
    body = os.urandom(arguments.size)
    directory = tempfile.mkdtemp(dir=arguments.directory)
    try:
        if arguments.rounds:
            rates(directory, arguments, body)
        if arguments.rows:
            kinds = [kind for kind in KINDS if kind[0] == arguments.rows_in]
            growth(directory, kinds[0], arguments.rows, body)
    finally:
        shutil.rmtree(directory)


if __name__ == '__main__':
    main()
