# SPDX-License-Identifier: Apache-2.0
"""The one zmq context of a driver instance in one process."""

import logging

import zmq

from zmq_driver import clock
from zmq_driver import resolver
from zmq_driver import threads

LOG = logging.getLogger(__name__)


class DriverContext:
    """Owns the context; every socket of the driver is made here.

    Thread: any.
    """

    def __init__(
        self, driver_id: str, io_threads: int, max_sockets: int
    ) -> None:
        """Make the context.

        :param driver_id: names the thread that ends the context
        :param io_threads: libzmq's ZMQ_IO_THREADS
        :param max_sockets: the most sockets that will be open at once
        """
        self._driver_id = driver_id
        self._context = zmq.Context(io_threads)
        # libzmq counts sockets that are still being closed as open. One that
        # connects over TCP has two more meanwhile, for its monitor.
        self._context.set(zmq.MAX_SOCKETS, 4 * max_sockets + 64)
        #: Finds the addresses of hosts.
        self.resolver = resolver.Resolver(driver_id)
        self._term: threads.ServiceThread | None = None

    def socket(self, kind: int) -> 'zmq.Socket[bytes]':
        """Open a socket; the calling thread owns it.

        :param kind: zmq.DEALER, zmq.ROUTER or zmq.PAIR
        :raises zmq.ZMQError: no descriptor is left (EMFILE)
        """
        return self._context.socket(kind)

    def close(self, deadline: clock.Deadline) -> bool:
        """End the context once its sockets are closed.

        ``zmq_ctx_term`` waits for every open socket and has no time-out, so
        it runs on a thread of its own.

        :returns: whether it ended before the deadline
        """
        self.resolver.close()
        if self._term is None:
            self._term = threads.ServiceThread(
                'term', self._driver_id, self._context.term
            )
            self._term.start()
        ended = self._term.join(deadline.left())
        if not ended:
            LOG.warning(
                'the zmq context of driver %s still has open sockets '
                'after %.1f s; it ends when they are closed',
                self._driver_id,
                deadline.timeout,
            )
        return ended
