# SPDX-License-Identifier: Apache-2.0
"""Whether a process grows: samples of it, and the slope of their line."""

import os
import pathlib
import time

_PAGE = os.sysconf('SC_PAGE_SIZE')

QUANTITIES = ('descriptors', 'threads', 'rss_kib')


def sample(pid):
    """Return what a process uses now, by name."""
    process = pathlib.Path(f'/proc/{pid}')
    resident = int((process / 'statm').read_text().split()[1])
    return {
        'descriptors': len(os.listdir(process / 'fd')),
        'threads': len(os.listdir(process / 'task')),
        'rss_kib': resident * _PAGE / 1024,
    }


def slope(points):
    """Return the slope of the least-squares line through (x, y) points."""
    count = len(points)
    if count < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


class Growth:
    """Samples of some processes, over time.

    Thread: owner only.
    """

    def __init__(self, pids):
        """Watch *pids*, which are process ids by name."""
        self._pids = pids
        self._start = time.monotonic()
        #: (hours since the beginning, name, samples by quantity).
        self.samples = []

    def take(self):
        hours = (time.monotonic() - self._start) / 3600
        for name, pid in self._pids.items():
            self.samples.append((hours, name, sample(pid)))

    def slopes(self, skip=0.0):
        """Return the growth per hour, by process and quantity.

        :param skip: the share of the time at the beginning to leave out, in
            which caches and pools fill
        """
        last = max((hours for hours, *_ in self.samples), default=0.0)
        return {
            name: {
                quantity: slope(
                    [
                        (hours, values[quantity])
                        for hours, who, values in self.samples
                        if who == name and hours >= last * skip
                    ]
                )
                for quantity in QUANTITIES
            }
            for name in self._pids
        }

    def lines(self):
        """Return the lines that show it: first, last, most and slopes."""
        head = (
            f'{"process":10} {"quantity":12} {"first":>9} {"last":>9} '
            f'{"most":>9} {"per hour":>10} {"2nd half":>10}'
        )
        lines = [head]
        whole, half = self.slopes(), self.slopes(0.5)
        for name in self._pids:
            for quantity in QUANTITIES:
                values = [v[quantity] for _, n, v in self.samples if n == name]
                if values:
                    lines.append(
                        f'{name:10} {quantity:12} {values[0]:9.0f} '
                        f'{values[-1]:9.0f} {max(values):9.0f} '
                        f'{whole[name][quantity]:+10.1f} '
                        f'{half[name][quantity]:+10.1f}'
                    )
        return lines
