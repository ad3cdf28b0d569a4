# SPDX-License-Identifier: Apache-2.0
"""Closing a socket of which something may still have to be sent."""

import logging

import zmq

from zmq_driver import context as context_
from zmq_driver import socket_options

LOG = logging.getLogger(__name__)

#: Milliseconds by which libzmq may be late when it stops to linger.
MARGIN_MS = 200


def close_when_sent(
    context: context_.DriverContext, socket: 'zmq.Socket[bytes]', linger: float
) -> None:
    """Close *socket*, and wait until what was sent has gone out.

    libzmq sends it on a thread of its own, for which the end of a process
    does not wait.

    :param linger: the seconds after which libzmq gives up; the wait ends
        soon after them
    """
    try:
        socket.set(zmq.LINGER, socket_options.milliseconds(linger))
        end = _watch_end(context, socket)
    except zmq.ZMQError as error:
        # No descriptor is left, or the context ends, which waits too.
        LOG.debug('a socket is closed unwatched: %s', error)
        socket.close()
        return
    socket.close()
    try:
        end.poll(socket_options.milliseconds(linger) + MARGIN_MS)
    except zmq.ContextTerminated:
        LOG.debug('a socket is closed by the end of its context')
    finally:
        end.close(0)


def _watch_end(
    context: context_.DriverContext, socket: 'zmq.Socket[bytes]'
) -> 'zmq.Socket[bytes]':
    """Return a socket that gets a message when libzmq is done."""
    end = context.socket(zmq.PAIR)
    try:
        name = f'inproc://end-of-{id(socket)}'
        socket.monitor(name, int(zmq.EVENT_MONITOR_STOPPED))
        end.connect(name)
    except BaseException:
        end.close(0)
        raise
    return end
