# SPDX-License-Identifier: Apache-2.0
"""A pool of sockets, one peer per socket, each leased to one thread.

The pool knows nothing of oslo, of matchmakers or of the wire: it is given a
factory that opens a socket to a peer.
"""

from zmq_driver.pool.entry import PoolSocket
from zmq_driver.pool.errors import LeaseEnded
from zmq_driver.pool.errors import PoolClosed
from zmq_driver.pool.errors import PoolError
from zmq_driver.pool.errors import PoolTimeout
from zmq_driver.pool.errors import TooManyWaiters
from zmq_driver.pool.events import EventKind
from zmq_driver.pool.events import PoolEvent
from zmq_driver.pool.lease import AbandonedLease
from zmq_driver.pool.lease import SocketLease
from zmq_driver.pool.options import PoolOptions
from zmq_driver.pool.socket_pool import SocketPool
from zmq_driver.pool.state import EvictReason
from zmq_driver.pool.state import PoolState
from zmq_driver.pool.stats import FIGURES
from zmq_driver.pool.stats import PoolStats

__all__ = [
    'FIGURES',
    'AbandonedLease',
    'EventKind',
    'EvictReason',
    'LeaseEnded',
    'PoolClosed',
    'PoolError',
    'PoolEvent',
    'PoolOptions',
    'PoolSocket',
    'PoolState',
    'PoolStats',
    'PoolTimeout',
    'SocketLease',
    'SocketPool',
    'TooManyWaiters',
]
