# SPDX-License-Identifier: Apache-2.0
"""The model against the measured points, with the errors that it makes."""

from typing import NamedTuple

from scaling import costs
from scaling import inputs
from scaling import laws
from scaling import points
from scaling import simulate

#: Quantities whose largest size a line through the smaller ones foretells.
LINES = (
    'server memory',
    'client memory',
    'server idle processor',
    'client idle processor',
    'reconnect all back',
    'fanout processor, pool of 256',
    'fanout processor, pool of 32',
    'redis memory',
    'redis client memory',
)
#: The same, with lines from each point to the next.
CURVES = (
    'redis look-up',
    'redis look-up answer',
    'client look-up',
    'redis publish',
)
#: Seconds between two fanouts, in the simulation: sockets are kept.
_INTERVAL = 1.0
#: Casts per second, likewise.
_RATE = 200.0


class Check(NamedTuple):
    """One figure of the model, and the measured one."""

    quantity: str
    size: int
    #: How the model came by it.
    how: str
    model: float
    measured: float
    unit: str

    @property
    def error(self) -> float:
        """How far the model is off, as a part of what was measured.

        A figure of at most 1 that has no unit is a ratio, of which the error
        is the difference.
        """
        difference = self.model - self.measured
        if not self.unit and max(self.model, self.measured) <= 1:
            return difference
        return difference / self.measured


def checks(measured: points.Points) -> list[Check]:
    """Return all checks that the measured points allow."""
    units = {row[0]: row[3] for row in points.read(points.MEASURED)}
    found = []
    for quantity in (*LINES, *CURVES):
        at = measured[quantity]
        size = max(at)
        foretell, how = costs.foretold(at), 'line through'
        if quantity in CURVES:
            foretell, how = costs.extended(at), 'lines from'
        found.append(
            Check(
                quantity,
                size,
                f'{how} {_listed(sorted(at)[:-1])}',
                foretell(size),
                at[size],
                units[quantity],
            )
        )
    found += _counted(measured)
    found += _renewals(measured)
    found += _fanouts(measured)
    return found


def _listed(sizes: list[int]) -> str:
    return ', '.join(map(str, sizes[:-1])) + f' and {sizes[-1]}'


def _counted(measured: points.Points) -> list[Check]:
    """Return what the design fixes."""
    each = {
        'server descriptors': 1,
        'client descriptors': 2,
        'redis connections of servers': 1,
    }
    found = []
    for quantity, number in each.items():
        size = max(measured[quantity])
        found.append(
            Check(
                quantity,
                size,
                f'{number} each',
                number * size,
                measured[quantity][size],
                '',
            )
        )
    for quantity, number, how in (
        ('redis connections of a client', 2, 'questions and changes'),
        ('redis connections of a busy client', 5, '4 kept, and changes'),
    ):
        size = max(measured[quantity])
        found.append(
            Check(quantity, size, how, number, measured[quantity][size], '')
        )
    return found


def _renewals(measured: points.Points) -> list[Check]:
    """Return rates and processor time of renewals, from their period."""
    found = []
    for size, rate in measured['redis renewals'].items():
        expected = size / laws.mean_period()
        found.append(
            Check(
                'redis renewals',
                size,
                'period of 13.5 s',
                expected,
                rate,
                '1/s',
            )
        )
        cost = measured[f'redis renewal of {inputs.TOPICS_PER_AGENT}'][size]
        found.append(
            Check(
                'redis renewals processor',
                size,
                'rate, times the cost of one',
                expected * cost / 1000,
                measured['redis renewals processor'][size],
                'ms/s',
            )
        )
    return found


def _fanouts(measured: points.Points) -> list[Check]:
    """Return what the real pool does with a fake clock, and for real."""
    found = []
    for pool in (256, 32):
        ratios = measured[f'fanout hit ratio, pool of {pool}']
        for size, ratio in ratios.items():
            result = simulate.fanouts(size, pool, _INTERVAL)
            found.append(
                Check(
                    f'fanout hit ratio, pool of {pool}',
                    size,
                    'simulation',
                    result.hit_ratio,
                    ratio,
                    '',
                )
            )
        ratios = measured[f'cast hit ratio, pool of {pool}']
        for size, ratio in ratios.items():
            found.append(
                Check(
                    f'cast hit ratio, pool of {pool}',
                    size,
                    'simulation',
                    simulate.random_caster(size, _RATE, pool).hit_ratio,
                    ratio,
                    '',
                )
            )
        sockets = measured[f'fanout sockets, pool of {pool}']
        size = max(sockets)
        found.append(
            Check(
                f'fanout sockets, pool of {pool}',
                size,
                'simulation',
                simulate.fanouts(size, pool, _INTERVAL).open_most,
                sockets[size],
                '',
            )
        )
    return found
