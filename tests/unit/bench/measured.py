# SPDX-License-Identifier: Apache-2.0
"""Results that were not measured."""

from zmq_driver.bench import histogram
from zmq_driver.bench import plan as plan_
from zmq_driver.bench import results

ZMQ = plan_.Peer('zmq', url='zmq://')
RABBIT = plan_.Peer('<rabbit>', url='rabbit://user:s3cret@host/')
RAW = plan_.Peer(plan_.RAW_NAME, plan_.Kind.RAW)

CALL = plan_.Cell(plan_.Pattern.CALL, 1)


def plan(**kwargs):
    defaults = {
        'peers': [ZMQ, RABBIT, RAW],
        'patterns': list(plan_.Pattern),
        'threads': [1, 8],
        'baseline': RABBIT.name,
        'rounds': 3,
    }
    return plan_.Plan(**{**defaults, **kwargs})


def measurement(number=0, rate=100.0, **kwargs):
    latencies = histogram.Histogram()
    latencies.add(kwargs.pop('latencies', [0.001] * 98 + [0.002, 0.05]))
    defaults = {
        'errors': {},
        'messages': 100,
        'lost': 0,
        'duplicated': 0,
        'client': results.Usage(0.01, 50_000_000, 20, 5),
        'server': results.Usage(0.02, 60_000_000, 30, 70),
    }
    return results.Measurement(
        round=number, rate=rate, latencies=latencies, **{**defaults, **kwargs}
    )


def full(**kwargs):
    """Return results of every step, the same of all peers."""
    found = results.Results(plan(**kwargs))
    for step in found.plan.steps():
        raw = step.peer.kind is plan_.Kind.RAW
        counted = {'lost': None, 'duplicated': None} if raw else {}
        found.add(step, measurement(step.round, **counted))
    return found
