# SPDX-License-Identifier: Apache-2.0
"""What registrations, renewals, look-ups and connections cost Redis."""

import contextlib
import heapq
import pathlib
import random
import socket
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import measure_matchmaker
import redis

from scaling import inputs
from tests.fixtures import redis_server
from zmq_driver.matchmaker.redis import renewal

#: Operations of which the mean is taken.
ROUNDS = 400
#: Messages that a subscriber leaves unread at most.
MESSAGES = 40
#: Seconds during which renewals are watched.
WATCH = 40.0
#: Seconds after which the buffers of idle connections are small.
SETTLE = 10.0
#: Threads that renew, each over a connection of its own.
THREADS = 4


def measure(sizes, clients):
    """Yield rows for *sizes* processes, and *clients* connections."""
    with contextlib.ExitStack() as stack:
        server = redis_server.RedisServer('maxclients 15000')
        stack.callback(server.close)
        server.start()
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        matchmaker = measure_matchmaker.make(server, directory)
        stack.callback(matchmaker.close, measure_matchmaker.deadline())
        for size in sizes:
            yield from _records(server, matchmaker, size)
            yield from _lookups(server, matchmaker, size)
        for size in sizes[-2:]:
            yield from _renewals(server, matchmaker, size)
        yield from _connections(server, clients)


def _info(server):
    return {
        **server.command('INFO', 'memory'),
        **server.command('INFO', 'cpu'),
        **server.command('INFO', 'stats'),
    }


def _cost(server, work, rounds):
    """Return the Redis seconds and bytes sent per run of *work*."""
    work()
    first = _info(server)
    for _ in range(rounds):
        work()
    last = _info(server)
    used = sum(
        last[key] - first[key] for key in ('used_cpu_sys', 'used_cpu_user')
    )
    sent = last['total_net_output_bytes'] - first['total_net_output_bytes']
    return used / rounds, sent / rounds


def _topics(number):
    """Return the addresses at which the agent of a node listens."""
    return [
        measure_matchmaker.WHERE._replace(topic=f'agent-{topic}')
        for topic in range(inputs.TOPICS_PER_AGENT)
    ]


def _processes(size):
    """Return what each of *size* processes registers."""
    found = []
    for number in range(size):
        record = measure_matchmaker.entry(number).encode()
        found.append([(where, record) for where in _topics(number)])
    return found


def _records(server, matchmaker, size):
    """Registrations of *size* agents: memory, and the cost of a renewal."""
    server.command('FLUSHALL')
    # The first look-ups and renewals make Redis load its scripts.
    before = _info(server)['used_memory']
    everybody = _processes(size)
    for one in everybody:
        matchmaker._store.register(one, measure_matchmaker.deadline())
    after = _info(server)['used_memory']
    yield 'redis memory', size, (after - before) / 1024, 'KiB'
    for count in (1, inputs.TOPICS_PER_AGENT):
        cost, _ = _cost(
            server,
            lambda count=count: matchmaker._store.register(
                random.choice(everybody)[:count],
                measure_matchmaker.deadline(),
            ),
            ROUNDS,
        )
        yield f'redis renewal of {count}', size, cost * 1e6, 'µs'


def _lookups(server, matchmaker, size):
    where = _topics(0)[0]
    begin = time.thread_time()
    rounds = max(20, min(ROUNDS, 200_000 // size))
    cost, sent = _cost(
        server,
        lambda: matchmaker.lookup(where, measure_matchmaker.deadline()),
        rounds,
    )
    client = (time.thread_time() - begin) / (rounds + 1)
    yield 'redis look-up', size, cost * 1e6, 'µs'
    yield 'redis look-up answer', size, sent / 1024, 'KiB'
    yield 'client look-up', size, client * 1e6, 'µs'


def _renewals(server, matchmaker, size):
    """Renew as *size* processes would, by the schedule of the product."""
    freq = inputs.HEARTBEAT_FREQ
    everybody = _processes(size)
    for one in everybody:
        matchmaker._store.register(one, measure_matchmaker.deadline())
    counts = [0] * THREADS
    end = time.monotonic() + WATCH
    begin = time.monotonic()

    def run(mine):
        due = [
            (begin + freq * random.uniform(0.0, 1.0), number)
            for number in range(mine, size, THREADS)
        ]
        heapq.heapify(due)
        while due[0][0] < end:
            at, number = due[0]
            time.sleep(max(0.0, at - time.monotonic()))
            matchmaker._store.register(
                everybody[number], measure_matchmaker.deadline()
            )
            counts[mine] += 1
            again = at + freq * random.uniform(1.0 - renewal.JITTER, 1.0)
            heapq.heapreplace(due, (again, number))

    first = _info(server)
    workers = [
        threading.Thread(target=run, args=[mine]) for mine in range(THREADS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.monotonic() - begin
    last = _info(server)
    used = sum(
        last[key] - first[key] for key in ('used_cpu_sys', 'used_cpu_user')
    )
    yield 'redis renewals', size, sum(counts) / took, '1/s'
    yield 'redis renewals processor', size, used / took * 1000, 'ms/s'


def publish(counts):
    """Yield rows of what a message to *counts* subscribers costs Redis."""
    server = redis_server.RedisServer()
    server.start()
    sender = redis.Redis(port=server.port)
    made = []
    try:
        for count in counts:
            while len(made) < count:
                made.append(_subscriber(server))
            found = []
            for _ in range(ROUNDS // MESSAGES):
                cost, _ = _cost(
                    server, lambda: sender.publish('q-plugin', ''), MESSAGES
                )
                found.append(cost)
                for one in made:
                    one.recv(1 << 16)
            yield 'redis publish', count, statistics.mean(found) * 1e6, 'µs'
    finally:
        sender.close()
        for one in made:
            one.close()
        server.close()


def _subscriber(server):
    one = socket.create_connection((server.host, server.port))
    one.sendall(b'SUBSCRIBE q-plugin q-reports\r\n')
    while not one.recv(4096).endswith(b':2\r\n'):
        pass
    return one


def _connections(server, clients):
    """Idle connections, each subscribed to the topics of an agent."""
    server.command('FLUSHALL')
    before = _info(server)['used_memory']
    made = []
    try:
        for count in clients:
            while len(made) < count:
                made.append(_subscriber(server))
            # Redis gives back the buffers of idle clients after some seconds.
            time.sleep(SETTLE)
            after = _info(server)['used_memory']
            yield 'redis client memory', count, (after - before) / 1024, 'KiB'
    finally:
        for one in made:
            one.close()
