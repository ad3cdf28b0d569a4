#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Count how often threads are switched in a call, in client and server.

usage: count_switches.py [--threads N] [--seconds S] [--size BYTES]
                         [--url zmq://] [--cast] [--thin]

A thread that waits and is woken is one voluntary switch, a thread that was
made to let another one run is another switch. Both are told for each call, by
the kind of thread: libzmq's, and those of Python; with their CPU time. Unlike
times, they hardly depend on what else the machine does: a voluntary switch too
many is a thread that was woken for nothing. With --thin, the thinnest driver
that oslo.messaging can have is counted too.
"""

import argparse
import os
import pathlib
import resource
import tempfile

import measure_calls
from oslo_config import cfg

#: Seconds before anything is counted.
WARM_UP = 1.0


def look(pid):
    """Return voluntary and other switches and CPU seconds, by kind."""
    sums = {'Python': [0, 0, 0.0], 'libzmq': [0, 0, 0.0]}
    for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
        lines = (task / 'status').read_text().splitlines()
        status = dict(line.split(':', 1) for line in lines)
        kind = 'libzmq' if 'ZMQ' in status['Name'] else 'Python'
        nanoseconds = int((task / 'schedstat').read_text().split()[0])
        add(
            sums[kind],
            int(status['voluntary_ctxt_switches']),
            int(status['nonvoluntary_ctxt_switches']),
            nanoseconds / 1e9,
        )
    if pid == os.getpid():
        # The threads that called have ended.
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = used.ru_utime + used.ru_stime
        sums['Python'] = [used.ru_nvcsw, used.ru_nivcsw, seconds]
        add(sums['Python'], *(-figure for figure in sums['libzmq']))
    return sums


def add(sums, *figures):
    for index, figure in enumerate(figures):
        sums[index] += figure


def count(name, url, args):
    rpc = measure_calls.Rpc(name, url, args.size)
    send = rpc.cast if args.cast else rpc.call
    measure_calls.run(send, args.threads, WARM_UP)
    pids = {'client': os.getpid(), 'server': rpc.server_pid}
    before = {side: look(pid) for side, pid in pids.items()}
    latencies, _ = measure_calls.run(send, args.threads, args.seconds)
    after = {side: look(pid) for side, pid in pids.items()}
    for side in pids:
        for kind, figures in after[side].items():
            add(figures, *(-figure for figure in before[side][kind]))
            waits, others, seconds = (f / len(latencies) for f in figures)
            print(
                f'{name} {side} {kind}: {waits:5.2f} voluntary and '
                f'{others:5.2f} other switches, {seconds * 1e6:4.0f} us of CPU'
            )
    rpc.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=3.0)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--url', default='zmq://')
    parser.add_argument('--cast', action='store_true')
    parser.add_argument('--thin', action='store_true')
    args = parser.parse_args()
    cfg.CONF([], project='measure')
    count('driver', args.url, args)
    if args.thin and not args.cast:
        with tempfile.TemporaryDirectory(prefix='zm') as directory:
            count('thin  ', f'ipc://{directory}/thin', args)


if __name__ == '__main__':
    main()
