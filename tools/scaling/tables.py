# SPDX-License-Identifier: Apache-2.0
"""The tables of the documentation: what the model says, and its errors."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from scaling import checks
from scaling import costs as costs_
from scaling import inputs
from scaling import laws
from scaling import model
from scaling import points
from scaling import simulate

Rows = list[list[str]]


class Shown(NamedTuple):
    """A figure of a site, as a row of a table."""

    name: str
    text: str


#: What a site of each size has; the names are those of ``model.Site``.
FIGURES = (
    Shown('processes', 'processes with the driver'),
    Shown('all_conductor_calls', 'calls to conductors, 1/s'),
    Shown('fanouts', 'fanouts to OVS agents, 1/s'),
    Shown('fanout_copies', 'copies of these, 1/s'),
    Shown('conductor_descriptors', 'descriptors of a conductor worker'),
    Shown('scheduler_descriptors', 'descriptors of a scheduler worker'),
    Shown('neutron_descriptors', 'descriptors of a Neutron worker'),
    Shown('compute_descriptors', 'descriptors of a nova-compute'),
    Shown('agent_descriptors', 'descriptors of an OVS agent'),
    Shown('compute_hit_ratio', 'hit ratio of a nova-compute'),
    Shown('fanout_hit_ratio', 'hit ratio of fanouts'),
    Shown('fanout_seconds', 'sender of one fanout, s of a core'),
    Shown('fanout_cores', 'senders of all fanouts, cores'),
    Shown('controller_memory', 'connections of a controller, MiB'),
    Shown('controller_heartbeats', 'heartbeats of a controller, cores'),
    Shown('redis_connections', 'connections to Redis'),
    Shown('redis_memory', 'memory of Redis, MiB'),
    Shown('redis_renewals', 'renewals, 1/s'),
    Shown('redis_look_ups', 'look-ups, 1/s'),
    Shown('redis_traffic', 'answers of Redis, MB/s'),
    Shown('redis_cores', 'Redis, cores'),
    Shown(
        'change_seconds', 'Redis, for each conductor that joins or leaves, s'
    ),
    Shown('restart_cores', 'Redis, all agents restart in 600 s, cores'),
)


class Limit(NamedTuple):
    """A threshold, and the figure that reaches it."""

    text: str
    name: str
    threshold: float
    remedy: str


LIMITS = (
    Limit(
        'fanouts find no open socket (``pool_max_size`` 256)',
        'neutron_most_sockets',
        inputs.POOL_MAX_SIZE,
        '``pool_max_size`` of Neutron',
    ),
    Limit(
        'a scheduler worker has 1,024 descriptors',
        'scheduler_descriptors',
        inputs.value('nofile'),
        '``LimitNOFILE``; ``track_instance_changes`` of Nova',
    ),
    Limit(
        'Redis has 10,000 connections',
        'redis_connections',
        inputs.value('maxclients'),
        '``maxclients`` of Redis',
    ),
    Limit(
        'fanouts take a tenth of the cores of all controllers',
        'fanout_share',
        0.1,
        '``pool_max_size``; OVN instead of OVS agents',
    ),
    Limit(
        'Redis takes half a core, all day',
        'redis_cores',
        0.5,
        '``lookup_ttl``',
    ),
    Limit(
        'Redis takes a whole core while all agents restart in 600 s',
        'restart_cores',
        1.0,
        'restart in parts, more slowly',
    ),
    Limit(
        'a conductor worker that joins or leaves takes Redis 1 s '
        '(``redis_timeout``)',
        'change_seconds',
        1.0,
        '``redis_timeout``; fewer conductor workers',
    ),
    Limit(
        'a conductor worker has 1,024 descriptors',
        'conductor_descriptors',
        inputs.value('nofile'),
        '``LimitNOFILE``',
    ),
    Limit(
        'one fanout takes 30 s (``rpc_cast_timeout``) of its sender',
        'fanout_seconds',
        30.0,
        '``pool_max_size``, ``rpc_cast_timeout``',
    ),
)

#: Settings that are compared, at a site of the largest size.
SETTINGS = {
    'defaults': model.Settings(),
    'pool_max_size 16384': model.Settings(pool_max_size=16_384),
    'pool_idle_ttl 10': model.Settings(pool_idle_ttl=10.0),
    'lookup_ttl 300': model.Settings(lookup_ttl=300.0),
    'heartbeat_interval 2': model.Settings(heartbeat_interval=2.0),
    'track_instance_changes off': model.Settings(track_instance_changes=False),
    'ten times the changes': model.Settings(
        changes=10 * inputs.value('changes')
    ),
}

#: What is simulated of one nova-compute: conductor workers, idle TTLs.
WORKERS = (24, 48, 80, 208)
TTLS = (15.0, 60.0, 150.0, 300.0, 600.0, 1200.0, 2400.0)
#: What is simulated of one Neutron worker.
POOLS = (256, 1024, 4096, 16_384)


def number(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if value == 0:
        return '0'
    if abs(value) >= 100:
        return f'{value:,.0f}'
    if abs(value) >= 10:
        return f'{value:.0f}'
    if abs(value) >= 0.1:
        return f'{value:.2g}'
    return f'{value:.1g}' if abs(value) >= 0.001 else '< 0.001'


def assumptions() -> Rows:
    """Return the inputs, with their sources."""
    return [
        [each.name, f'{each.value:g}', each.unit, each.source]
        for each in inputs.INPUTS
    ]


def sites(costs: costs_.Costs) -> Rows:
    """Return one row per figure, and one column per size."""
    return _table(
        [model.Site(n, costs, model.Settings()) for n in inputs.SIZES]
    )


def settings(costs: costs_.Costs) -> Rows:
    """Return one row per figure, and one column per setting."""
    size = max(inputs.SIZES)
    return _table([model.Site(size, costs, s) for s in SETTINGS.values()])


def _table(found: Sequence[model.Site]) -> Rows:
    return [
        [shown.text, *(number(getattr(site, shown.name)) for site in found)]
        for shown in FIGURES
    ]


def worth(costs: costs_.Costs) -> Rows:
    """Return how often a socket must be used to be worth keeping."""
    return [
        [
            f'{interval:g}',
            number(laws.pays_within(costs, interval)),
        ]
        for interval in (0.5, 1.0, 2.0, 5.0)
    ]


def limits(costs: costs_.Costs) -> Rows:
    """Return where each limit lies, the first one first."""
    found = []
    for limit in LIMITS:
        at = [
            reached(limit, costs, SETTINGS[name])
            for name in ('defaults', 'ten times the changes')
        ]
        found.append((at[0] or float('inf'), limit, at))
    return [
        [limit.text, *map(_size, at), limit.remedy]
        for _, limit, at in sorted(found, key=lambda each: each[0])
    ]


def reached(
    limit: Limit, costs: costs_.Costs, under: model.Settings
) -> float | None:
    """Return the size at which a limit is reached, if it is at all."""

    def figure(nodes: float) -> float:
        return float(getattr(model.Site(nodes, costs, under), limit.name))

    return laws.reached_at(figure, limit.threshold)


def _size(nodes: float | None) -> str:
    return 'over 100,000' if nodes is None else f'{_rounded(nodes):,}'


def _rounded(nodes: float) -> int:
    """Return two digits, which is more than the model is worth."""
    digits = len(str(int(nodes))) - 2
    return int(round(nodes, -digits))


def errors(measured: points.Points) -> Rows:
    """Return the model and the measured points, and how far they differ."""
    return [
        [
            check.quantity,
            f'{check.size:,}',
            check.how,
            number(check.model),
            number(check.measured),
            check.unit,
            f'{round(check.error, 2) + 0.0:+.0%}',
        ]
        for check in checks.checks(measured)
    ]


def turns(
    workers: Sequence[int] = WORKERS, ttls: Sequence[float] = TTLS
) -> Rows:
    """Simulate a nova-compute that calls conductors in turn."""
    rows = []
    calls = sum(count / each for each, count in inputs.CONDUCTOR_SCHEDULE)
    for count in workers:
        for ttl in ttls:
            found = simulate.periodic_caller(
                count, inputs.CONDUCTOR_SCHEDULE, ttl
            )
            expected = laws.in_turn_hit_ratio(count, calls, ttl)
            rows.append(
                [
                    str(count),
                    f'{ttl:g}',
                    f'{found.hit_ratio:.3f}',
                    f'{expected:.3f}',
                    f'{found.open_mean:.1f}',
                    str(found.open_most),
                ]
            )
    return rows


def pools(
    sizes: Sequence[int] = inputs.SIZES, pool_sizes: Sequence[int] = POOLS
) -> Rows:
    """Simulate fanouts of a Neutron worker, ten seconds apart."""
    rows = []
    for size in sizes:
        for pool in pool_sizes:
            found = simulate.fanouts(size, pool, 10.0, count=3)
            rows.append(
                [
                    f'{size}',
                    f'{pool}',
                    f'{found.hit_ratio:.3f}',
                    str(found.open_most),
                    f'{found.displaced:.3f}',
                ]
            )
    return rows


_SIZES = [f'{size:,} nodes' for size in inputs.SIZES]

#: Files, their columns, and what fills them: those that take no time.
QUICK: dict[str, tuple[Sequence[str], Callable[[points.Points], Rows]]] = {
    'scaling-inputs.csv': (
        ('input', 'value', 'unit', 'source'),
        lambda measured: assumptions(),
    ),
    'scaling-model.csv': (
        ('figure', *_SIZES),
        lambda measured: sites(costs_.Costs(measured)),
    ),
    'scaling-settings.csv': (
        ('figure', *SETTINGS),
        lambda measured: settings(costs_.Costs(measured)),
    ),
    'scaling-worth.csv': (
        ('heartbeat_interval, s', 'used every ... s, or more often'),
        lambda measured: worth(costs_.Costs(measured)),
    ),
    'scaling-limits.csv': (
        ('limit', 'nodes', 'nodes, ten times the changes', 'moved by'),
        lambda measured: limits(costs_.Costs(measured)),
    ),
    'scaling-checks.csv': (
        ('quantity', 'size', 'model from', 'model', 'measured', '', 'error'),
        errors,
    ),
}
#: Those that are simulated for a minute.
SLOW: dict[str, tuple[Sequence[str], Callable[[points.Points], Rows]]] = {
    'scaling-turns.csv': (
        (
            'conductor workers',
            'pool_idle_ttl, s',
            'hit ratio, simulated',
            'hit ratio, model',
            'sockets open',
            'at most',
        ),
        lambda measured: turns(),
    ),
    'scaling-pools.csv': (
        ('agents', 'pool_max_size', 'hit ratio', 'sockets', 'displaced'),
        lambda measured: pools(),
    ),
}


def write() -> Iterator[str]:
    """Write all tables anew; yield the name of each."""
    measured = points.load()
    for name, (header, fill) in {**QUICK, **SLOW}.items():
        points.write(points.ADMIN / name, header, fill(measured))
        yield name
