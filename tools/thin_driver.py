# SPDX-License-Identifier: Apache-2.0
"""The thinnest driver that oslo.messaging can have over ZeroMQ.

It exists to be measured: what it costs is what oslo.messaging, its executor
and the sockets cost. It has one fixed endpoint, no pool, no discovery, no
time-out, no error handling and no second server, and is good for nothing
else.
"""

import json
import os
import select
import threading

import oslo_messaging
from oslo_messaging import transport
from oslo_messaging._drivers import base
import zmq

NOBLOCK = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)

HEADER = b'h' * 60


class Incoming(base.RpcIncomingMessage):
    def __init__(self, listener, routing_id, ctxt, message):
        super().__init__(ctxt, message)
        self.msg_id = '0'
        self._listener = listener
        self._routing_id = routing_id

    def acknowledge(self):
        pass

    def requeue(self):
        pass

    def heartbeat(self):
        pass

    def reply(self, reply=None, failure=None):
        self._listener.send(self._routing_id, json.dumps(reply).encode())


class Listener(base.Listener):
    def __init__(self, endpoint):
        super().__init__(1, None)
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.bind(endpoint)
        self._lock = threading.Lock()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK)

    def start(self, on_incoming_callback):
        super().start(on_incoming_callback)
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, routing_id, content):
        with self._lock:
            self._socket.send(routing_id, MORE)
            self._socket.send(HEADER, MORE)
            self._socket.send(content, NOBLOCK)
            signal_taken = self._socket.get(EVENTS) & POLLIN
        if signal_taken:
            os.eventfd_write(self._wakeup, 1)

    def _receive(self):
        with self._lock:
            if not self._socket.get(EVENTS) & POLLIN:
                return None
            return [self._socket.recv(NOBLOCK) for _ in range(3)]

    def _run(self):
        poll = select.poll()
        poll.register(self._socket.get(zmq.FD), select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            while (frames := self._receive()) is not None:
                ctxt, message = json.loads(frames[2])
                self.on_incoming_callback(
                    [Incoming(self, frames[0], ctxt, message)]
                )
            if any(fd == self._wakeup for fd, _ in poll.poll(5000)):
                os.eventfd_read(self._wakeup)

    def cleanup(self):
        pass


class Driver(base.BaseDriver):
    def __init__(self, conf, endpoint):
        url = oslo_messaging.TransportURL.parse(conf, 'fake://')
        super().__init__(conf, url)
        self._endpoint = endpoint
        self._local = threading.local()

    def send(
        self,
        target,
        ctxt,
        message,
        wait_for_reply=None,
        timeout=None,
        call_monitor_timeout=None,
        retry=None,
        transport_options=None,
    ):
        socket = getattr(self._local, 'socket', None)
        if socket is None:
            socket = zmq.Context.instance().socket(zmq.DEALER)
            socket.connect(self._endpoint)
            self._local.socket = socket
        socket.send(HEADER, MORE)
        socket.send(json.dumps([ctxt, message]).encode(), NOBLOCK)
        socket.recv()
        return json.loads(socket.recv())

    def send_notification(self, target, ctxt, message, version, retry=None):
        raise NotImplementedError

    def listen(self, target, batch_size, batch_timeout):
        return Listener(self._endpoint)

    def listen_for_notifications(
        self, targets_and_priorities, pool, batch_size, batch_timeout
    ):
        raise NotImplementedError

    def cleanup(self):
        pass


def make_transport(conf, endpoint):
    return transport.RPCTransport(Driver(conf, endpoint))
