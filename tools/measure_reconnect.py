#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how soon all clients of a server that was restarted are back.

usage: measure_reconnect.py [--sockets N] [--processes P] [--threads T]
                            [--down S] [--rounds N] [--transport ipc,tcp]
                            [--json]

Some processes have a pool each, and threads that look after its sockets. When
the server is killed they notice as the driver does, pause as the driver does,
and then take other sockets from the pool to make an exchange over each.
Seconds are counted from the moment in which the new server has bound the same
endpoint.
"""

import argparse
import json
import math
import os
import pathlib
import resource
import select
import signal
import socket as posix
import statistics
import sys
import tempfile
import threading
import time

import zmq

from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import counters
from zmq_driver import errors
from zmq_driver import pool as pool_
from zmq_driver import socket_options
from zmq_driver import sockets
from zmq_driver.client import exchange
from zmq_driver.client import retry

#: What the two servers call themselves.
FIRST, SECOND = b'first', b'second'

#: Seconds of quiet before the server is killed.
QUIET = 0.5

#: Seconds after which something hangs.
PATIENCE = 120.0

#: The defaults of the driver.
CONNECT_TIMEOUT = 2.0
OPTIONS = socket_options.SocketOptions(
    heartbeat_interval=0.5,
    heartbeat_timeout=1.0,
    connect_timeout=CONNECT_TIMEOUT,
    linger=0.0,
    max_message_size=4096,
)

#: Seconds that a line of the histogram stands for, and its longest bar.
STEP = 0.1
WIDTH = 50


class Process:
    """A forked child that tells lines of JSON, and ends with its parent."""

    def __init__(self, work, *arguments):
        end, self._life = os.pipe()
        answers, tell = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._life)
            os.close(answers)
            threading.Thread(target=end_with, args=[end], daemon=True).start()
            threading.excepthook = end_badly
            try:
                work(os.fdopen(tell, 'w', buffering=1), *arguments)
            finally:
                sys.stderr.flush()
                os._exit(0)
        os.close(end)
        os.close(tell)
        self._answers = os.fdopen(answers)

    def answer(self):
        """Return the next thing that the child tells."""
        ready, _, _ = select.select([self._answers], [], [], PATIENCE)
        line = self._answers.readline() if ready else ''
        assert line, 'a process has ended, or hangs'
        return json.loads(line)

    def cpu(self):
        """Return the seconds of processor time that it has used."""
        stat = pathlib.Path(f'/proc/{self.pid}/stat').read_text()
        return seconds(stat.rpartition(')')[2].split()[11:13])

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._life)
        self._answers.close()


def seconds(ticks):
    return sum(map(int, ticks)) / os.sysconf('SC_CLK_TCK')


def cpu_of_all():
    """Return the seconds that all processors of the machine have worked."""
    ticks = pathlib.Path('/proc/stat').read_text().splitlines()[0].split()
    # All but idle and iowait.
    return seconds(ticks[1:4] + ticks[6:9])


def end_with(pipe):
    os.read(pipe, 1)
    os._exit(0)


def end_badly(args):
    print(f'{args.thread}: {args.exc_value!r}', file=sys.stderr)
    os._exit(1)


def tell(pipe, what):
    pipe.write(json.dumps(what) + '\n')


# -- the server


def serve(pipe, endpoint, name):
    """Answer with *name*, over the socket that the driver binds."""
    router = sockets.RouterSocket(
        context_.DriverContext('server', 1, 1), endpoint, OPTIONS
    )
    tell(pipe, time.monotonic())
    poll = select.poll()
    poll.register(router.fileno(), select.POLLIN)
    while True:
        while (frames := router.receive()) is not None:
            if frames[1]:
                # An empty one says that there is a connection.
                router.send([frames[0], name])
        poll.poll(100)


# -- clients


class Client:
    """One socket, and when it is to be connected again."""

    def __init__(self):
        self.lease = None
        #: Who has answered last.
        self.server = None
        self.pause()

    def pause(self):
        """Wait for the first time."""
        self._backoff = retry.Backoff(*retry.Attempts.PAUSES)
        self.wait()

    def wait(self):
        """Wait for longer than the last time."""
        self.due = time.monotonic() + self._backoff.pause()


class Clients:
    """A pool, and threads that look after some of its sockets each."""

    def __init__(self, endpoint, count):
        self._endpoint = endpoint
        self._context = context_.DriverContext('clients', 1, count)
        self._counters = counters.Counters()
        self._pool = pool_.SocketPool(
            'reconnect',
            self._open,
            pool_.PoolOptions(max_size=count, max_per_peer=count),
        )
        self.noticed = []
        self.back = []
        self.attempts = 0

    def _open(self, endpoint):
        return sockets.PeerSocket(self._context, endpoint, OPTIONS)

    def run(self, share, together):
        """Connect *share* sockets to the one server and then to the other.

        :param together: between the two, all threads meet there
        """
        clients = [Client() for _ in range(share)]
        self._connect(clients, FIRST)
        together.wait(PATIENCE)
        self._connect(clients, SECOND)
        together.wait(PATIENCE)

    def _connect(self, clients, server):
        while any(client.server != server for client in clients):
            for client in clients:
                if client.lease is None:
                    if client.due <= time.monotonic():
                        self._attempt(client)
                elif not client.lease.socket.connected():
                    self.noticed.append(time.monotonic())
                    self._drop(client)
                    client.pause()
            # As often as the driver looks while it waits for an answer.
            next_due = min(
                (c.due for c in clients if c.lease is None), default=math.inf
            )
            pause = min(next_due - time.monotonic(), exchange.SLICE)
            time.sleep(max(0.0, pause))

    def _attempt(self, client):
        """Make an exchange, or wait for longer."""
        self.attempts += 1
        try:
            client.lease = self._pool.checkout(
                self._endpoint, clock.Deadline(0.0)
            )
            exchange.Exchange(client.lease, bytes(16), self._counters).connect(
                CONNECT_TIMEOUT
            )
            client.lease.socket.send([b'who'])
            answer = client.lease.socket.receive(CONNECT_TIMEOUT)
        except (errors.PeerNotReady, zmq.ZMQError):
            # That of libzmq: sockets before this are still being closed.
            answer = None
        if answer is None:
            self._drop(client)
            client.wait()
            return
        if answer[0] == SECOND != client.server:
            self.back.append(time.monotonic())
        client.server = answer[0]

    def _drop(self, client):
        lease, client.lease = client.lease, None
        if lease is not None:
            lease.retire(pool_.EvictReason.UNFINISHED)
            lease.release()


def be_clients(pipe, endpoint, count, workers):
    clients = Clients(endpoint, count)
    together = threading.Barrier(workers + 1)
    for share in shares(count, workers):
        threading.Thread(
            target=clients.run, args=[share, together], daemon=True
        ).start()
    together.wait(PATIENCE)
    clients.attempts = 0
    tell(pipe, 'ready')
    together.wait(PATIENCE)
    tell(pipe, [clients.noticed, clients.back, clients.attempts])
    threading.Event().wait()


def shares(count, among):
    return [count // among + (n < count % among) for n in range(among)]


# -- the measurement


def measure(endpoint, args):
    """Kill and restart the server of all sockets; return what happened."""
    server = Process(serve, endpoint, FIRST)
    server.answer()
    clients = [
        Process(be_clients, endpoint, share, args.threads)
        for share in shares(args.sockets, args.processes)
    ]
    for each in clients:
        assert each.answer() == 'ready'
    time.sleep(QUIET)
    killed = time.monotonic()
    server.kill()
    time.sleep(args.down)
    before = sum(each.cpu() for each in clients)
    begin, all_before = time.monotonic(), cpu_of_all()
    server = Process(serve, endpoint, SECOND)
    bound = server.answer()
    noticed, back, attempts = [], [], 0
    for each in clients:
        found = each.answer()
        noticed += found[0]
        back += found[1]
        attempts += found[2]
    took, all_used = time.monotonic() - begin, cpu_of_all() - all_before
    back = sorted(at - bound for at in back)
    client_cpu = sum(each.cpu() for each in clients) - before
    server_cpu = server.cpu()
    others = max(0.0, all_used - client_cpu - server_cpu)
    result = {
        'noticed': max(noticed) - killed,
        'back': back,
        'busiest': busiest(back),
        'attempts': attempts / args.sockets,
        'client_cpu': client_cpu,
        'server_cpu': server_cpu,
        'busy': all_used / took / os.cpu_count(),
        'others': others / took / os.cpu_count(),
    }
    for each in [server, *clients]:
        each.kill()
    return result


def busiest(times, span=STEP):
    """Return the largest share of *times* that lies within *span* seconds."""
    most = 0
    first = 0
    for last, time_ in enumerate(times):
        while time_ - times[first] > span:
            first += 1
        most = max(most, last - first + 1)
    return most / len(times)


def report(transport, result):
    back = result['back']
    print(
        f'{transport}: {len(back)} sockets; the last one noticed after '
        f'{result["noticed"]:.2f} s; the first was back '
        f'{back[0]:.2f} s after the bind, half of them after '
        f'{statistics.median(back):.2f} s, all after {back[-1]:.2f} s'
    )
    print(
        f'  {result["attempts"]:.1f} attempts each; the busiest {STEP} s '
        f'had {result["busiest"]:.0%}; processor: clients '
        f'{result["client_cpu"]:.2f} s, server {result["server_cpu"]:.2f} s, '
        f'{os.cpu_count()} cores to {result["busy"]:.0%} busy, with others '
        f'to {result["others"]:.0%}'
    )
    counts = [0] * (int(back[-1] / STEP) + 1)
    for at in back:
        counts[max(0, int(at / STEP))] += 1
    for number, found in enumerate(counts):
        bar = '#' * round(WIDTH * found / max(counts))
        print(f'  {number * STEP:4.1f} s {found:5} {bar}')


def free_endpoint(transport, directory):
    if transport == 'ipc':
        return f'ipc://{directory}/server'
    # Not one of those that an outgoing connection can have meanwhile.
    low = int(
        pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range')
        .read_text()
        .split()[0]
    )
    for port in range(low - 1, 1024, -1):
        with posix.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
            return f'tcp://127.0.0.1:{port}'
    raise RuntimeError('no port is free')


def check_descriptors(count, processes):
    """Allow as many descriptors as possible; fail if they are too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The server has one for each connection, a client some for each socket.
    need = max(count, 5 * count // processes) + 100
    if hard < need:
        raise SystemExit(f'ulimit -n is {hard}, this takes {need}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sockets', type=int, default=2000)
    parser.add_argument('--processes', type=int, default=4)
    parser.add_argument('--threads', type=int, default=4)
    parser.add_argument('--down', type=float, default=1.0)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--transport', default='ipc,tcp')
    parser.add_argument('--json', action='store_true')
    args = parser.parse_args()
    check_descriptors(args.sockets, args.processes)
    directory = pathlib.Path(tempfile.mkdtemp(prefix='zm'))
    for _ in range(args.rounds):
        for transport in args.transport.split(','):
            result = measure(free_endpoint(transport, directory), args)
            if args.json:
                print(json.dumps({'transport': transport, **result}))
            else:
                report(transport, result)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


if __name__ == '__main__':
    main()
