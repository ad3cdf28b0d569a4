#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the driver's own Python in a call, with nothing to wait for.

usage: measure_python.py [--size BYTES] [--rounds N]
                         [--profile client|server]

One process plays both sides, with sockets that only remember: no libzmq, no
kernel, no second thread, and of oslo.messaging only what the driver calls
itself. Printed is the fastest of many rounds, which hardly depends on what
else the machine does, so that even a small gain can be seen. Caches are warm
here; in a real call, with its seven switches between threads, the same code
takes up to twice as long (profile_call.py).

To compare two versions, run it alternately with PYTHONPATH set to each.
"""

import argparse
import cProfile
import gc
import os
import pstats
import sys
import time

from oslo_config import cfg
import oslo_messaging

from zmq_driver import body
from zmq_driver import driver
from zmq_driver import envelope
from zmq_driver import sockets
from zmq_driver.client import exchange

# Few enough for a round to be over before the thread is put to sleep.
LOOPS = 50
ROUTING_ID = b'\0abcd'


class Side:
    """The client and the server of one call."""

    def __init__(self, size):
        self.payload = 'x' * size
        self.limit = 10 * size + 10_000
        self.message = {
            'method': 'echo',
            'args': {'payload': self.payload},
            'version': '1.0',
        }
        self.answer = body.encode_reply(self.payload, self.limit)
        self.sent = ()
        self.handed = []
        self._ids = exchange.MessageIds()
        self._replace_sockets()
        url = oslo_messaging.TransportURL.parse(cfg.CONF, 'zmq://')
        self._driver = driver.ZmqDriver(cfg.CONF, url, 'measure')
        self._target = oslo_messaging.Target(topic='python')
        listener = self._driver.listen(
            oslo_messaging.Target(topic='python', server='s'), 1, None
        )
        listener.start(self.handed.extend)
        self.call()
        self._router = self._driver.runtime().reception.router
        self._router._channel.send = lambda frames: None

    def _replace_sockets(self):
        def healthy(mine):
            mine.check_owner()
            return True

        def send(mine, frames):
            mine.check_owner()
            self.sent = frames

        def receive(mine, timeout):
            mine.check_owner()
            message_id = self.sent[0][8 : envelope.FROZEN_SIZE]
            return [envelope.encode_reply(message_id), self.answer]

        sockets.PeerSocket.wait_connected = lambda mine, timeout: True
        sockets.PeerSocket.healthy = healthy
        sockets.PeerSocket.send = send
        sockets.PeerSocket.receive = receive

    def call(self):
        return self._driver.send(
            self._target, {}, self.message, wait_for_reply=True, timeout=60
        )

    def serve(self):
        header, content = self.sent
        fresh = header[:8] + self._ids.next() + header[envelope.FROZEN_SIZE :]
        self._router._receive([ROUTING_ID, fresh, content])
        incoming = self.handed.pop()
        incoming.acknowledge()
        incoming.reply(self.payload)

    def decode_request(self):
        body.decode_request(self.sent[1])

    def encode_request(self):
        body.encode_request({}, self.message, self.limit)

    def decode_reply(self):
        body.decode_reply(self.answer)

    def encode_reply(self):
        body.encode_reply(self.payload, self.limit)


def fastest(function, rounds):
    """Return the microseconds of one call in the fastest round."""
    for _ in range(LOOPS):
        function()
    best = float('inf')
    gc.disable()
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(LOOPS):
            function()
        best = min(best, time.perf_counter() - begun)
    gc.enable()
    return best / LOOPS * 1e6


def show_profile(function):
    profile = cProfile.Profile()
    profile.runcall(lambda: [function() for _ in range(100 * LOOPS)])
    pstats.Stats(profile).sort_stats('tottime').print_stats(40)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, default=3200)
    parser.add_argument('--rounds', type=int, default=400)
    parser.add_argument('--profile', choices=('client', 'server'))
    args = parser.parse_args()
    cfg.CONF([], project='measure')
    side = Side(args.size)
    works = {'client': side.call, 'server': side.serve}
    if args.profile:
        show_profile(works[args.profile])
        return
    codecs = {
        'client': (side.encode_request, side.decode_reply),
        'server': (side.decode_request, side.encode_reply),
    }
    whole = 0.0
    for name, work in works.items():
        us = fastest(work, args.rounds)
        codec = sum(fastest(half, args.rounds) for half in codecs[name])
        print(f'{name}: {us:5.1f} us, of which JSON {codec:4.1f} us')
        whole += us
    print(f'together: {whole:.1f} us for a call of {args.size} bytes')


if __name__ == '__main__':
    main()
    # What was replaced cannot be ended in an orderly way.
    sys.stdout.flush()
    os._exit(0)
