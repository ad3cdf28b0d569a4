#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what the socket pool costs, against the same without a pool.

usage: measure_pool.py [--seconds S] [--rounds N] [--threads N]
                       [--transport ipc,tcp] [--kind bare,rpc]

First a checkout and checkin with nobody else about, of a socket that does
nothing and of real ones: the goal is 5 us. Then the rate at which some
threads exchange messages with one peer over the sockets of one pool, against
the rate of as many threads that keep a socket each: the goal is 0.95. `bare`
exchanges two frames with nothing round them, so that it shows the pool at its
worst; `rpc` is a call with oslo.messaging. Rounds are interleaved and change
places, so that a noisy machine hits both alike.
"""

import argparse
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import textwrap
import threading
import time

import measure_calls
from oslo_config import cfg
import oslo_messaging
import zmq

from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import pool as pool_
from zmq_driver import socket_options
from zmq_driver import sockets

#: Seconds after which something hangs.
PATIENCE = 30.0

#: Checkouts that are timed together: the clock costs as much as a tenth.
BATCH = 100

OPTIONS = socket_options.SocketOptions(
    heartbeat_interval=0.5,
    heartbeat_timeout=1.0,
    connect_timeout=PATIENCE,
    linger=0.0,
    max_message_size=4096,
)
#: Like a header and a body, but neither.
BARE = [b'h' * 60, b'x' * 300]


class NullSocket:
    """What a pool asks of a socket, for nothing."""

    def hand_over(self, owner):
        pass

    def healthy(self):
        return True

    def close(self):
        pass


# -- the peer


class Peer:
    """A forked process with a ROUTER that sends back what it gets."""

    def __init__(self, endpoint):
        told, tell = os.pipe()
        end, self._life = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._life)
            threading.Thread(target=_end_with, args=[end], daemon=True).start()
            _serve(endpoint, tell)
        os.close(tell)
        os.close(end)
        self.endpoint = os.read(told, 1000).decode()
        os.close(told)

    def close(self):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._life)


def _end_with(pipe):
    os.read(pipe, 1)
    os._exit(0)


def _serve(endpoint, tell):
    try:
        router = zmq.Context().socket(zmq.ROUTER)
        router.bind(endpoint)
        os.write(tell, router.get(zmq.LAST_ENDPOINT).rstrip(b'\0'))
        while True:
            frames = router.recv_multipart()
            if frames[1]:
                # An empty one says that there is a connection.
                router.send_multipart(frames)
    finally:
        sys.stderr.flush()
        os._exit(1)


# -- sockets of a pool, and others


class Sockets:
    """Opens sockets to a peer."""

    def __init__(self, context):
        self._context = context

    def open(self, endpoint):
        return sockets.PeerSocket(self._context, endpoint, OPTIONS)


class PrivateLease:
    """A socket that belongs to its thread for ever."""

    fresh = True

    def __init__(self, peer, socket):
        self.peer = peer
        self.socket = socket

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.fresh = False


class PrivateSockets:
    """Looks like a pool, and gives each thread the socket that it has."""

    def __init__(self, factory):
        self._factory = factory
        self._local = threading.local()
        self._leases = []

    def checkout(self, peer, deadline):
        try:
            return self._local.lease
        except AttributeError:
            lease = PrivateLease(peer, self._factory(peer))
            self._leases.append(lease)
            self._local.lease = lease
            return lease

    def close(self, deadline):
        for lease in self._leases:
            lease.socket.hand_over(threading.current_thread())
            lease.socket.close()


def make_pool(factory, threads=8):
    return pool_.SocketPool(
        'measured',
        factory,
        pool_.PoolOptions(
            max_size=2 * threads,
            max_per_peer=threads,
            idle_ttl=600,
            max_age=3600,
        ),
    )


# -- what is measured


class Bare:
    """Two frames there and back."""

    def __init__(self, pool, endpoint):
        self.pool = pool
        self.rates = []
        self._endpoint = endpoint
        self._deadline = clock.Deadline(3600)

    def call(self):
        with self.pool.checkout(self._endpoint, self._deadline) as lease:
            socket = lease.socket
            if lease.fresh and not socket.wait_connected(PATIENCE):
                raise TimeoutError('no connection')
            socket.send(BARE)
            if socket.receive(PATIENCE) is None:
                raise TimeoutError('no answer')


class Rpc:
    """A call with oslo.messaging, and a server of it that does nothing."""

    def __init__(self, url, topic, pool=None):
        self.rates = []
        self._transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self._client = oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(topic=topic),
            timeout=PATIENCE,
        )
        self.pool = self._transport._driver.runtime().pool
        if pool is not None:
            self.pool.checkout = pool.checkout

    def call(self):
        self._client.call({}, 'echo', payload='x')

    def cleanup(self):
        self._transport.cleanup()


class Threads:
    """Threads that stay, as those of an executor do."""

    def __init__(self, count):
        self._count = count
        self._work = None
        self._done = [0] * count
        self._meet = threading.Barrier(count + 1)
        for number in range(count):
            threading.Thread(
                target=self._run, args=[number], daemon=True
            ).start()

    def measure(self, call, seconds):
        """Return the calls that all threads make in a second."""
        self._work = call
        self._until = time.perf_counter() + seconds
        begin = time.perf_counter()
        self._meet.wait(PATIENCE)
        self._meet.wait(seconds + PATIENCE)
        return sum(self._done) / (time.perf_counter() - begin)

    def _run(self, number):
        while True:
            self._meet.wait()
            call, until, done = self._work, self._until, 0
            while time.perf_counter() < until:
                call()
                done += 1
            self._done[number] = done
            self._meet.wait()


def uncontended(pool, peer, seconds):
    """Return the median and the least seconds of a checkout and checkin."""
    deadline = clock.Deadline(3600)
    checkout = pool.checkout
    with checkout(peer, deadline) as lease:
        wait = getattr(lease.socket, 'wait_connected', None)
        if wait is not None:
            wait(PATIENCE)
    found = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        for _ in range(BATCH):
            checkout(peer, deadline).release()
        found.append((time.perf_counter() - begin) / BATCH)
    return statistics.median(found), min(found)


def report_cost(name, figures):
    median, least = (value * 1e6 for value in figures)
    print(
        f'checkout and checkin of {name}: median {median:.2f} us, '
        f'least {least:.2f} us (goal 5)'
    )


def compare(name, pooled, private, args):
    """Measure with and without the pool, and print the ratios."""
    threads = Threads(args.threads)
    both = [pooled, private]
    for one in both:
        threads.measure(one.call, 0.3)
    ratios = []
    for number in range(args.rounds):
        for one in both if number % 2 else reversed(both):
            one.rates.append(threads.measure(one.call, args.seconds))
        ratios.append(pooled.rates[-1] / private.rates[-1])
    first, middle, third = statistics.quantiles(ratios, n=4)
    print(
        f'{name}: {args.threads} threads, medians: pool '
        f'{statistics.median(pooled.rates):.0f}/s, private '
        f'{statistics.median(private.rates):.0f}/s, ratio: median '
        f'{middle:.3f}, quartiles {first:.3f} and {third:.3f} (goal 0.95); '
        f'by round:'
    )
    text = ' '.join(f'{ratio:.3f}' for ratio in ratios)
    print(textwrap.indent(textwrap.fill(text, 60), '  '))
    for one in both:
        one.pool.close(clock.Deadline(PATIENCE))


def compare_rpc(directory, factory, args):
    """Do the same with all of the driver and oslo.messaging."""
    url = f'zmq:///?rpc_zmq_ipc_dir={directory}'
    tools = str(pathlib.Path(__file__).parent)
    server = measure_calls.Program(measure_calls.SERVER, url, 'pool', tools)
    cfg.CONF([], project='measure')
    sockets_ = PrivateSockets(factory)
    pooled, private = Rpc(url, 'pool'), Rpc(url, 'pool', sockets_)
    compare('rpc ipc', pooled, private, args)
    sockets_.close(clock.Deadline(PATIENCE))
    pooled.cleanup()
    private.cleanup()
    server.stop()


def measure_cost(name, factory, endpoint, seconds):
    pool = make_pool(factory)
    report_cost(name, uncontended(pool, endpoint, seconds))
    pool.close(clock.Deadline(PATIENCE))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=0.25)
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--threads', type=int, default=8)
    parser.add_argument('--transport', default='ipc,tcp')
    parser.add_argument('--kind', default='bare,rpc')
    args = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix='zm'))
    where = {'ipc': f'ipc://{directory}/peer', 'tcp': 'tcp://127.0.0.1:*'}
    # Before there is a thread.
    peers = {name: Peer(where[name]) for name in args.transport.split(',')}
    context = context_.DriverContext('measure', 1, 4 * args.threads)
    factory = Sockets(context).open
    measure_cost(
        'a socket that does nothing',
        lambda peer: NullSocket(),
        'peer',
        args.seconds,
    )
    for name, peer in peers.items():
        measure_cost(
            f'a real socket, {name}', factory, peer.endpoint, args.seconds
        )
    kinds = args.kind.split(',')
    for name, peer in peers.items():
        if 'bare' in kinds:
            compare(
                f'bare {name}',
                Bare(make_pool(factory, args.threads), peer.endpoint),
                Bare(PrivateSockets(factory), peer.endpoint),
                args,
            )
    if 'rpc' in kinds:
        compare_rpc(directory, factory, args)
    context.close(clock.Deadline(PATIENCE))
    for peer in peers.values():
        peer.close()
    shutil.rmtree(directory)


if __name__ == '__main__':
    main()
