# SPDX-License-Identifier: Apache-2.0
"""What a pool raises.

::

    Exception
    +-- PoolError             no socket; nothing was sent
    |   +-- PoolTimeout       none came free before the deadline
    |   +-- PoolClosed        the pool is closing, closed or inherited
    |   +-- TooManyWaiters    the wait queue is full
    +-- RuntimeError
        +-- LeaseEnded        a lease was used after its end (a defect)
        +-- OwnershipError    a lease was used by another thread (a defect);
                              from zmq_driver.ownership
"""


class PoolError(Exception):
    """The pool gave no socket, so nothing was sent."""


class PoolTimeout(PoolError):
    """No socket came free before the deadline."""


class PoolClosed(PoolError):
    """The pool gives out no sockets any more."""


class TooManyWaiters(PoolError):
    """As many threads as may wait for a socket are waiting already."""


class LeaseEnded(RuntimeError):
    """A lease was used or released after its end.

    This is a programming error of the borrower, never a matter of load.
    """
