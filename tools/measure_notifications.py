#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints how fast notifications are: directly, into the store, out of it.

One thread notifies, one process listens, on one host; bodies of 3,200 bytes.
Run it on a quiet machine.

``--rabbit`` compares it with the rabbit driver of oslo.messaging and a
RabbitMQ that it starts (Debian's rabbitmq-server), in turns, so that what
else the machine does meets both. ``--many 2000000`` stores so many while
nobody listens, and drains them, in ten parts; time and memory of each part
are printed.
"""

import argparse
import contextlib
import cProfile
import json
import os
import pathlib
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from oslo_config import cfg
import oslo_messaging
import rabbit_node

TOPIC = 'rate'

#: Seconds within which each part of a measurement must be over.
HANG = 7200.0

#: Bounds of the store that --many does not reach.
ROOMY = (
    '&notification_store_max_count=1000000000'
    '&notification_store_max_size=1000000000000'
)


class Endpoint:
    """Counts."""

    def __init__(self):
        self.count = 0

    def info(self, *args):
        self.count += 1


def transport_of(url):
    cfg.CONF([], project='measure')
    return oslo_messaging.get_notification_transport(cfg.CONF, url)


def tell(**what):
    print(json.dumps(what), flush=True)


def resident():
    text = pathlib.Path('/proc/self/statm').read_text()
    return int(text.split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def listen(url):
    """Listen until the input ends; tell when so many had come."""
    transport = transport_of(url)
    endpoint = Endpoint()
    listener = oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(topic=TOPIC)],
        [endpoint],
        executor='threading',
    )
    listener.start()
    tell(ready=True)
    for line in sys.stdin:
        wanted = int(line)
        while endpoint.count < wanted:
            time.sleep(0.001)
        tell(count=endpoint.count, rss=resident(), cpu=time.process_time())
    listener.stop()
    listener.wait()
    transport.cleanup()


def notify(url, size, profile):
    """Notify as often as each line of the input says; tell the seconds."""
    transport = transport_of(url)
    one = oslo_messaging.Notifier(
        transport, publisher_id='p', driver='messagingv2', topics=[TOPIC]
    )
    body = 'x' * size
    tell(ready=True)
    profiler = cProfile.Profile() if profile else contextlib.nullcontext()
    for line in sys.stdin:
        begin, cpu = time.perf_counter(), time.process_time()
        with profiler:
            for _ in range(int(line)):
                one.info({}, 'event', body)
        seconds = time.perf_counter() - begin
        counts = {}
        if url.startswith('zmq'):
            counts = transport._driver.runtime().counters.snapshot()
        tell(
            seconds=seconds,
            rss=resident(),
            cpu=time.process_time() - cpu,
            stored=counts.get('notifications_stored', 0),
        )
    transport.cleanup()
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats(
            'tottime'
        ).print_stats(30)


class Worker:
    """A process of this program that obeys lines.

    Thread: owner only.
    """

    def __init__(self, *arguments, tree=None):
        """Start it; *tree* is the checkout to import from."""
        env = dict(os.environ)
        if tree is not None:
            env['PYTHONPATH'] = tree
        self._process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._process.stdout.readline()

    def ask(self, number):
        self._process.stdin.write(f'{number}\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


class Side:
    """A driver that is measured: its notifier, and listeners that come.

    Thread: owner only.
    """

    def __init__(self, name, url, arguments, tree=None):
        self.name = name
        self._url = url
        self._tree = tree
        #: Rates by phase, one for each round.
        self.rates = {}
        # The queue, or listener pool, is known from now on.
        self._listener = Worker('--listen', url, tree=tree)
        extra = ['--profile'] if arguments.profile else []
        self._notifier = Worker(
            *('--notify', url, '--size', str(arguments.size)),
            *extra,
            tree=tree,
        )
        self._notifier.ask(50)
        self._listener.ask(50)
        self._listener.end()
        self._stored = self._notifier.ask(0)['stored']
        #: How many went to the store although somebody listened.
        self.late = 0

    def _note(self, phase, rate):
        self.rates.setdefault(phase, []).append(rate)

    def store(self, count):
        told = self._notifier.ask(count)
        self._note('stored', count / told['seconds'])
        self._note('stored, CPU us', told['cpu'] / count * 1e6)
        self._stored = told['stored']

    def drain(self, count):
        begin = time.perf_counter()
        self._listener = Worker('--listen', self._url, tree=self._tree)
        self._cpu = self._listener.ask(count)['cpu']
        self._note('drained', count / (time.perf_counter() - begin))

    def direct(self, count):
        told = self._notifier.ask(count)
        begin = time.perf_counter()
        # What came after the drain.
        cpu = self._listener.ask(2 * count)['cpu'] - self._cpu
        seconds = told['seconds'] + time.perf_counter() - begin
        self._note('direct', count / told['seconds'])
        self._note('direct, all handled', count / seconds)
        self._note('direct, CPU us', told['cpu'] / count * 1e6)
        self._note('direct, CPU us of listener', cpu / count * 1e6)
        self.late += told['stored'] - self._stored
        self._stored = told['stored']
        self._listener.end()

    def end(self):
        self._notifier.end()


PHASES = ('stored', 'drained', 'direct', 'direct, all handled')
#: What a process used for one notification, of which a busy machine takes
#: nothing away.
COSTS = ('stored, CPU us', 'direct, CPU us', 'direct, CPU us of listener')


def spread(values):
    return (
        f'{statistics.median(values):8.2f} '
        f'({min(values):.2f} to {max(values):.2f})'
    )


def compare(arguments, sides):
    for number in range(arguments.rounds):
        # Who begins changes, and one rests while the other is measured.
        turn = sides[number % len(sides) :] + sides[: number % len(sides)]
        for phase in ('store', 'drain', 'direct'):
            for side in turn:
                getattr(side, phase)(arguments.count)
    first = sides[0]
    print(
        f'{arguments.rounds} rounds of {arguments.count}, {arguments.size} '
        f'bytes, one thread; per second: median (least to most)'
    )
    for phase in PHASES + COSTS:
        for side in sides:
            print(f'  {phase:27} {side.name:24} {spread(side.rates[phase])}')
    for side in sides[1:]:
        for phase in PHASES:
            ratios = [
                a / b
                for a, b in zip(
                    first.rates[phase], side.rates[phase], strict=True
                )
            ]
            print(
                f'  {first.name} / {side.name}, {phase}: {spread(ratios)} '
                'by round'
            )
    print(
        f'  {first.late} of {arguments.rounds * arguments.count} that were '
        'notified while somebody listened were stored nevertheless'
    )


CONTRACT = """\
What has happened when notify() returns:
  zmq, direct     the endpoint of the listener has handled it
  zmq, stored     it is committed to SQLite, without waiting for the disk
                  (notification_store_sync = normal)
  rabbit          the broker has confirmed it (publisher confirms; the driver
                  always asks for them): it is in the memory of the broker
  rabbit durable  amqp_durable_queues = true: the broker has written it to its
                  disk, or a consumer has acknowledged it
drained: with the start of the listener's process, which takes most of it."""


def run_rates(arguments, zmq):
    with contextlib.ExitStack() as stack:
        sides = [('zmq', zmq)]
        if arguments.rabbit:
            node = stack.enter_context(rabbit_node.RabbitNode())
            durable = stack.enter_context(rabbit_node.RabbitNode())
            sides += [
                ('rabbit', node.url),
                ('rabbit durable', f'{durable.url}?amqp_durable_queues=true'),
            ]
        running = [Side(name, url, arguments) for name, url in sides]
        if arguments.against:
            place = arguments.place / 'other'
            place.mkdir(0o700)
            url = zmq.replace(str(arguments.place), str(place))
            running.append(
                Side(arguments.against, url, arguments, arguments.against)
            )
        compare(arguments, running)
        for side in running:
            side.end()
        if arguments.rabbit:
            print(CONTRACT)


def run_many(arguments, zmq):
    """Store many and drain them; the notifier is the one that drains."""
    part = arguments.many // 10
    notifier = Worker(
        *('--notify', zmq + ROOMY, '--size', str(arguments.size))
    )
    print('   stored     seconds  MiB of notifier  MiB of file', flush=True)
    path = next(iter(arguments.place.glob('**/notifications.sqlite')), None)
    for index in range(1, 11):
        told = notifier.ask(part)
        path = path or next(arguments.place.glob('**/notifications.sqlite'))
        assert told['stored'] == index * part
        show(index * part, told['seconds'], told['rss'], path)
    print('  drained     seconds  MiB of notifier  MiB of file', flush=True)
    begin = time.perf_counter()
    listener = Worker('--listen', zmq)
    for index in range(1, 11):
        listener.ask(index * part)
        seconds, begin = time.perf_counter() - begin, time.perf_counter()
        show(index * part, seconds, notifier.ask(0)['rss'], path)
    print(f'MiB of listener in the end: {listener.ask(0)["rss"]:.1f}')
    listener.end()
    notifier.end()


def show(count, seconds, rss, path):
    print(
        f'{count:9}  {seconds:10.1f}  {rss:15.1f}  '
        f'{path.stat().st_size / 2**20:11.1f}',
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=2000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--rabbit', action='store_true')
    parser.add_argument('--against', help='another checkout, to compare with')
    parser.add_argument('--many', type=int, default=0)
    parser.add_argument('--directory', help='on the disk to be measured')
    parser.add_argument('--query', default='', help='options: a=b&c=d')
    parser.add_argument('--profile', action='store_true')
    parser.add_argument('--listen', help=argparse.SUPPRESS)
    parser.add_argument('--notify', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.listen:
        listen(arguments.listen)
        return
    if arguments.notify:
        notify(arguments.notify, arguments.size, arguments.profile)
        return
    place = tempfile.mkdtemp(prefix='zm', dir=arguments.directory)
    arguments.place = pathlib.Path(place)
    url = f'zmq:///?rpc_zmq_ipc_dir={place}'
    if arguments.query:
        url += f'&{arguments.query}'
    try:
        if arguments.many:
            run_many(arguments, url)
        else:
            run_rates(arguments, url)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == '__main__':
    main()
