# SPDX-License-Identifier: Apache-2.0
"""What queues and holders are called in Redis."""

from zmq_driver import address
from zmq_driver.matchmaker.redis import scripts
from zmq_driver.store import base

#: The pool of who comes first; no encoded name is like it.
ANYBODY = '*'

#: Bytes of an incarnation, which the endpoint follows.
_INCARNATION = 16


def of_address(where: address.Address) -> str:
    """Return the name of an address."""
    return f'{scripts.encode(where.exchange)}:{scripts.encode(where.topic)}'


def of_pool(pool: str | None) -> str:
    """Return the name of a listener pool."""
    return ANYBODY if pool is None else scripts.encode(pool)


def of_queue(where: address.Address, pool: str | None) -> str:
    """Return the name of the queue of what waits for a pool."""
    return f'a:{of_address(where)}:{of_pool(pool)}'


def pool(name: bytes) -> str:
    """Return the listener pool of this name."""
    return scripts.decode(name.decode())


def queue(name: bytes) -> tuple[address.Address, str | None, bool]:
    """Return address and pool of a queue, and whether it is a dead one."""
    kind, exchange, topic, pool = name.decode().split(':')
    where = address.Address(
        address.Scope.NOTIFICATION,
        scripts.decode(exchange),
        scripts.decode(topic),
    )
    found = None if pool == ANYBODY else scripts.decode(pool)
    return where, found, kind == 'd'


def of_holder(holder: base.Holder | None) -> bytes:
    """Return a listener as it is written down; b'': nobody."""
    if holder is None:
        return b''
    return holder.incarnation + holder.endpoint.encode()


def holder(text: bytes) -> base.Holder | None:
    """Return the listener that was written down."""
    if not text:
        return None
    return base.Holder(text[_INCARNATION:].decode(), text[:_INCARNATION])
