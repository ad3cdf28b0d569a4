# SPDX-License-Identifier: Apache-2.0
"""Latencies, counted in buckets that grow with them."""

from collections.abc import Iterable
import math

#: Buckets for each power of two. One is 0.54 % wide, so its middle is within
#: 0.27 % of what is in it.
PER_OCTAVE = 128
#: Seconds where the buckets begin; what is shorter is in the first one.
SHORTEST = 1e-6

#: The shares that tables show.
SHARES = {'p50': 0.5, 'p99': 0.99, 'p99.9': 0.999}


class Histogram:
    """How many latencies there were of each length.

    Thread: owner only.
    """

    def __init__(self) -> None:
        """Make an empty one."""
        #: Latencies in each bucket, by its index.
        self.buckets: dict[int, int] = {}
        #: The longest one, exactly, in seconds.
        self.longest = 0.0

    def add(self, latencies: Iterable[float]) -> None:
        """Count latencies, in seconds."""
        buckets = self.buckets
        for value in latencies:
            index = int(math.log2(max(value / SHORTEST, 1.0)) * PER_OCTAVE)
            buckets[index] = buckets.get(index, 0) + 1
            self.longest = max(self.longest, value)

    def merge(self, other: 'Histogram') -> None:
        """Count what another one has counted too."""
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count
        self.longest = max(self.longest, other.longest)

    @property
    def count(self) -> int:
        """How many latencies were counted."""
        return sum(self.buckets.values())

    def quantile(self, share: float) -> float | None:
        """Return the latency that a share of all does not exceed.

        :param share: from 0 to 1
        :returns: seconds; None if nothing was counted
        """
        wanted = max(1, math.ceil(share * self.count))
        for index, passed in self.cumulated():
            if passed >= wanted:
                return min(_middle(index), self.longest)
        return None

    def cumulated(self) -> Iterable[tuple[int, int]]:
        """Yield index, and how many are in that bucket or below."""
        passed = 0
        for index in sorted(self.buckets):
            passed += self.buckets[index]
            yield index, passed

    def curve(self) -> list[tuple[float, float]]:
        """Return the distribution: pairs of share (below 1) and seconds."""
        total = self.count
        return [
            ((passed - 0.5) / total, min(_middle(index), self.longest))
            for index, passed in self.cumulated()
        ]

    def as_json(self) -> dict[str, object]:
        """Return what :meth:`from_json` takes."""
        return {
            'longest': self.longest,
            'buckets': sorted(self.buckets.items()),
        }

    @classmethod
    def from_json(cls, found: dict[str, object]) -> 'Histogram':
        """Make one from what :meth:`as_json` returned."""
        made = cls()
        made.longest = float(found['longest'])  # type: ignore[arg-type]
        made.buckets = {
            int(index): int(count)
            for index, count in found['buckets']  # type: ignore[attr-defined]
        }
        return made


def _middle(index: int) -> float:
    """Return the geometric middle of a bucket, in seconds."""
    return SHORTEST * math.exp2((index + 0.5) / PER_OCTAVE)
