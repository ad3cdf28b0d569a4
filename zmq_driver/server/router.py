# SPDX-License-Identifier: Apache-2.0
"""The router thread: receives for all listeners of a driver.

It lives from the first listener until the driver's cleanup, longer than any
server, because replies are still made after a server was stopped.
"""

from collections.abc import Callable
from collections.abc import Sequence
import logging
import os
import threading

import zmq

from zmq_driver import body as body_
from zmq_driver import clock
from zmq_driver import context as context_
from zmq_driver import counters as counters_
from zmq_driver import envelope
from zmq_driver import errors
from zmq_driver import farewell
from zmq_driver import inherited
from zmq_driver import socket_options
from zmq_driver import sockets
from zmq_driver import threads
from zmq_driver.server import abandoned
from zmq_driver.server import admission
from zmq_driver.server import channel as channel_
from zmq_driver.server import leaving
from zmq_driver.server import recent as recent_
from zmq_driver.server import settlement
from zmq_driver.server import sink as sink_
from zmq_driver.server import stall
from zmq_driver.server import unheard

LOG = logging.getLogger(__name__)

#: What libzmq sends over a connection before anything else (PROBE_ROUTER).
_NEW_CONNECTION = [b'']
#: Seconds of rest after an error that nobody expected.
ERROR_PAUSE = 0.1


class Router:
    """Runs the router thread.

    Thread: any.
    """

    def __init__(
        self,
        driver_id: str,
        context: context_.DriverContext,
        endpoint: str,
        options: socket_options.SocketOptions,
        counters: counters_.Counters,
        bind_tcp: Callable[[sockets.RouterSocket], str] | None = None,
        recent: recent_.Recent | None = None,
    ) -> None:
        """Describe the router; nothing is opened yet.

        :param endpoint: where to bind, ``ipc://`` followed by a path
        :param bind_tcp: binds the socket for other hosts too, and returns
            the endpoint that they connect to; None: nobody else is to come
        :param recent: the memory of requests; None: one with the defaults
        """
        self.endpoint = endpoint
        #: The endpoint for other hosts once the router runs; '' if none.
        self.tcp_endpoint = ''
        #: Where it is bound for them, as libzmq spells it; '' if nowhere.
        self.tcp_bound = ''
        self._bind_tcp = bind_tcp
        self._pid = os.getpid()
        self._context = context
        self._options = options
        self._counters = counters
        self._recent = recent or recent_.Recent()
        #: What the router thread does for messages that were dropped.
        self.abandoned = abandoned.Abandoned()
        self._stall = stall.Stall(counters)
        #: What was dealt with, and its sender does not know.
        self.unheard = unheard.Unheard()
        #: Answers what was taken.
        self.settlement = settlement.Settlement(
            self._recent, counters, self.send
        )
        self._admission = admission.Admission(
            self._recent,
            self._stall,
            self.unheard,
            counters,
            self._deliver,
            self.send,
        )
        self._lock = threading.Lock()
        # Replaced as a whole under the lock, read without it.
        self._sinks: dict[bytes, sink_.Sink] = {}
        # Monotonic seconds when the last one of them left; or the beginning.
        self._detached_at = clock.monotonic()
        self._leaving = False
        # Set by detach(), which waits until the router thread has passed.
        self._passing: list[threading.Event] = []
        self._channel: channel_.Channel | None = None
        self._farewell = farewell.Farewell()
        self._ending = leaving.AT_ONCE
        self._stop_requested = threading.Event()
        self._bound = threading.Event()
        self._bind_error: Exception | None = None
        self._thread = threads.ServiceThread('router', driver_id, self._run)

    def start(self, deadline: clock.Deadline) -> None:
        """Start the thread and wait until its socket is bound.

        :raises errors.ListenFailure: it could not be bound
        """
        self._thread.start()
        if not self._bound.wait(deadline.left()):
            raise errors.ListenFailure(
                f'{self.endpoint} was not bound in {deadline.timeout} s'
            )
        if isinstance(self._bind_error, errors.ListenFailure):
            raise self._bind_error
        if self._bind_error is not None:
            raise errors.ListenFailure(
                f'cannot listen at {self.endpoint}: {self._bind_error}'
            ) from self._bind_error

    def attach(self, sink: sink_.Sink) -> None:
        """Deliver to *sink* from now on.

        :raises errors.DriverClosed: the router has been asked to end
        """
        with self._lock:
            if self._leaving or self._stop_requested.is_set():
                raise errors.DriverClosed('the transport was cleaned up')
            self._sinks = {**self._sinks, sink.incarnation: sink}

    def attach_no_more(self) -> None:
        """Refuse listeners that are started late: the driver ends."""
        with self._lock:
            self._leaving = True

    def detach(self, sink: sink_.Sink, deadline: clock.Deadline) -> None:
        """Deliver to *sink* no more, also not in this very moment."""
        with self._lock:
            others = {
                incarnation: other
                for incarnation, other in self._sinks.items()
                if other is not sink
            }
            if len(others) < len(self._sinks):
                self._detached_at = clock.monotonic()
            self._sinks = others
            passed = threading.Event()
            self._passing.append(passed)
            channel = self._channel
        if channel is not None and not self._thread.is_current():
            channel.wake()
            passed.wait(deadline.left())

    def send(
        self, routing_id: bytes, header: bytes, body: bytes = b''
    ) -> None:
        """Send a message to the connection *routing_id*, or drop it.

        It works from any thread until the driver's cleanup.
        """
        channel = self._channel
        if self._is_forked():
            # Its locks may be held by a thread that the child has not.
            return
        if channel is None:
            self._counters.add('replies_unroutable')
        else:
            channel.send((routing_id, header, body))

    def reply(
        self, record: recent_.Record, header: bytes, body: bytes
    ) -> None:
        """Send the answer of a call to whoever waits for it, and keep it.

        It works from any thread until the driver's cleanup.
        """
        if self._is_forked():
            return
        self.send(self._recent.finish(record, (header, body)), header, body)

    def _is_forked(self) -> bool:
        """Return whether a method forked: all this is the parent's."""
        return os.getpid() != self._pid

    def stop(
        self,
        deadline: clock.Deadline,
        ending: leaving.Ending = leaving.AT_ONCE,
    ) -> bool:
        """Send what is queued, close the socket and end the thread.

        :returns: whether the thread ended before the deadline
        """
        self.begin_stop(ending)
        return self.join(deadline)

    def begin_stop(self, ending: leaving.Ending = leaving.AT_ONCE) -> None:
        """Let the thread end, but do not wait for it; see :meth:`stop`."""
        self._ending = ending
        self._stop_requested.set()
        channel = self._channel
        if channel is not None:
            channel.wake()

    def join(self, deadline: clock.Deadline) -> bool:
        """Wait for the end of the thread; return whether it has ended."""
        return self._thread.join(deadline.left())

    def forget(self) -> None:
        """Close what a forked child has of the endpoints of its parent."""
        inherited.close_sockets(self.endpoint, self.tcp_bound)

    # What follows runs on the router thread.

    def _run(self) -> None:
        try:
            channel = self._open()
        except Exception as error:
            self._bind_error = error
            self._bound.set()
            return
        self._channel = channel
        try:
            self._bound.set()
            self._loop(channel)
        finally:
            self._end(channel)

    def _end(self, channel: channel_.Channel) -> None:
        """Take nothing more, take leave, and close the socket."""
        with self._lock:
            # From here on nobody is attached.
            self._stop_requested.set()
            alone = 0.0
            if not self._sinks:
                alone = clock.monotonic() - self._detached_at
            self._sinks = {}
        try:
            leaving.refuse_rest(channel, self._receive, alone)
            self.abandoned.settle()
            if self._ending.all_done():
                channel.take_leave(self._farewell.messages())
        finally:
            with self._lock:
                self._channel = None
            try:
                channel.close(self._ending.sending)
            finally:
                self._pass()

    def _open(self) -> channel_.Channel:
        socket = sockets.RouterSocket(
            self._context, self.endpoint, self._options
        )
        try:
            if self._bind_tcp is not None:
                self.tcp_endpoint = self._bind_tcp(socket)
                self.tcp_bound = socket.bound_to()
            return channel_.Channel(socket, self._counters, self.unheard.lost)
        except BaseException:
            # No descriptor is left for the wake-up.
            socket.close()
            raise

    def _loop(self, channel: channel_.Channel) -> None:
        while not self._stop_requested.is_set():
            try:
                self._pass()
                while (frames := self._look(channel)) is not None:
                    self._receive(frames)
                    if self._is_wanted():
                        break
                else:
                    self._recent.expire()
                    channel.wait(self._is_wanted)
            except zmq.ContextTerminated:
                return
            except Exception:
                # One bad message or listener must not end the service.
                LOG.exception(
                    'the router at %s goes on after an unexpected error',
                    self.endpoint,
                )
                self._stop_requested.wait(ERROR_PAUSE)

    def _look(self, channel: channel_.Channel) -> list[bytes] | None:
        self.abandoned.settle()
        frames = channel.receive()
        self._stall.look(frames is not None)
        return frames

    def _is_wanted(self) -> bool:
        """Return whether somebody waits for this thread."""
        return bool(self._passing) or self._stop_requested.is_set()

    def _pass(self) -> None:
        """Tell those who wait for it that no listener is being called."""
        with self._lock:
            passing, self._passing = self._passing, []
        for passed in passing:
            passed.set()

    def _receive(self, frames: Sequence[bytes]) -> None:
        routing_id = frames[0]
        if frames[1:] == _NEW_CONNECTION:
            self._farewell.heard(routing_id)
            return
        try:
            message = envelope.decode(frames[1:])
        except envelope.UnsupportedVersion as error:
            self._undecodable(error)
            if error.kind == envelope.Kind.REQUEST:
                self._counters.add('messages_refused')
                nack = envelope.encode_nack(
                    error.message_id, envelope.NackReason.UNSUPPORTED_VERSION
                )
                self.send(routing_id, nack)
            return
        except envelope.DecodeError as error:
            self._undecodable(error)
            return
        header = message.header
        self._farewell.heard(routing_id)
        if header.kind is not envelope.Kind.REQUEST:
            self._undecodable(f'{header.kind.name} is nothing for a server')
            return
        if header.codec == envelope.CODEC_NONE:
            # A probe: that the listener is here is all that it asks for.
            found = self._find(header) is not None
            reason = None if found else envelope.NackReason.UNKNOWN_TARGET
        else:
            reason = self._admission.admit(routing_id, message)
        if reason is not None:
            self._counters.add('messages_refused')
            answer = envelope.encode_nack(header.message_id, reason)
        elif admission.is_acknowledged_now(header):
            answer = envelope.encode_ack(header.message_id)
        else:
            return
        self.send(routing_id, answer)

    def _deliver(
        self, record: recent_.Record, message: envelope.Message
    ) -> envelope.NackReason | None:
        header = message.header
        sink = self._find(header)
        if sink is None:
            return envelope.NackReason.UNKNOWN_TARGET
        try:
            ctxt, payload = body_.decode_request(message.body)
        except body_.BodyDecodeError as error:
            self._undecodable(error)
            return envelope.NackReason.UNDECODABLE
        try:
            reason = sink.deliver(
                sink_.Delivery(record, header, message.body, ctxt, payload)
            )
        except Exception:
            LOG.exception('message %s was not taken', header.message_id.hex())
            reason = envelope.NackReason.FAILED
        if reason is None:
            self._counters.add('messages_received')
        return reason

    def _find(self, header: envelope.Header) -> sink_.Sink | None:
        """Return the listener that a request is for, and only that one."""
        if header.incarnation != envelope.ANY_INCARNATION:
            sink = self._sinks.get(header.incarnation)
            return sink if sink is not None and sink.serves(header) else None
        for sink in self._sinks.values():
            if sink.serves(header):
                return sink
        return None

    def _undecodable(self, problem: object) -> None:
        text = 'dropped a message that is not ours, received at %s: %s'
        self._counters.add_undecodable(text, self.endpoint, problem)
