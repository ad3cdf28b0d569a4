# SPDX-License-Identifier: Apache-2.0
"""The invariants are looked at: books that are wrong are found out."""

import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import state
from zmq_driver.pool import waiters


@pytest.fixture
def world():
    """A pool that is checked by these tests alone."""
    world = fakes.World(max_size=4, max_per_peer=2, max_waiters=1)
    world.make_idle('a', 'a', 'b')
    world.lease = world.checkout('b')
    world.pool.check_invariants()
    return world


def idle(books):
    return next(iter(books.lru))


def in_use(books):
    return next(e for e in books.entries if e.owner)


def forget_lru(desk):
    desk.books.lru.clear()


def forget_stack(desk):
    idle(desk.books).home.idle.clear()


def push_twice(desk):
    entry = idle(desk.books)
    entry.home.idle.append(entry)


def keep_closed(desk):
    in_use(desk.books).state = state.EntryState.CLOSED


def own_idle(desk):
    idle(desk.books).owner = threading.current_thread()


def disown(desk):
    in_use(desk.books).owner = None


def forget_peer(desk):
    desk.books.peers.popitem()


def make_stale(desk):
    idle(desk.books).home.generation += 1


def take_slots(desk):
    desk.books.slots = 5


def grow_peer(desk):
    in_use(desk.books).home.size = 3


def empty_peer(desk):
    in_use(desk.books).home.size = 0


def examine_leased(desk):
    entry = in_use(desk.books)
    desk.books.examined = entry
    desk.books.lru[entry] = None


def miscount(desk):
    desk.books.counts[state.EntryState.IDLE] += 1


def disinherit(desk):
    in_use(desk.books).displaces = idle(desk.books)


def lose_slot(desk):
    desk.books.slots -= 1


def lose_socket(desk):
    desk.books.totals.created += 1


def wait(desk, peer, count=1):
    for _ in range(count):
        desk.queue.add(waiters.Waiter(peer, threading.current_thread()))


def wait_too_many(desk):
    wait(desk, 'b', 2)


def wait_for_closed(desk):
    wait(desk, 'b')
    desk.books.state = state.PoolState.CLOSING


def wait_for_idle(desk):
    wait(desk, 'a')


def wait_for_room(desk):
    wait(desk, 'c')


@pytest.mark.spec('PL-30')
@pytest.mark.parametrize(
    ('spoil', 'text'),
    [
        (forget_lru, 'the idle entries are not those of the LRU order'),
        (examine_leased, 'looks at an entry that is not RESERVED'),
        (forget_stack, 'the idle entries are not those of the peers'),
        (push_twice, 'the idle entries are not those of the peers'),
        (keep_closed, 'a CLOSED entry is in the books'),
        (own_idle, 'IDLE: 1> has the owner <_MainThread'),
        (disown, 'IN_USE: 3> has the owner None'),
        (forget_peer, 'an entry has a home that is not in the books'),
        (make_stale, 'an idle entry is stale'),
        (take_slots, '5 slots of 4 are taken'),
        (grow_peer, 'a peer has 3 of 2 entries'),
        (empty_peer, 'a peer has 0 of 2 entries'),
        (miscount, 'counted were'),
        (disinherit, 'a displaced entry does not know its heir'),
        (lose_slot, '2 slots are taken by 3 entries'),
        (grow_peer, 'the sizes of the peers do not add up'),
        (lose_socket, '4 sockets were opened and 0 closed, but 3 are left'),
        (wait_too_many, '2 of 1 threads wait'),
        (wait_for_closed, 'a thread waits for a pool that is closing'),
        (wait_for_idle, 'MainThread waits and could be served'),
        (wait_for_room, 'MainThread waits and could be served'),
    ],
)
def test_wrong_books_are_found_out(world, spoil, text):
    spoil(world.pool._desk)
    with pytest.raises(AssertionError) as caught:
        world.pool.check_invariants()
    assert text in str(caught.value)


def test_a_pool_is_all_the_more_wrong(world):
    miscount(world.pool._desk)
    lose_slot(world.pool._desk)
    with pytest.raises(AssertionError, match=r'counted were .*; 2 slots are'):
        world.pool.check_invariants()


def test_a_closed_pool_is_right(world):
    world.pool.close(fakes.NOW)
    world.pool.check_invariants()
    world.lease.retire(pool.EvictReason.UNFINISHED)
    world.lease.release()
    world.pool.check_invariants()
