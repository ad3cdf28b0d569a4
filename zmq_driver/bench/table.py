# SPDX-License-Identifier: Apache-2.0
"""The results as rows of text."""

from collections.abc import Iterator
from collections.abc import Sequence

from zmq_driver.bench import histogram
from zmq_driver.bench import results

COLUMNS = (
    'Pattern',
    'Threads',
    'Peer',
    'Rate/s',
    'Ratio (quartiles)',
    *(f'{name} ms' for name in histogram.SHARES),
    'Max ms',
    'Errors',
    'Lost',
    'Dupl.',
    'CPU us',
    'MB',
    'FDs',
    'Thr.',
)

_SIDES = ('client', 'server')
#: Columns of words; the others are of numbers.
_WORDS = {'Pattern', 'Peer'}

#: What a table shows where there is no figure.
NONE = '-'


def rows(found: results.Results) -> Iterator[tuple[str, ...]]:
    """Yield a row of text for each row of the results.

    Pairs are client and server.
    """
    for row in found.rows():
        latencies = row.latencies()
        quantiles = [
            latencies.quantile(share) for share in histogram.SHARES.values()
        ]
        longest = latencies.longest if latencies.count else None
        yield (
            row.cell.pattern,
            str(row.cell.threads),
            row.peer.name,
            f'{row.rate:.0f}',
            ratio(found, row),
            *(milliseconds(value) for value in (*quantiles, longest)),
            str(sum(row.errors().values())),
            _count(row.total('lost')),
            _count(row.total('duplicated')),
            ' + '.join(_micro(row.cpu(side)) for side in _SIDES),
            ' + '.join(
                f'{row.most(side, "memory") / 1e6:.0f}' for side in _SIDES
            ),
            *(
                ' + '.join(str(row.most(side, name)) for side in _SIDES)
                for name in ('descriptors', 'threads')
            ),
        )


def aligned(lines: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return rows whose numbers stand below each other."""
    widths = [
        0 if name in _WORDS else max(len(name), *map(len, column))
        for name, *column in zip(COLUMNS, *lines, strict=True)
    ]
    return [
        tuple(
            text.rjust(width) for text, width in zip(line, widths, strict=True)
        )
        for line in lines
    ]


def ratio(
    found: results.Results, row: results.Row, figure: str = 'rate'
) -> str:
    """Return a ratio to the baseline as text."""
    if row.peer.name == found.plan.baseline:
        return '1'
    spread = found.ratio(row, figure)
    if spread is None:
        return NONE
    return f'{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})'


def milliseconds(seconds: float | None) -> str:
    """Return seconds as text in milliseconds, with three digits."""
    if seconds is None:
        return NONE
    value = seconds * 1000
    return f'{value:.3f}' if value < 1 else f'{value:.4g}'


def _micro(seconds: float | None) -> str:
    return NONE if seconds is None else f'{seconds * 1e6:.0f}'


def _count(value: int | None) -> str:
    return NONE if value is None else str(value)
