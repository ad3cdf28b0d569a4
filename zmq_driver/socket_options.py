# SPDX-License-Identifier: Apache-2.0
"""How the sockets of a driver are configured, and why.

Seconds become libzmq's milliseconds here and nowhere else.
"""

import dataclasses
import math

import zmq

#: libzmq's ZMQ_BACKLOG; its default of 100 is too small for the moment when
#: a restarted server meets all its clients again.
LISTEN_BACKLOG = 4096

#: Messages that libzmq holds for one connection, besides what fits into the
#: buffers of the kernel: received by a server and not read yet, and sent and
#: not gone. Our clients have one request under way on a connection, so only a
#: stranger can fill it; but for streams, which have no heartbeats therefore.
PIPE_RECEIVED = 4
PIPE_SENT = 16
#: The same where many are sent at once: more than twice as many (stream).
PIPE_STREAMED = 1024


@dataclasses.dataclass(frozen=True)
class Keepalive:
    """How the kernel probes TCP connections, if it does.

    What is 0 or less is left as the system is configured.

    Thread: any (immutable).
    """

    on: bool = False
    #: Seconds without traffic before the first probe.
    idle: int = 0
    #: Probes without an answer that end the connection.
    count: int = 0
    #: Seconds between two probes.
    interval: int = 0


@dataclasses.dataclass(frozen=True)
class SocketOptions:
    """How sockets are configured; all times in seconds.

    Thread: any (immutable).
    """

    heartbeat_interval: float
    heartbeat_timeout: float
    connect_timeout: float
    linger: float
    max_message_size: int
    keepalive: Keepalive = Keepalive()


#: How a server notices clients whose host has gone: within two minutes, which
#: frees a descriptor and nothing else, because answers to them are dropped.
CLIENTS_ALIVE = Keepalive(on=True, idle=60, count=6, interval=10)


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, rounded up."""
    return math.ceil(seconds * 1000)


def configure(socket: 'zmq.Socket[bytes]', options: SocketOptions) -> None:
    """Set what every socket has."""
    socket.set(zmq.LINGER, milliseconds(options.linger))
    socket.set(zmq.HANDSHAKE_IVL, milliseconds(options.connect_timeout))
    # A frame is a header or a body; the header is small.
    socket.set(zmq.MAXMSGSIZE, options.max_message_size)
    socket.set(zmq.SNDHWM, PIPE_SENT)
    socket.set(zmq.IPV6, 1)


def configure_heartbeats(
    socket: 'zmq.Socket[bytes]', options: SocketOptions
) -> None:
    """Have libzmq notice a peer that says nothing.

    A socket that does so must never stop to receive: libzmq aborts the
    process if a connection is lost while its pipe is full and a heartbeat
    falls due (libzmq issues 3937 and 4364, not mended in 4.3.5). So it has
    no bound, which only a hostile server could make use of.
    """
    socket.set(zmq.HEARTBEAT_IVL, milliseconds(options.heartbeat_interval))
    socket.set(zmq.HEARTBEAT_TIMEOUT, milliseconds(options.heartbeat_timeout))
    socket.set(zmq.RCVHWM, 0)


def configure_keepalive(
    socket: 'zmq.Socket[bytes]', keepalive: Keepalive
) -> None:
    """Have the kernel probe TCP connections, if *keepalive* says so."""
    if not keepalive.on:
        return
    socket.set(zmq.TCP_KEEPALIVE, 1)
    for option, value in (
        (zmq.TCP_KEEPALIVE_IDLE, keepalive.idle),
        (zmq.TCP_KEEPALIVE_CNT, keepalive.count),
        (zmq.TCP_KEEPALIVE_INTVL, keepalive.interval),
    ):
        if value > 0:
            socket.set(option, value)
