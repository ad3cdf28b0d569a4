# SPDX-License-Identifier: Apache-2.0
"""Many peers in one process: ROUTER sockets that send back what they get.

Prints their endpoints in one JSON line, ``{"ready": [...]}``, and ends at the
end of its input, or at the line ``stop``.
"""

import json
import sys
import threading

import zmq

#: Milliseconds between two looks at whether to end.
LOOK_MS = 100


def serve(sockets, end):
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    while not end.is_set():
        for socket, _ in poller.poll(LOOK_MS):
            frames = socket.recv_multipart()
            # An empty one says that there is a connection (WP-26).
            if frames[1]:
                socket.send_multipart(frames)


def main(count):
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + 8)
    sockets = []
    for _ in range(count):
        socket = context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.bind('tcp://127.0.0.1:*')
        sockets.append(socket)
    end = threading.Event()
    thread = threading.Thread(target=serve, args=(sockets, end))
    thread.start()
    endpoints = [s.get(zmq.LAST_ENDPOINT).decode() for s in sockets]
    print(json.dumps({'ready': endpoints}), flush=True)
    for line in sys.stdin:
        if line.strip() == 'stop':
            break
    end.set()
    thread.join(10)
    for socket in sockets:
        socket.close()
    context.term()


if __name__ == '__main__':
    main(int(sys.argv[1]))
