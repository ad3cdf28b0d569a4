# SPDX-License-Identifier: Apache-2.0
"""The plots of the documentation, drawn from its tables.

Needs matplotlib.
"""

from collections.abc import Iterator

import matplotlib

matplotlib.use('svg')

from matplotlib import pyplot

from scaling import costs as costs_
from scaling import inputs
from scaling import model
from scaling import points
from scaling import tables

IMAGES = points.ADMIN / 'images'
#: The same file for the same figures; text as text.
_STYLE = {
    'svg.hashsalt': 'scaling',
    'svg.fonttype': 'none',
    'font.size': 9,
    'axes.grid': True,
    'grid.alpha': 0.3,
    'axes.spines.top': False,
    'axes.spines.right': False,
}
_WIDTH, _HEIGHT = 7.0, 3.8
#: Sizes at which the curves are drawn.
_NODES = [round(10 * 1.15**step) for step in range(53)]


def draw() -> Iterator[str]:
    """Write all plots anew; yield the name of each."""
    costs = costs_.Costs(points.load())
    IMAGES.mkdir(exist_ok=True)
    with pyplot.rc_context(_STYLE):
        for name, plot in (
            ('scaling-descriptors', _descriptors),
            ('scaling-redis', _redis),
            ('scaling-fanouts', _fanouts),
        ):
            figure, axes = pyplot.subplots(figsize=(_WIDTH, _HEIGHT))
            plot(axes, costs)
            yield _save(figure, name)
        for name, simulated in (
            ('scaling-turns', _turns),
            ('scaling-pools', _pools),
        ):
            figure, axes = pyplot.subplots(figsize=(_WIDTH, _HEIGHT))
            simulated(axes)
            yield _save(figure, name)


def _save(figure, name):
    figure.tight_layout()
    path = IMAGES / f'{name}.svg'
    figure.savefig(path, metadata={'Date': None})
    pyplot.close(figure)
    return path.name


def _curve(axes, costs, name, text, settings=None, **style):
    settings = settings or model.Settings()
    values = [
        getattr(model.Site(nodes, costs, settings), name) for nodes in _NODES
    ]
    axes.plot(_NODES, values, label=text, **style)


def _limit(axes, height, text):
    axes.axhline(height, color='black', linewidth=0.8, linestyle=':')
    axes.text(_NODES[0], height, text, va='bottom', fontsize=8)


def _finish(axes, title, ylabel):
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.set_xticks(inputs.SIZES, [f'{size:,}' for size in inputs.SIZES])
    axes.minorticks_off()
    axes.set_xlabel('compute nodes')
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)


def _descriptors(axes, costs):
    for name, text in (
        ('scheduler_descriptors', 'scheduler worker'),
        ('conductor_descriptors', 'conductor worker'),
        ('neutron_descriptors', 'Neutron worker, after a fanout'),
        ('compute_descriptors', 'nova-compute'),
        ('agent_descriptors', 'OVS agent'),
    ):
        _curve(axes, costs, name, text)
    _limit(axes, inputs.value('nofile'), 'soft limit of a systemd unit')
    _finish(
        axes, 'Descriptors of one process (model, defaults)', 'descriptors'
    )


def _redis(axes, costs):
    _curve(axes, costs, 'redis_cores', 'a quiet day')
    _curve(
        axes,
        costs,
        'redis_cores',
        'a quiet day, lookup_ttl = 300',
        tables.SETTINGS['lookup_ttl 300'],
        linestyle='--',
    )
    busy = tables.SETTINGS['ten times the changes']
    _curve(axes, costs, 'redis_cores', 'ten times the changes', busy)
    _curve(axes, costs, 'restart_cores', 'all agents restart in 600 s')
    _limit(axes, 1.0, 'one core, all that Redis has')
    _finish(axes, 'Processor time of Redis (model)', 'cores')


def _fanouts(axes, costs):
    _curve(axes, costs, 'fanout_cores', 'senders, all controllers')
    large = tables.SETTINGS['pool_max_size 16384']
    _curve(
        axes,
        costs,
        'fanout_cores',
        'the same, pool_max_size = 16384',
        large,
        linestyle='--',
    )
    _curve(axes, costs, 'controller_heartbeats', 'heartbeats, each controller')
    _curve(
        axes,
        costs,
        'controller_heartbeats',
        'the same, pool_max_size = 16384',
        large,
        linestyle='--',
    )
    _limit(axes, inputs.value('cores'), 'cores of one controller')
    _finish(axes, 'Fanouts and heartbeats (model)', 'cores')


def _turns(axes):
    rows = points.read(points.ADMIN / 'scaling-turns.csv')
    for workers in sorted({int(row[0]) for row in rows}):
        found = [row for row in rows if int(row[0]) == workers]
        axes.plot(
            [float(row[1]) for row in found],
            [float(row[2]) for row in found],
            marker='o',
            label=f'{workers} conductor workers',
        )
    axes.axvline(inputs.POOL_IDLE_TTL, color='black', linestyle=':')
    axes.text(inputs.POOL_IDLE_TTL, 0.5, ' default', fontsize=8)
    axes.set_xscale('log')
    ticks = [int(ttl) for ttl in tables.TTLS]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_xlabel('pool_idle_ttl, seconds')
    axes.set_ylabel('hit ratio')
    axes.set_title('Hit ratio of one nova-compute (simulation)', fontsize=10)
    axes.legend(fontsize=8)


def _pools(axes):
    rows = points.read(points.ADMIN / 'scaling-pools.csv')
    sizes = sorted({int(row[1]) for row in rows})
    for number, pool in enumerate(sizes):
        found = [row for row in rows if int(row[1]) == pool]
        axes.bar(
            [at + (number - 1.5) * 0.2 for at in range(len(found))],
            [float(row[2]) for row in found],
            width=0.19,
            label=f'pool_max_size = {pool}',
        )
    nodes = [row[0] for row in rows if int(row[1]) == sizes[0]]
    axes.set_xticks(range(len(nodes)), [f'{int(at):,}' for at in nodes])
    axes.set_ylim(0.0, 1.3)
    axes.set_xlabel('agents that a fanout goes to')
    axes.set_ylabel('hit ratio')
    axes.set_title(
        'Hit ratio of fanouts ten seconds apart (simulation)', fontsize=10
    )
    axes.legend(fontsize=8, loc='upper center', ncols=2)
