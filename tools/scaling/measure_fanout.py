# SPDX-License-Identifier: Apache-2.0
"""Fanouts of a real driver to many real ones, over TCP and Redis."""

import contextlib
import pathlib
import sys
import tempfile
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
    ).prepare(fanout=True)
    driver = sender._driver
    ask('ready')
    client.cast({}, 'note', payload=PAYLOAD)
    first = driver.runtime().pool.stats()
    begin, cpu = time.monotonic(), time.process_time()
    for _ in range(FANOUTS):
        client.cast({}, 'note', payload=PAYLOAD)
    took = (time.monotonic() - begin) / FANOUTS
    used = (time.process_time() - cpu) / FANOUTS
    last = driver.runtime().pool.stats()
    opened = last.created_total - first.created_total
    ask(
        {
            'seconds': took,
            'processor': used,
            'hits': 1.0 - opened / (FANOUTS * count),
            'open': last.idle + last.in_use,
        }
    )


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
    found = server.command('INFO', 'clients')['connected_clients']
    yield 'redis connections of servers', count, found - 1, ''


def _fanouts(server, url, count, size):
    client = processes.Process(send, f'{url}&pool_max_size={size}', count)
    client.answer()
    found = client.ask('go')
    connected = server.command('INFO', 'clients')['connected_clients'] - 1
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
    yield f'fanout sockets, pool of {size}', count, found['open'], ''
