#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the store of notifications in SQLite.

usage: measure_store.py [--seconds S] [--size BYTES] [--directory DIR]
                        [--rows N]

First how many notifications a second are stored, and how many a second are
taken and done in pieces of 64, with either value of notification_store_sync,
by 1 and 8 threads and by 4 processes. Then --rows of them are stored and
drained with nothing else, in tenths: the time of each tenth shows whether it
is linear, the resident memory whether it is flat.
"""

import argparse
import multiprocessing
import os
import pathlib
import shutil
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
from zmq_driver.store import sqlite
from zmq_driver.store import tidying

WHERE = address.Address(address.Scope.NOTIFICATION, 'openstack', 'n.info')
HOLDER = base.Holder('ipc:///run/a.ipc', b'a' * 16)
PIECE = 64


def make(directory, sync):
    conf = cfg.ConfigOpts()
    conf([], project='measure')
    url = oslo_messaging.TransportURL.parse(
        conf,
        f'zmq:///?notification_store_sync={sync}'
        '&notification_store_max_count=100000000'
        '&notification_store_max_size=1000000000000',
    )
    return sqlite.SqliteStore(
        base.StoreSettings(
            ipc.IpcDirectory(directory),
            'local /',
            options.load(conf, url),
            counters.Counters(),
        )
    )


def add(store, body):
    store.add(
        WHERE, os.urandom(16), body, [base.Copy('')], clock.Deadline(30.0)
    )


def drain(store, limit=None):
    """Take, hold and remove as one who drains does; return how many."""
    (queue,) = store.pending(1)
    count = 0
    while limit is None or count < limit:
        keys = [one.key for one in store.take(queue.number, PIECE)]
        if not keys:
            break
        store.hold(keys, HOLDER)
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


def run_process(directory, sync, seconds, body, go, results):
    store = make(directory, sync)
    go.wait(30)
    results.put(run_threads(store, 1, seconds, body))
    store.close()


def run_processes(directory, sync, count, seconds, body):
    context = multiprocessing.get_context('spawn')
    go = context.Barrier(count)
    results = context.Queue()
    processes = [
        context.Process(
            target=run_process,
            args=(directory, sync, seconds, body, go, results),
        )
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=seconds + 60) for _ in processes]
    for process in processes:
        process.join(30)
    return sum(found), min(found) / max(max(found), 1)


def rates(directory, arguments, body):
    print('sync    writers      stored/s  drained/s  least/most')
    for sync in ('normal', 'full'):
        for writers, threads in (
            ('1 thread', 1),
            ('8 threads', 8),
            ('4 processes', 0),
        ):
            place = tempfile.mkdtemp(dir=directory)
            store = make(place, sync)
            fair = 1.0
            if threads:
                stored = run_threads(store, threads, arguments.seconds, body)
            else:
                stored, fair = run_processes(
                    place, sync, 4, arguments.seconds, body
                )
            start = time.perf_counter()
            drained = drain(store)
            elapsed = time.perf_counter() - start
            assert drained == stored, (drained, stored)
            store.close()
            shutil.rmtree(place)
            print(
                f'{sync:7} {writers:12} {stored / arguments.seconds:8.0f} '
                f'{drained / elapsed:10.0f}  {fair:10.2f}',
                flush=True,
            )


def resident():
    text = pathlib.Path('/proc/self/statm').read_text()
    return int(text.split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def growth(directory, rows, body):
    store = make(directory, 'normal')
    path = pathlib.Path(directory, 'notifications.sqlite')
    part = rows // 10
    print('\n    rows  stored in s    MiB of memory   MiB of file')
    for index in range(1, 11):
        start = time.perf_counter()
        for _ in range(part):
            add(store, body)
        show(index * part, start, path)
    print('\n    left  drained in s   MiB of memory   MiB of file')
    for index in range(1, 11):
        start = time.perf_counter()
        drain(store, part)
        show(rows - index * part, start, path)
    start = time.perf_counter()
    while store._database.read(tidying.wastes_space, False):
        store.pending(1)
        time.sleep(sqlite.TIDY_INTERVAL)
    store.close()
    print(
        f'\n{path.stat().st_size / 2**20:.1f} MiB of file after '
        f'{time.perf_counter() - start:.0f} s more'
    )


def show(rows, start, path):
    print(
        f'{rows:8}  {time.perf_counter() - start:10.2f}   {resident():12.1f} '
        f'{path.stat().st_size / 2**20:14.1f}',
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--rows', type=int, default=200_000)
    parser.add_argument('--directory', help='on the disk to be measured')
    arguments = parser.parse_args()
    body = os.urandom(arguments.size)
    directory = tempfile.mkdtemp(dir=arguments.directory)
    try:
        rates(directory, arguments, body)
        if arguments.rows:
            growth(directory, arguments.rows, body)
    finally:
        shutil.rmtree(directory)


if __name__ == '__main__':
    main()
