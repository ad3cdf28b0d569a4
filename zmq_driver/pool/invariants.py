# SPDX-License-Identifier: Apache-2.0
"""What is true of a pool's books whenever its lock is free."""

from collections.abc import Iterator

from zmq_driver.pool import allocator
from zmq_driver.pool import ledger
from zmq_driver.pool import options as pool_options
from zmq_driver.pool import state as states
from zmq_driver.pool.entry import PeerT
from zmq_driver.pool.entry import SocketT


def check_locked(
    desk: allocator.Allocator[PeerT, SocketT],
    options: pool_options.PoolOptions,
) -> None:
    """Raise unless every invariant of the pool's books holds.

    :raises AssertionError: with the sentences that are not true
    """
    books = desk.books
    books.check_held()
    broken = [
        *_places(books),
        *_limits(books, options),
        *_sums(books),
        *_waits(desk, options),
    ]
    if broken:
        raise AssertionError('; '.join(broken))


def _places(books: ledger.Ledger[PeerT, SocketT]) -> Iterator[str]:
    """An idle entry is in both idle places, an examined one in one."""
    idle = {e for e in books.entries if e.state is states.EntryState.IDLE}
    stacks = [e for home in books.peers.values() for e in home.idle]
    examined = set() if books.examined is None else {books.examined}
    if set(books.lru) != idle | examined:
        yield 'the idle entries are not those of the LRU order'
    if any(e.state is not states.EntryState.RESERVED for e in examined):
        yield 'the reaper looks at an entry that is not RESERVED'
    if set(stacks) != idle or len(stacks) != len(idle):
        yield 'the idle entries are not those of the peers'
    for entry in books.entries:
        if entry.state is states.EntryState.CLOSED:
            yield 'a CLOSED entry is in the books'
        if (entry.owner is None) != (entry in idle):
            yield f'an entry {entry.state!r} has the owner {entry.owner}'
        if books.peers.get(entry.home.peer) is not entry.home:
            yield 'an entry has a home that is not in the books'
        if entry in idle and entry.generation != entry.home.generation:
            yield 'an idle entry is stale'


def _limits(
    books: ledger.Ledger[PeerT, SocketT], options: pool_options.PoolOptions
) -> Iterator[str]:
    if not 0 <= books.slots <= options.max_size:
        yield f'{books.slots} slots of {options.max_size} are taken'
    for home in books.peers.values():
        if not 0 < home.size <= options.max_per_peer:
            yield f'a peer has {home.size} of {options.max_per_peer} entries'


def _sums(books: ledger.Ledger[PeerT, SocketT]) -> Iterator[str]:
    """Whatever is counted twice is counted alike."""
    found = [0] * len(states.EntryState)
    for entry in books.entries:
        found[entry.state] += 1
    buried = states.EntryState.CLOSED
    if found[:buried] != books.counts[:buried]:
        yield f'states are {found}, counted were {books.counts}'
    pairs = [e for e in books.entries if e.displaces is not None]
    if any(e.displaces.heir is not e for e in pairs if e.displaces):
        yield 'a displaced entry does not know its heir'
    if books.slots != len(books.entries) - len(pairs):
        yield (
            f'{books.slots} slots are taken by {len(books.entries)} entries, '
            f'of which {len(pairs)} displace another'
        )
    if sum(home.size for home in books.peers.values()) != len(books.entries):
        yield 'the sizes of the peers do not add up to that of the pool'
    gone = sum(books.totals.closed.values())
    still = len(books.entries) - found[states.EntryState.NEW]
    if books.totals.created - gone != still:
        yield (
            f'{books.totals.created} sockets were opened and {gone} closed, '
            f'but {still} are left'
        )


def _waits(
    desk: allocator.Allocator[PeerT, SocketT],
    options: pool_options.PoolOptions,
) -> Iterator[str]:
    """Nobody waits who could be served."""
    if len(desk.queue) > options.max_waiters:
        yield f'{len(desk.queue)} of {options.max_waiters} threads wait'
    if desk.queue and desk.books.state is not states.PoolState.OPEN:
        yield 'a thread waits for a pool that is closing'
    for waiter in desk.queue.heads():
        if desk.is_ready_locked(waiter):
            yield f'{waiter.owner.name} waits and could be served'
