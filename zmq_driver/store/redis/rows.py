# SPDX-License-Identifier: Apache-2.0
"""What the scripts answer, as the store gives it."""

from collections.abc import Iterable

from zmq_driver import address
from zmq_driver.store import base
from zmq_driver.store import durable
from zmq_driver.store.redis import names

MICROSECONDS = 1_000_000


def microseconds(seconds: float) -> int:
    """Return seconds as the scripts have them."""
    return round(seconds * MICROSECONDS)


def stored(
    key: base.Key,
    where: address.Address,
    pool: str | None,
    message: bytes,
    message_id: bytes,
    body: bytes,
    held: bytes,
) -> base.Stored:
    """Return a copy."""
    attempts, _, holder = held.partition(b' ')
    return base.Stored(
        key,
        message_id,
        where,
        pool,
        body,
        int(message) / MICROSECONDS,
        int(attempts),
        names.holder(holder),
    )


def queue(
    number: bytes, name: bytes, copies: int, oldest: bytes, seen: bytes
) -> base.Queue:
    """Return a queue."""
    where, pool, dead = names.queue(name)
    return base.Queue(
        int(number),
        where,
        pool,
        dead,
        copies,
        int(oldest) / MICROSECONDS if oldest else None,
        None if pool is None else int(seen) / MICROSECONDS,
    )


def forgotten(
    found: Iterable[tuple[bytes, int]],
) -> list[durable.Forgotten]:
    """Return the pools that are forgotten, and what was dropped of each."""
    rows = []
    for name, lost in found:
        where, pool, _dead = names.queue(name)
        rows.append(durable.Forgotten(where, pool or '', lost))
    return rows
