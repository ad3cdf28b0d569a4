# SPDX-License-Identifier: Apache-2.0
"""The measured points: taken from one machine, kept in a table."""

from collections.abc import Iterable
from collections.abc import Sequence
import csv
import pathlib
import sys

#: Where the tables and plots of the documentation are.
ADMIN = pathlib.Path(__file__).parents[2] / 'doc' / 'source' / 'admin'
MEASURED = ADMIN / 'scaling-measured.csv'
HEADER = ('quantity', 'size', 'value', 'unit')

#: Values, by quantity and size.
Points = dict[str, dict[int, float]]


def measure(parts: Sequence[str]) -> None:
    """Measure, and keep what the parts that were not measured had."""
    # These need a Redis, and some minutes.
    from scaling import measure_fanout
    from scaling import measure_redis
    from scaling import measure_sockets

    work = {
        'sockets': lambda: measure_sockets.measure([100, 500, 1000, 2000]),
        'reconnect': lambda: measure_sockets.reconnect([500, 1000, 2000]),
        'fanout': lambda: measure_fanout.measure([50, 100, 200], [256, 32]),
        'publish': lambda: measure_redis.publish([100, 500, 1000]),
        'redis': lambda: measure_redis.measure(
            [10, 100, 1000, 5000, 13_000], [1000, 4000, 10_000]
        ),
    }
    for part in parts or work:
        rows = {}
        for name, size, value, unit in work[part]():
            row = [name, str(size), f'{value:.4g}', unit]
            print(*row, file=sys.stderr, flush=True)
            rows[name, size] = row
        new = {name for name, _ in rows}
        kept = [row for row in read(MEASURED) if row[0] not in new]
        write(MEASURED, HEADER, [*kept, *rows.values()])


def read(path: pathlib.Path) -> list[list[str]]:
    """Return the rows of a table below its header; none if it is missing."""
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return list(csv.reader(file))[1:]


def write(
    path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Write a table."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(rows)


def load() -> Points:
    """Return the measured values."""
    found: Points = {}
    for name, size, value, _ in read(MEASURED):
        found.setdefault(name, {})[int(size)] = float(value)
    return found
