# SPDX-License-Identifier: Apache-2.0
"""Fanouts of a real driver to many real ones, over TCP and Redis."""

import contextlib
import pathlib
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from oslo_config import cfg
import oslo_messaging

from scaling import processes
from tests.fixtures import redis_server

#: Processes that the servers share.
PROCESSES = 4
#: Fanouts of which the mean is taken, after one that connects.
FANOUTS = 8
#: Casts to servers at random, for each server.
CASTS = 8
#: Threads that look something up at once, and seconds until those
#: connections that are not kept are gone.
AT_ONCE = 16
SETTLE = 2.0
PAYLOAD = 'x' * 3200


class Endpoint:
    def note(self, ctxt, payload):
        pass


def transport(url):
    cfg.CONF([], project='measure')
    return oslo_messaging.get_rpc_transport(cfg.CONF, url)


def serve(ask, url, numbers):
    """Be some servers, each with a driver of its own."""
    for number in numbers:
        server = oslo_messaging.get_rpc_server(
            transport(url.format(number=number)),
            oslo_messaging.Target(topic='agents', server=f's{number}'),
            [Endpoint()],
            executor='threading',
        )
        server.start()
    while True:
        ask('ready')


def send(ask, url, count):
    """Send fanouts; tell how long one takes and what the pool did."""
    sender = transport(url.format(number='client'))
    client = oslo_messaging.get_rpc_client(
        sender, oslo_messaging.Target(topic='agents')
    )
    ask('ready')
    fanout = client.prepare(fanout=True)
    fanout.cast({}, 'note', payload=PAYLOAD)
    pool = sender._driver.runtime().pool
    first = pool.stats()
    begin, cpu = time.monotonic(), time.process_time()
    for _ in range(FANOUTS):
        fanout.cast({}, 'note', payload=PAYLOAD)
    took = (time.monotonic() - begin) / FANOUTS
    used = (time.process_time() - cpu) / FANOUTS
    last = pool.stats()
    ask(
        {
            'seconds': took,
            'processor': used,
            'hits': _hits(first, last, FANOUTS * count),
            'open': last.idle + last.in_use,
        }
    )
    casts = CASTS * count
    for warm_up in (True, False):
        first = pool.stats()
        for _ in range(casts // 4 if warm_up else casts):
            one = client.prepare(server=f's{random.randrange(count)}')
            one.cast({}, 'note', payload=PAYLOAD)
    ask({'hits': _hits(first, pool.stats(), casts)})
    _look_up_at_once(sender)
    ask('done')


def _hits(first, last, leases):
    """Return the share of the leases that found a socket."""
    opened = last.created_total - first.created_total
    return 1.0 - opened / leases


def _look_up_at_once(sender):
    """Ask Redis for several addresses at the same time."""
    together = threading.Barrier(AT_ONCE)

    def run(number):
        client = oslo_messaging.get_rpc_client(
            sender, oslo_messaging.Target(topic=f'other-{number}')
        ).prepare(fanout=True)
        together.wait(processes.PATIENCE)
        client.cast({}, 'note', payload=PAYLOAD)

    threads = [
        threading.Thread(target=run, args=[number])
        for number in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(counts, sizes):
    """Yield rows for fanouts to *counts* servers over pools of *sizes*."""
    with contextlib.ExitStack() as stack:
        server = redis_server.RedisServer()
        stack.callback(server.close)
        server.start()
        directory = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        # Each with an ipc directory of its own, as if on a host of its own.
        url = (
            f'zmq+redis://{server.address}/?rpc_zmq_ipc_dir={directory}'
            '/{number}&rpc_zmq_host=127.0.0.1&rpc_zmq_bind_address=127.0.0.1'
        )
        running = []
        have = 0
        try:
            for count in counts:
                for part in range(PROCESSES):
                    numbers = range(have + part, count, PROCESSES)
                    one = processes.Process(serve, url, list(numbers))
                    running.append(one)
                    one.answer()
                have = count
                yield from _connections(server, count)
                for size in sizes:
                    yield from _fanouts(server, url, count, size)
        finally:
            for one in running:
                one.end()


def _connections(server, count):
    yield 'redis connections of servers', count, _connected(server), ''


def _connected(server):
    """Return the connections to Redis but for the one that asks."""
    return server.command('INFO', 'clients')['connected_clients'] - 1


def _fanouts(server, url, count, size):
    client = processes.Process(send, f'{url}&pool_max_size={size}', count)
    client.answer()
    found = client.ask('go')
    connected = _connected(server)
    at_random = client.ask('go')
    client.ask('go')
    time.sleep(SETTLE)
    busy = _connected(server)
    client.end()
    yield f'fanout, pool of {size}', count, found['seconds'] * 1000, 'ms'
    yield (
        f'fanout processor, pool of {size}',
        count,
        found['processor'] * 1000,
        'ms',
    )
    yield f'fanout hit ratio, pool of {size}', count, found['hits'], ''
    yield 'redis connections of a client', count, connected - count, ''
    yield 'redis connections of a busy client', count, busy - count, ''
    yield f'cast hit ratio, pool of {size}', count, at_random['hits'], ''
    yield f'fanout sockets, pool of {size}', count, found['open'], ''
