# SPDX-License-Identifier: Apache-2.0
"""What connections cost both ends, and how soon many are made anew."""

import argparse
import pathlib
import select
import statistics
import tempfile
import threading
import time

import measure_reconnect

from scaling import processes
from zmq_driver import context as context_
from zmq_driver import socket_options
from zmq_driver import sockets

#: Bytes each way; the mean of oslo.messaging's simulator is about this.
SIZE = 3200
OPTIONS = socket_options.SocketOptions(
    heartbeat_interval=0.5,
    heartbeat_timeout=1.0,
    connect_timeout=10.0,
    linger=0.0,
    max_message_size=1 << 20,
)
#: Sockets that are opened at once: while it connects, each has some more.
BATCH = 100
#: Seconds during which idle connections are watched.
IDLE = 20.0


def serve(ask):
    """Echo what comes over TCP, as the router of a driver would."""
    router = sockets.RouterSocket(
        context_.DriverContext('server', 1, 1), 'tcp://127.0.0.1:*', OPTIONS
    )
    poll = select.poll()
    poll.register(router.fileno(), select.POLLIN)
    # The parent asks for nothing more, and this thread has work to do.
    threading.Thread(target=ask, args=[router.bound_to()], daemon=True).start()
    while True:
        while (frames := router.receive()) is not None:
            if frames[1]:
                router.send(frames)
        poll.poll(100)


def connect(ask, endpoint, most):
    """Open as many sockets as asked, with an exchange over each."""
    context = context_.DriverContext('clients', 1, most)
    made = []
    wanted = ask('ready')
    while True:
        while len(made) < wanted:
            new = [
                sockets.PeerSocket(context, endpoint, OPTIONS)
                for _ in range(min(BATCH, wanted - len(made)))
            ]
            for one in new:
                assert one.wait_connected(processes.PATIENCE)
                one.send([bytes(SIZE)])
            for one in new:
                assert one.receive(processes.PATIENCE)
            made += new
        wanted = ask('done')


def measure(counts):
    """Yield rows of what *counts* connections cost: for each end."""
    server = processes.Process(serve)
    endpoint = server.answer()
    client = processes.Process(connect, endpoint, max(counts))
    client.answer()
    client.ask(1)
    before = [_state(one.pid) for one in (server, client)]
    try:
        for count in counts:
            client.ask(count + 1)
            time.sleep(1.0)
            yield from _rows(count, server, client, before)
    finally:
        client.end()
        server.end()


def _state(pid):
    return processes.memory(pid), processes.descriptors(pid)


def _rows(count, server, client, before):
    for name, one, first in zip(
        ('server', 'client'), (server, client), before, strict=True
    ):
        memory, open_ = _state(one.pid)
        yield f'{name} memory', count, memory - first[0], 'KiB'
        yield f'{name} descriptors', count, open_ - first[1], ''
    used = [processes.cpu(one.pid) for one in (server, client)]
    time.sleep(IDLE)
    for name, one, first in zip(
        ('server', 'client'), (server, client), used, strict=True
    ):
        share = (processes.cpu(one.pid) - first) / IDLE
        yield f'{name} idle processor', count, share * 1000, 'ms/s'


def reconnect(counts, rounds=3):
    """Yield rows of the seconds until all sockets are back after a kill."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix='zs'))
    for count in counts:
        args = argparse.Namespace(
            sockets=count, processes=4, threads=4, down=1.0
        )
        measure_reconnect.check_descriptors(count, args.processes)
        found = [
            measure_reconnect.measure(
                measure_reconnect.free_endpoint('tcp', directory), args
            )
            for _ in range(rounds)
        ]
        yield (
            'reconnect server processor',
            count,
            statistics.median(each['server_cpu'] for each in found),
            's',
        )
        yield (
            'reconnect all back',
            count,
            statistics.median(each['back'][-1] for each in found),
            's',
        )
    directory.rmdir()
