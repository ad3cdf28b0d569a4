# SPDX-License-Identifier: Apache-2.0
"""What was measured, and what follows from it."""

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import statistics
from typing import Any
from typing import NamedTuple

from zmq_driver.bench import histogram
from zmq_driver.bench import plan as plan_


@dataclasses.dataclass(frozen=True)
class Usage:
    """What the processes of one side used.

    Thread: any (immutable).
    """

    #: CPU seconds during the measurement.
    cpu: float
    #: Bytes, descriptors and threads at its end, of all processes together.
    memory: int
    descriptors: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One cell of one peer in one round.

    Thread: any (immutable).
    """

    round: int
    #: Messages a second: answered calls, or what servers ran.
    rate: float
    latencies: histogram.Histogram
    #: How many there were of each error.
    errors: dict[str, int]
    #: Messages that the CPU seconds were for.
    messages: int
    #: None if the peer does not record what ran.
    lost: int | None
    duplicated: int | None
    client: Usage
    server: Usage

    def figure(self, name: str) -> float | None:
        """Return what a ratio is made of: 'rate', or a percentile."""
        if name == 'rate':
            return self.rate
        return self.latencies.quantile(histogram.SHARES[name])

    def as_json(self) -> dict[str, Any]:
        """Return everything, and the percentiles."""
        found = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in {'latencies', 'client', 'server'}
        }
        return {
            **found,
            **{name: self.figure(name) for name in histogram.SHARES},
            'longest': self.latencies.longest,
            'histogram': self.latencies.as_json(),
            'client': dataclasses.asdict(self.client),
            'server': dataclasses.asdict(self.server),
        }


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread | None':
        """Return the spread of some values, None of none."""
        if not values:
            return None
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(
            values, n=4, method='inclusive'
        )
        return cls(median, low, high)


@dataclasses.dataclass
class Row:
    """One cell of one peer, all rounds.

    Thread: owner only.
    """

    cell: plan_.Cell
    peer: plan_.Peer
    measurements: list[Measurement] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return statistics.median(one.rate for one in self.measurements)

    @property
    def rates(self) -> Spread:
        """The spread of the rates."""
        spread = Spread.of([one.rate for one in self.measurements])
        return spread or Spread(0.0, 0.0, 0.0)

    def latencies(self) -> histogram.Histogram:
        """Return the latencies of all rounds."""
        merged = histogram.Histogram()
        for one in self.measurements:
            merged.merge(one.latencies)
        return merged

    def errors(self) -> dict[str, int]:
        """Return how many there were of each error."""
        found: collections.Counter[str] = collections.Counter()
        for one in self.measurements:
            found.update(one.errors)
        return dict(found.most_common())

    def total(self, name: str) -> int | None:
        """Return the sum of 'lost', 'duplicated' or 'messages'."""
        values = [getattr(one, name) for one in self.measurements]
        return None if None in values else sum(values)

    def cpu(self, side: str) -> float | None:
        """Return the CPU seconds of a message on one side, the median."""
        values = [
            getattr(one, side).cpu / one.messages
            for one in self.measurements
            if one.messages
        ]
        return statistics.median(values) if values else None

    def most(self, side: str, name: str) -> int:
        """Return the most of memory, descriptors or threads."""
        values: list[int] = [
            getattr(getattr(one, side), name) for one in self.measurements
        ]
        return max(values)

    def ratio(self, baseline: 'Row | None', figure: str) -> Spread | None:
        """Return this peer's figure, divided by that of another one.

        :param figure: 'rate', 'p50', 'p99' or 'p99.9'
        :returns: the spread over those rounds that have both
        """
        if baseline is None:
            return None
        others = {one.round: one for one in baseline.measurements}
        values = []
        for one in self.measurements:
            mine = one.figure(figure)
            other = others.get(one.round)
            theirs = other.figure(figure) if other else None
            if mine is not None and theirs:
                values.append(mine / theirs)
        return Spread.of(values)


class Results:
    """All rows of a run.

    Thread: owner only.
    """

    def __init__(self, plan: plan_.Plan) -> None:
        """Begin without a measurement."""
        self.plan = plan
        self._rows = {
            (cell, peer.name): Row(cell, peer)
            for cell in plan.cells()
            for peer in plan.peers
            if peer.carries(cell.pattern)
        }

    def add(self, step: plan_.Step, measurement: Measurement) -> None:
        """Take what a step has measured."""
        self._rows[step.cell, step.peer.name].measurements.append(measurement)

    def rows(self) -> Iterator[Row]:
        """Yield all rows that have a measurement, cell by cell."""
        for row in self._rows.values():
            if row.measurements:
                yield row

    def row(self, cell: plan_.Cell, peer: str) -> Row | None:
        """Return a row; None if it has no measurement."""
        row = self._rows.get((cell, peer))
        return row if row and row.measurements else None

    def ratio(self, row: Row, figure: str = 'rate') -> Spread | None:
        """Return a row's ratio to the baseline; None for the baseline."""
        if row.peer.name == self.plan.baseline:
            return None
        return row.ratio(self.row(row.cell, self.plan.baseline), figure)

    def problems(self) -> list[str]:
        """Return what is wrong with the peers: losses, errors, silence."""
        found = []
        for row in self.rows():
            where = (
                f'{row.peer.name}, {row.cell.pattern}, '
                f'{row.cell.threads} thread(s)'
            )
            if not row.total('messages'):
                found.append(f'{where}: no message came through')
            if row.total('lost'):
                found.append(f'{where}: {row.total("lost")} lost')
            if row.total('duplicated'):
                found.append(f'{where}: {row.total("duplicated")} duplicated')
            for text, count in row.errors().items():
                found.append(f'{where}: {count} x {text}')
        return found

    def passed(self) -> bool:
        """Return whether nothing was lost and every peer works."""
        return all(
            row.total('messages') and not row.total('lost')
            for row in self.rows()
        )

    def as_json(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return [
            {
                'pattern': row.cell.pattern,
                'threads': row.cell.threads,
                'peer': row.peer.name,
                'rate': row.rate,
                **{
                    name: row.latencies().quantile(share)
                    for name, share in histogram.SHARES.items()
                },
                'longest': row.latencies().longest,
                'errors': row.errors(),
                'messages': row.total('messages'),
                'lost': row.total('lost'),
                'duplicated': row.total('duplicated'),
                'cpu_client': row.cpu('client'),
                'cpu_server': row.cpu('server'),
                'ratios': {
                    name: spread._asdict()
                    for name in ('rate', *histogram.SHARES)
                    if (spread := self.ratio(row, name))
                },
                'rounds': [one.as_json() for one in row.measurements],
            }
            for row in self.rows()
        ]
