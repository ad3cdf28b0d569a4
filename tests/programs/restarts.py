# SPDX-License-Identifier: Apache-2.0
"""A server that is killed and started again, as often as it is asked for.

Starting Python with oslo.messaging takes longer than a second, so this process
has imported everything and forks one child after the other. It prints JSON
lines: ``{"ready": true}``, then for each line of its input::

    start   {"started 1": pid}, once the first child can be reached
    kill    {"killed 1": pid}, once it was killed (SIGKILL) and is gone

It ends at the end of its input, or at the line ``stop``; a child never
outlives it.
"""

import argparse
import os
import signal
import sys
import threading

from oslo_config import cfg
import oslo_messaging
import zmq

from tests.programs import server as programs

#: What an echoing peer does not send back.
HOLD = b'hold'


class Echo:
    """A ROUTER that sends back what it gets."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def serve(self, reachable):
        router = zmq.Context().socket(zmq.ROUTER)
        router.set(zmq.LINGER, 0)
        router.set(zmq.BACKLOG, 1024)
        router.bind(self._endpoint)
        reachable()
        while True:
            frames = router.recv_multipart()
            # An empty one says that there is a connection (WP-26).
            if frames[1] not in (HOLD, b''):
                router.send_multipart(frames)


class Rpc:
    """The RPC server of :mod:`tests.programs.server`."""

    def __init__(self, url, topic):
        self._url = url
        self._topic = topic

    def serve(self, reachable):
        conf = cfg.CONF
        conf([], project='zmq-driver-tests')
        transport = oslo_messaging.get_rpc_transport(conf, self._url)
        server = oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic=self._topic, server='server'),
            [programs.Endpoint('server')],
            executor='threading',
            access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        )
        server.start(override_pool_size=16)
        reachable()
        threading.Event().wait()


class Child:
    """One life of the server."""

    def __init__(self, number, server):
        self._number = number
        sys.stdout.flush()
        # Readable for the child when its parent is gone, however.
        end, self._life = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._life)
            self._live(end, server)
        os.close(end)

    def _live(self, end, server):
        try:
            threading.Thread(target=_end_with, args=[end], daemon=True).start()
            server.serve(self._tell)
        finally:
            sys.stderr.flush()
            os._exit(1)

    def _tell(self):
        programs.tell(**{f'started {self._number}': os.getpid()})

    def kill(self):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._life)
        programs.tell(**{f'killed {self._number}': self._pid})


def _end_with(pipe):
    os.read(pipe, 1)
    os._exit(0)


def run(server):
    programs.tell(ready=True)
    number = 0
    child = None
    for line in sys.stdin:
        command = line.strip()
        if command == 'start':
            number += 1
            child = Child(number, server)
        elif command == 'kill':
            child.kill()
            child = None
        elif command == 'stop':
            break
    if child is not None:
        child.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--echo', metavar='ENDPOINT')
    parser.add_argument('--url')
    parser.add_argument('--topic')
    args = parser.parse_args()
    run(Echo(args.echo) if args.echo else Rpc(args.url, args.topic))


if __name__ == '__main__':
    main()
