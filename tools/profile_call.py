#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Show where the time of one call goes, stage by stage.

usage: profile_call.py [--calls N] [--rounds N] [--size BYTES]
                       [--fastest SHARE] [--svg FILE]

A client process calls a server process over ipc, one call at a time. Both
wrap the functions at which one stage ends and the next begins, and note
CLOCK_MONOTONIC there, which all processes of a host share; the driver itself
knows nothing of it. Printed is the median of each stage, in the order in
which they happen, of the fastest fifth of the calls: the others were held up
by what else the machine does.

Another pair of processes notes the CPU time of the threads instead, which
does not count while they wait. What oslo.messaging calls in the driver is
the driver's, what the driver calls in oslo.messaging is not, and the calls
into pyzmq are told apart from the Python around them.
"""

import argparse
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import time
import uuid

from oslo_config import cfg
import oslo_messaging
import zmq

from zmq_driver import body
from zmq_driver import context
from zmq_driver import driver
from zmq_driver import sockets
from zmq_driver.client import routing
from zmq_driver.client import sender
from zmq_driver.server import channel
from zmq_driver.server import incoming
from zmq_driver.server import listener
from zmq_driver.server import router

WARM_UP = 300
#: Microseconds that the driver may take, see doc/specs/performance.rst.
TARGET = 60.0

#: Stage, whose time it is, the points between which it lies, what happens.
STAGES = (
    ('prepare', 'oslo', 'call', 'send', 'oslo.messaging makes the message'),
    ('serialise', 'client', 'send', 'encoded', 'context and message to JSON'),
    ('look up', 'client', 'encoded', 'found', 'the route from the cache'),
    ('check out', 'client', 'found', 'leased', 'a socket from the pool'),
    ('send', 'client', 'leased', 'sent', 'the header'),
    (
        'wire',
        'wire',
        'sent',
        'woken',
        'frames to libzmq, kernel, router wakes',
    ),
    ('receive', 'server', 'woken', 'received', 'frames from libzmq'),
    ('decode', 'server', 'received', 'handed', 'header, duplicates, JSON'),
    ('executor', 'oslo', 'handed', 'started', 'from the router to a worker'),
    ('dispatch', 'oslo', 'started', 'replies', 'find the method, run it'),
    ('reply', 'server', 'replies', 'replied', 'JSON, header'),
    (
        'wire',
        'wire',
        'replied',
        'arrived',
        'frames to libzmq, kernel, caller wakes',
    ),
    ('receive', 'client', 'arrived', 'sent back', 'header, check in, JSON'),
    ('return', 'oslo', 'sent back', 'called', 'oslo.messaging returns'),
)
COLOURS = {
    'client': '#2c7fb8',
    'server': '#31a354',
    'wire': '#bdbdbd',
    'oslo': '#fdae6b',
}
WHOSE = {
    'client': 'driver, in the client',
    'server': 'driver, in the server',
    'wire': 'libzmq and the kernel',
    'oslo': 'oslo.messaging',
}


class Points:
    """Times at which functions were entered or left, in their order."""

    def __init__(self):
        self.seen = []

    def note(self, name):
        self.seen.append((name, time.monotonic_ns()))

    def wrap(self, owner, name, before=None, after=None):
        """Note when *owner.name* is entered, and when it returns a value."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def wrapped(*args, **kwargs):
            if before:
                self.note(before)
            result = real(*args, **kwargs)
            if after and result is not None:
                self.note(after)
            return result

        setattr(owner, name, wrapped)

    def wrap_callback(self, make):
        """Wrap what oslo.messaging gives to a listener."""
        real = listener.RpcListener.start

        def start(mine, callback):
            real(mine, make(callback))

        listener.RpcListener.start = start

    def result(self, calls, fastest):
        return self.seen

    def watch_client(self):
        self.wrap(driver.ZmqDriver, 'send', 'send', 'sent back')
        self.wrap(body, 'encode_request', None, 'encoded')
        self.wrap(routing.Routing, 'first', None, 'found')
        self.wrap(sender.Sender, 'checkout', None, 'leased')
        # Handing over wakes threads that may take this one's core, so the
        # message has often arrived before the call into libzmq returns.
        self.wrap(sockets.PeerSocket, 'send', 'sent')
        self.wrap(sockets.PeerSocket, 'receive', None, 'arrived')

    def watch_server(self):
        def handing(callback):
            def hand(messages):
                self.note('handed')
                callback(messages)

            return hand

        real = channel.Channel.wait

        def wait(mine, is_wanted):
            real(mine, is_wanted)
            self.note('woken')

        channel.Channel.wait = wait
        self.wrap(channel.Channel, 'receive', None, 'received')
        self.wrap(incoming.RpcIncoming, 'acknowledge', 'started')
        self.wrap(incoming.RpcIncoming, 'reply', 'replies')
        self.wrap(sockets.RouterSocket, 'send', 'replied')
        self.wrap_callback(handing)


class Cpu:
    """CPU time of threads within the driver, in microseconds by part."""

    def __init__(self):
        self.parts = {}
        self.in_pyzmq = 0.0
        self._begun = {}

    def add(self, part, begun, zmq_begun):
        now = time.thread_time()
        inside = self.in_pyzmq - zmq_begun
        self.parts.setdefault(part, []).append(
            ((now - begun - inside) * 1e6, inside * 1e6)
        )

    def wrap(self, owner, name, part):
        real = getattr(owner, name)

        @functools.wraps(real)
        def wrapped(*args, **kwargs):
            begun = time.thread_time()
            zmq_begun = self.in_pyzmq
            try:
                return real(*args, **kwargs)
            finally:
                self.add(part, begun, zmq_begun)

        setattr(owner, name, wrapped)

    def watch_pyzmq(self):
        """Let every call into a socket be measured.

        There is one call under way at a time, so one sum will do.
        """
        measured = self

        class Socket(zmq.Socket):
            pass

        def measure(owner, name, real):
            def method(*args, **kwargs):
                begun = time.thread_time()
                try:
                    return real(*args, **kwargs)
                finally:
                    measured.in_pyzmq += time.thread_time() - begun

            setattr(owner, name, method)

        for name in ('recv', 'get', 'set', 'poll'):
            measure(Socket, name, getattr(zmq.Socket, name))
        measure(sockets, '_send_frame', sockets._send_frame)
        real_init = context.DriverContext.__init__

        def init(mine, *args):
            real_init(mine, *args)
            mine._context._socket_class = Socket

        context.DriverContext.__init__ = init

    def watch_client(self):
        self.watch_pyzmq()
        self.wrap(driver.ZmqDriver, 'send', 'send')

    def watch_server(self):
        self.watch_pyzmq()
        self.wrap(router.Router, '_look', 'look')
        self.wrap(router.Router, '_receive', 'decode')
        self.wrap(channel.Channel, 'wait', 'wait')
        self.wrap(incoming.RpcIncoming, 'acknowledge', 'acknowledge')
        self.wrap(incoming.RpcIncoming, 'reply', 'reply')
        self.wrap(incoming.RpcIncoming, '__del__', 'delete')
        # What is not the driver's, but was counted as such.
        Points().wrap_callback(self._measure_callback)
        real = channel.Channel.__init__

        def init(mine, *args):
            real(mine, *args)
            mine._poll = self._Poll(self, mine._poll)

        channel.Channel.__init__ = init

    def _measure_callback(self, callback):
        def measured(messages):
            begun = time.thread_time()
            try:
                callback(messages)
            finally:
                self.add('- callback', begun, self.in_pyzmq)

        return measured

    class _Poll:
        def __init__(self, cpu, poll):
            self._cpu = cpu
            self._poll = poll

        def poll(self, timeout):
            begun = time.thread_time()
            try:
                return self._poll.poll(timeout)
            finally:
                self._cpu.add('- poll', begun, self._cpu.in_pyzmq)

    def result(self, calls, fastest):
        """Return microseconds of Python and of pyzmq for one call.

        A part that comes several times, or not always, counts as often as it
        came.
        """
        python = pyzmq = 0.0
        for part, seen in self.parts.items():
            seen = seen[len(seen) * WARM_UP // (calls + WARM_UP) :]
            often = len(seen) / calls
            sign = -1 if part.startswith('-') else 1
            middle = sorted(seen)[int(len(seen) * fastest / 2)]
            python += sign * often * middle[0]
            pyzmq += sign * often * middle[1]
        return python, pyzmq


class Endpoint:
    def echo(self, ctxt, payload):
        return payload


def serve(url, topic, what, calls, fastest):
    watch = Points() if what == 'points' else Cpu()
    watch.watch_server()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=topic, server='s'),
        [Endpoint()],
        executor='threading',
    )
    server.start()
    print('ready', flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()
    transport.cleanup()
    print(json.dumps(watch.result(int(calls), float(fastest))), flush=True)


def call(url, topic, what, calls, fastest, size):
    watch = Points() if what == 'points' else Cpu()
    watch.watch_client()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=30
    )
    payload = 'x' * int(size)
    for _ in range(WARM_UP + int(calls)):
        if what == 'points':
            watch.note('call')
        client.call({}, 'echo', payload=payload)
        if what == 'points':
            watch.note('called')
    transport.cleanup()
    print(json.dumps(watch.result(int(calls), float(fastest))), flush=True)


def measure(what, args):
    """Run a server and a client; return what each has noted."""
    topic = f'profile-{uuid.uuid4().hex[:8]}'
    common = [args.url, topic, what, str(args.calls), str(args.fastest)]
    program = [sys.executable, '-W', 'ignore', __file__]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(
                [*program, 'serve', *common],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert server.stdout.readline() == 'ready\n'
        client = subprocess.run(
            [*program, 'call', *common, str(args.size)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=600,
        )
        answer, _ = server.communicate(timeout=60)
    return json.loads(client.stdout), json.loads(answer)


def calls_of(seen, last):
    """Split what was noted into calls, of which *last* is the last point.

    Of a point that comes more than once in a call, the last one counts.
    """
    now = {}
    for name, at in seen:
        now[name] = at
        if name == last:
            yield now
            now = {}


def stages(client, server):
    """Return the microseconds of each stage, one list for each call."""
    theirs = [c for c in calls_of(server, 'replied') if 'handed' in c]
    result = []
    for mine, its in zip(calls_of(client, 'called'), theirs, strict=False):
        at = {**its, **mine}
        # A router that was awake did not have to wake up.
        at['woken'] = max(at.get('woken', 0), at['sent'])
        if at['woken'] > at['received']:
            at['woken'] = at['received']
        result.append([(at[e] - at[b]) / 1000 for _, _, b, e, _ in STAGES])
    return result[WARM_UP:]


def report(rows, fastest):
    rows = sorted(rows, key=sum)[: max(1, int(len(rows) * fastest))]
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    whole = statistics.median(map(sum, rows))
    print(f'{"stage":10} {"whose":7} {"us":>6}  what')
    for (stage, whose, _, _, what), us in zip(STAGES, medians, strict=True):
        print(f'{stage:10} {whose:7} {us:6.1f}  {what}')
    print(f'{"the call":18} {whole:6.1f}  (sum of the stages: ', end='')
    print(f'{sum(medians):.1f})')
    for whose, name in WHOSE.items():
        share = sum(
            us
            for (_, w, *_), us in zip(STAGES, medians, strict=True)
            if w == whose
        )
        print(f'{name:25} {share:6.1f} us, {share / sum(medians):4.0%}')
    return medians


def draw(medians, path):
    import matplotlib

    matplotlib.use('svg')
    matplotlib.rcParams['svg.hashsalt'] = 'profile'
    from matplotlib import patches
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.6))
    at = 0.0
    for row, ((_, whose, *_), us) in enumerate(
        zip(STAGES, medians, strict=True)
    ):
        axes.barh(row, us, left=at, color=COLOURS[whose])
        axes.text(at + us + 1, row, f'{us:.0f}', va='center', fontsize=8)
        at += us
    axes.set_yticks(range(len(STAGES)), [stage for stage, *_ in STAGES])
    axes.invert_yaxis()
    axes.set_xlabel('microseconds since the caller called')
    axes.set_xlim(0, at * 1.05)
    axes.legend(
        handles=[
            patches.Patch(color=COLOURS[whose], label=name)
            for whose, name in WHOSE.items()
        ],
        fontsize=8,
    )
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={'Date': None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--calls', type=int, default=3000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--url', default='zmq://')
    parser.add_argument('--fastest', type=float, default=0.2)
    parser.add_argument('--svg', help='draw the stages into this file')
    args = parser.parse_args()

    rows, cpu = [], []
    for _ in range(args.rounds):
        rows += stages(*measure('points', args))
        cpu.append(measure('cpu', args))
    medians = report(rows, args.fastest)
    print(f'\n{"CPU of the driver":18} {"Python":>7} {"pyzmq":>7}  us a call')
    both = []
    for index, name in enumerate(('client', 'server')):
        figures = [
            statistics.median(f)
            for f in zip(*(c[index] for c in cpu), strict=True)
        ]
        both.append(figures)
        print(f'{name:18} {figures[0]:7.1f} {figures[1]:7.1f}')
    python, pyzmq = map(sum, zip(*both, strict=True))
    print(f'{"together":18} {python:7.1f} {pyzmq:7.1f}  (target {TARGET:.0f})')
    if args.svg:
        draw(medians, args.svg)


if __name__ == '__main__':
    if sys.argv[1:2] in (['serve'], ['call']):
        cfg.CONF([], project='measure')
        {'serve': serve, 'call': call}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
