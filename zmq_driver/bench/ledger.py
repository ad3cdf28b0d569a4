# SPDX-License-Identifier: Apache-2.0
"""What became of every message of a run."""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Any

from zmq_driver.bench.programs import executions

#: What each client says: number of a sender, how many it sent, which failed.
Senders = Iterable[tuple[int, int, Sequence[int]]]


@dataclasses.dataclass(frozen=True)
class Account:
    """What servers ran of what was sent.

    Thread: any (immutable).
    """

    #: Executions of messages, each once (for each server, if a fanout).
    delivered: int
    lost: int
    duplicated: int


def account(
    senders: Senders, executed: Sequence[Iterable[int]], *, fanout: bool
) -> Account:
    """Compare what was sent with what ran.

    :param executed: the numbers of the messages that each server ran
    :param fanout: each server should run everything
    """
    due = set(_due(senders))
    if fanout:
        found = [collections.Counter(numbers) for numbers in executed]
    else:
        found = [collections.Counter[int]()]
        for numbers in executed:
            found[0].update(numbers)
    return Account(
        delivered=sum(len(counts) for counts in found),
        lost=sum(len(due - counts.keys()) for counts in found),
        duplicated=sum(c.total() - len(c) for c in found),
    )


def expected(senders: Senders) -> int:
    """Return how many messages were sent without an error."""
    return sum(sent - len(failed) for _, sent, failed in senders)


def _due(senders: Senders) -> Iterator[int]:
    """Yield the numbers of the messages that must have run."""
    for number, sent, failed in senders:
        base = number << executions.SEQUENCE_BITS
        missing = set(failed)
        for sequence in range(sent):
            if sequence not in missing:
                yield base + sequence


def merge_senders(answers: Iterable[dict[str, Any]]) -> Senders:
    """Return what all clients said about their senders."""
    return [tuple(one) for found in answers for one in found['senders']]
