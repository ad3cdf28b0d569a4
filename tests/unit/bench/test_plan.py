# SPDX-License-Identifier: Apache-2.0
"""What is measured, in which order."""

import collections
import itertools

import pytest

from zmq_driver.bench import plan as plan_

ZMQ = plan_.Peer('zmq', url='zmq://')
RABBIT = plan_.Peer('rabbit', url='rabbit://')
KAFKA = plan_.Peer('kafka', url='kafka://h')
RAW = plan_.Peer(plan_.RAW_NAME, plan_.Kind.RAW)


def plan(**kwargs):
    defaults = {
        'peers': [ZMQ, RABBIT, KAFKA, RAW],
        'patterns': list(plan_.Pattern),
        'threads': [1, 8],
        'baseline': 'zmq',
        'rounds': 20,
    }
    return plan_.Plan(**{**defaults, **kwargs})


@pytest.mark.spec('BN-01', 'BN-10')
def test_a_peer_is_measured_with_the_patterns_that_it_carries():
    found = collections.defaultdict(set)
    for step in plan().steps():
        found[step.peer].add(step.cell.pattern)
    assert found[ZMQ] == found[RABBIT] == set(plan_.Pattern)
    assert found[KAFKA] == {plan_.Pattern.NOTIFY}
    assert found[RAW] == {plan_.Pattern.CALL}


@pytest.mark.spec('BN-03')
def test_all_peers_of_a_cell_are_measured_one_after_the_other():
    steps = list(plan().steps())
    assert len(set(steps)) == len(steps)
    groups = [
        (key, [step.peer for step in group])
        for key, group in itertools.groupby(steps, lambda s: s[:2])
    ]
    # Each round and cell comes once, and has all peers that carry it.
    assert len(groups) == len({key for key, _ in groups}) == 20 * 8
    for (_, cell), peers in groups:
        assert set(peers) == {
            peer for peer in plan().peers if peer.carries(cell.pattern)
        }


@pytest.mark.spec('BN-03')
def test_the_order_is_shuffled_anew_each_time():
    orders = collections.Counter(
        tuple(step.peer.name for step in group)
        for key, group in itertools.groupby(plan().steps(), lambda s: s[:2])
        if key[1].pattern is plan_.Pattern.CALL
    )
    # Of three peers, 40 times.
    assert len(orders) == 6
    assert max(orders.values()) < 20


def test_the_same_seed_gives_the_same_order():
    assert list(plan().steps()) == list(plan().steps())
    assert list(plan().steps()) != list(plan(seed=2).steps())
