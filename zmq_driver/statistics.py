# SPDX-License-Identifier: Apache-2.0
"""The figures of the drivers of this process, and the lines that show them.

Every figure has one name, one meaning and one place in the documentation;
whoever publishes figures (the log, a report, Prometheus) takes them from
here.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import itertools
import logging
import os
import threading
from typing import NamedTuple
from typing import Protocol
import weakref

from zmq_driver import counters as counters_
from zmq_driver import pool as pool_

LOG = logging.getLogger(__name__)

#: What Prometheus calls a counter ends so.
_TOTAL = '_total'

_numbers = itertools.count(1)


def next_number() -> int:
    """Return the number of a new driver: 1, 2, 3 in each process image."""
    return next(_numbers)


class Figure(NamedTuple):
    """One figure of one driver."""

    #: As in the documentation.
    name: str
    #: A sentence.
    help: str
    value: float
    #: What tells it from figures of the same name, such as a reason.
    labels: Mapping[str, str] = {}

    @property
    def grows(self) -> bool:
        """Whether it only ever grows while the driver lives."""
        return self.name.endswith(_TOTAL)

    def __str__(self) -> str:
        labels = ','.join(self.labels.values())
        name = f'{self.name}[{labels}]' if labels else self.name
        value = self.value
        return f'{name}={value:.3f}' if value % 1 else f'{name}={value:.0f}'


@dataclasses.dataclass(frozen=True, slots=True)
class DriverStats:
    """The figures of one driver instance in this process.

    Thread: any.
    """

    #: Counts the drivers of this process in the order of their first use.
    number: int
    #: What the threads and files of the driver are named after.
    member: str
    #: Of the socket pool.
    pool: pool_.PoolStats
    #: How often what happened to messages; see ``Counters.NAMES``.
    counters: Mapping[str, int]

    def figures(self) -> Iterator[Figure]:
        """Yield every figure, in the order of the documentation."""
        for name, text in pool_.FIGURES.items():
            value = getattr(self.pool, name)
            if isinstance(value, Mapping):
                for reason, count in value.items():
                    label = {'reason': reason.value}
                    yield Figure(f'pool_{name}', text, count, label)
            else:
                yield Figure(f'pool_{name}', text, value)
        for name, meaning in counters_.Counters.NAMES.items():
            text = f'{meaning[0].upper()}{meaning[1:]}.'
            yield Figure(f'{name}{_TOTAL}', text, self.counters[name])

    def __str__(self) -> str:
        """Return one line with every figure that is not zero."""
        shown = ' '.join(str(f) for f in self.figures() if f.value)
        return f'driver {self.number} ({self.member}): {shown or "unused"}'


class Source(Protocol):
    """Who has figures.

    Thread: any.
    """

    @property
    def pid(self) -> int:
        """The process that it belongs to."""

    def stats(self) -> DriverStats:
        """Return its figures of this moment.

        :raises PoolClosed: it was inherited by a forked process
        """


_sources: 'weakref.WeakSet[Source]' = weakref.WeakSet()


def publish(source: Source) -> None:
    """Let the figures of *source* be seen, as long as it lives."""
    _sources.add(source)


def withdraw(source: Source) -> None:
    """Let the figures of *source* not be seen any more."""
    _sources.discard(source)


def snapshots() -> list[DriverStats]:
    """Return the figures of every driver that this process uses."""
    here = os.getpid()
    found = [s.stats() for s in tuple(_sources) if s.pid == here]
    return sorted(found, key=lambda stats: stats.number)


def log_now_and_then(
    source: Source, end: threading.Event, interval: float
) -> None:
    """Log the figures of *source*, at DEBUG, until *end* is set.

    :param interval: seconds between two lines
    """
    while not end.wait(interval):
        LOG.debug('statistics of %s', source.stats())
