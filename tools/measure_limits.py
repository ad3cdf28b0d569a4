#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Print how fast an acknowledged message can be at best.

usage: measure_limits.py [--seconds S] [--rounds N] [--size BYTES]
                         [--servers N] [--no-rabbit]

One thread sends messages and waits for the acknowledgement of each, in
interleaved rounds:

* ``oslo.messaging``: the driver does nothing, so this is its own work;
* ``raw``: frames of that size to a process of pyzmq that answers at once;
* ``thin``: both, that is, a notification of oslo.messaging as JSON that a
  process acknowledges which does nothing else (see ``thin_driver.py``);
* ``zmq``: this driver, to a listener of oslo.messaging that handles it;
* ``rabbit``: the rabbit driver and a RabbitMQ that is started for it.

No driver that waits for an acknowledgement is faster than ``thin``. The same
for fanouts to ``--servers`` processes: ``thin`` has servers of oslo.messaging
that answer when they have run the method, and nothing of what a driver needs
besides.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import transport as transports
import rabbit_node
import thin_driver
import zmq

TOPIC = 'limit'
ENDPOINT = 'ipc://{}/{}'

#: Answers each message with its header.
ECHO = """
import sys
import zmq
socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1])
print('ready', flush=True)
while True:
    address, header, _ = socket.recv_multipart()
    socket.send_multipart([address, header])
"""

#: A listener, or a server of fanouts, of a transport URL.
SERVE = """
import sys
from oslo_config import cfg
import oslo_messaging
sys.path.insert(0, sys.argv[4])
class Endpoint:
    def info(self, *args):
        pass
    def told(self, ctxt, payload):
        pass
cfg.CONF([], project='measure')
url, kind, name = sys.argv[1:4]
target = oslo_messaging.Target(topic='limit', server=name)
if kind == 'notify':
    transport = oslo_messaging.get_notification_transport(cfg.CONF, url)
    server = oslo_messaging.get_notification_listener(
        transport, [target], [Endpoint()], executor='threading')
else:
    if kind == 'thin':
        import thin_driver
        transport = thin_driver.make_transport(cfg.CONF, url)
    else:
        transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    server = oslo_messaging.get_rpc_server(
        transport, target, [Endpoint()], executor='threading')
server.start()
print('ready', flush=True)
sys.stdin.read()
"""


class Nothing(thin_driver.Driver):
    """Sends nothing."""

    def send_notification(self, target, ctxt, message, version, retry=None):
        pass


class Thin(thin_driver.Driver):
    """Sends to all of its endpoints and waits for an answer of each."""

    def __init__(self, conf, *endpoints):
        super().__init__(conf, endpoints[0])
        self._sockets = []
        for endpoint in endpoints:
            socket = zmq.Context.instance().socket(zmq.DEALER)
            socket.connect(endpoint)
            self._sockets.append(socket)

    def send(self, target, ctxt, message, **options):
        body = json.dumps([ctxt, message]).encode()
        for socket in self._sockets:
            socket.send(thin_driver.HEADER, thin_driver.MORE)
            socket.send(body, thin_driver.NOBLOCK)
        for socket in self._sockets:
            socket.recv_multipart()

    def send_notification(self, target, ctxt, message, version, retry=None):
        self.send(target, ctxt, message)


def start(stack, program, *arguments):
    """Start a process that is killed in the end; wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    stack.callback(process.stdout.close)
    stack.callback(process.stdin.close)
    stack.callback(process.wait)
    stack.callback(process.kill)
    process.stdout.readline()


def serve(stack, url, kind, names=('one',)):
    for name in names:
        start(
            stack, SERVE, url, kind, name, str(pathlib.Path(__file__).parent)
        )


def notify_by(transport, size):
    notifier = oslo_messaging.Notifier(
        transport, publisher_id='p', driver='messagingv2', topics=[TOPIC]
    )
    body = 'x' * size
    return lambda: notifier.info({}, 'event', body)


def notifications(stack, place, arguments):
    """Return what sends one notification, by variant."""
    size, conf = arguments.size, cfg.CONF
    echo = ENDPOINT.format(place, 'echo')
    start(stack, ECHO, echo)
    raw = zmq.Context.instance().socket(zmq.DEALER)
    raw.connect(echo)
    stack.callback(raw.close, 0)
    frames = thin_driver.HEADER, b'x' * size

    def ping():
        raw.send(frames[0], thin_driver.MORE)
        raw.send(frames[1])
        raw.recv()

    variants = {
        'oslo.messaging': notify_by(
            transports.NotificationTransport(Nothing(conf, echo)), size
        ),
        'raw': ping,
        'thin': notify_by(
            transports.NotificationTransport(Thin(conf, echo)), size
        ),
    }
    for name, url in arguments.urls.items():
        serve(stack, url, 'notify')
        transport = oslo_messaging.get_notification_transport(conf, url)
        variants[name] = notify_by(transport, size)
    return variants


def fanout_by(transport, size):
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=TOPIC, fanout=True)
    )
    body = 'x' * size
    return lambda: client.cast({}, 'told', payload=body)


def fanouts(stack, place, arguments):
    """Return what sends one fanout, by variant."""
    size, conf = arguments.size, cfg.CONF
    names = [f's{n}' for n in range(arguments.servers)]
    endpoints = [ENDPOINT.format(place, name) for name in names]
    for endpoint in endpoints:
        serve(stack, endpoint, 'thin')
    variants = {
        'thin': fanout_by(
            transports.RPCTransport(Thin(conf, *endpoints)), size
        )
    }
    # rabbit's fanouts are not acknowledged by servers; see `bench`.
    url = arguments.urls['zmq']
    serve(stack, url, 'rpc', names)
    transport = oslo_messaging.get_rpc_transport(conf, url)
    variants['zmq'] = fanout_by(transport, size)
    return variants


def rate(send, seconds):
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        send()
        count += 1
    return count / (time.perf_counter() - begin)


def compare(title, variants, arguments):
    rates = {name: [] for name in variants}
    for send in variants.values():
        rate(send, 0.5)
    for _ in range(arguments.rounds):
        for name, send in variants.items():
            rates[name].append(rate(send, arguments.seconds))
    last = rates[next(reversed(rates))]
    print(f'{title}, {arguments.size} bytes, {arguments.rounds} rounds:')
    for name, found in rates.items():
        middle = statistics.median(found)
        ratio = statistics.median(
            a / b for a, b in zip(found, last, strict=True)
        )
        print(
            f'  {name:15} {middle:9.0f}/s {1e6 / middle:9.1f} us '
            f'{ratio:7.2f} times the last one'
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seconds', type=float, default=1.0)
    parser.add_argument('--rounds', type=int, default=6)
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--servers', type=int, default=8)
    parser.add_argument('--no-rabbit', action='store_true')
    arguments = parser.parse_args()
    cfg.CONF([], project='measure')
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix='zl'))
        arguments.urls = {'zmq': f'zmq:///?rpc_zmq_ipc_dir={place}/ipc'}
        pathlib.Path(place, 'ipc').mkdir(mode=0o700)
        if not arguments.no_rabbit:
            node = stack.enter_context(rabbit_node.RabbitNode())
            arguments.urls['rabbit'] = node.url
        with contextlib.ExitStack() as running:
            variants = notifications(running, place, arguments)
            compare('notifications', variants, arguments)
        with contextlib.ExitStack() as running:
            variants = fanouts(running, place, arguments)
            compare('fanouts', variants, arguments)
        sys.stdout.flush()
    # Threads of drivers that wait for nobody any more.
    os._exit(0)


if __name__ == '__main__':
    main()
