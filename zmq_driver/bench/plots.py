# SPDX-License-Identifier: Apache-2.0
"""The results as pictures. Needs matplotlib, which is an extra."""

import base64
from collections.abc import Iterator
from collections.abc import Sequence
import io
from typing import Any
from typing import NamedTuple

import matplotlib
from matplotlib import figure as figure_
from matplotlib import ticker

from zmq_driver.bench import plan as plan_
from zmq_driver.bench import results

#: Colours that are told apart by people who do not see all of them: those of
#: Okabe and Ito, but for yellow, which is faint on white.
COLOURS = (
    '#0072b2',
    '#d55e00',
    '#009e73',
    '#cc79a7',
    '#56b4e9',
    '#e69f00',
    '#000000',
)
_MARKS = 'osD^vP*'

_STYLE: dict[Any, Any] = {
    'font.family': 'sans-serif',
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': '#888888',
    'axes.titlesize': 10,
    'axes.titleweight': 'bold',
    'axes.grid': True,
    'grid.color': '#e4e4e4',
    'grid.linewidth': 0.7,
    'axes.axisbelow': True,
    'legend.frameon': False,
    # The same results make the same bytes.
    'svg.hashsalt': 'zmq-driver bench',
}
#: Inches of one picture in a row of several.
_WIDTH, _HEIGHT = 4.2, 3.1
_MOST_IN_ROW = 3

#: Shares that the axis of a latency distribution names.
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


class Picture(NamedTuple):
    """A plot as it stands in a page."""

    title: str
    #: What the plot shows, for those who do not see it.
    text: str
    #: A ``data:`` URL.
    source: str


def pictures(found: results.Results) -> Iterator[Picture]:
    """Draw everything that there is to see of the results."""
    with matplotlib.rc_context(_STYLE):
        patterns = [
            pattern
            for pattern in found.plan.patterns
            if any(row.cell.pattern is pattern for row in found.rows())
        ]
        if not patterns:
            return
        yield Picture(
            'Rate over threads',
            'Messages a second over the threads of a client process, for '
            'each pattern; bars are quartiles over the rounds.',
            _grid(patterns, lambda axes, one: _rates(axes, found, one)),
        )
        for pattern in patterns:
            cells = [c for c in found.plan.cells() if c.pattern is pattern]
            yield Picture(
                f'Latency of {pattern}',
                f'Distribution of the latencies of {pattern}: the share of '
                'messages that took no longer, for each number of threads.',
                _grid(cells, lambda axes, one: _latency(axes, found, one)),
            )
        yield Picture(
            'CPU per message',
            'CPU microseconds per message in client and server processes, '
            'with the fewest and the most threads.',
            _grid(patterns, lambda axes, one: _cpu(axes, found, one)),
        )


def colour(plan: plan_.Plan, peer: plan_.Peer) -> str:
    """Return the colour of a peer, the same in all pictures."""
    return COLOURS[list(plan.peers).index(peer) % len(COLOURS)]


def _mark(plan: plan_.Plan, peer: plan_.Peer) -> str:
    return _MARKS[list(plan.peers).index(peer) % len(_MARKS)]


def _grid(items: Sequence[Any], draw: Any) -> str:
    """Draw one plot for each item, in rows; return the picture's URL."""
    # Four look better as two rows of two.
    columns = 2 if len(items) == 4 else min(len(items), _MOST_IN_ROW)
    lines = -(-len(items) // columns)
    whole = figure_.Figure(
        figsize=(_WIDTH * columns, _HEIGHT * lines), layout='constrained'
    )
    all_axes = list(whole.subplots(lines, columns, squeeze=False).flat)
    for axes, item in zip(all_axes, items, strict=False):
        draw(axes, item)
    for axes in all_axes[len(items) :]:
        axes.set_axis_off()
    output = io.BytesIO()
    whole.savefig(output, format='svg', metadata={'Date': None})
    encoded = base64.b64encode(output.getvalue()).decode()
    return f'data:image/svg+xml;base64,{encoded}'


def _rates(axes: Any, found: results.Results, pattern: plan_.Pattern) -> None:
    for peer in found.plan.peers:
        rows = [
            row
            for row in found.rows()
            if row.peer is peer
            and row.cell.pattern is pattern
            # There is no nought on a logarithmic scale.
            and row.rate
        ]
        if not rows:
            continue
        rows.sort(key=lambda row: row.cell.threads)
        spreads = [row.rates for row in rows]
        axes.errorbar(
            [row.cell.threads for row in rows],
            [spread.median for spread in spreads],
            yerr=[
                [spread.median - spread.low for spread in spreads],
                [spread.high - spread.median for spread in spreads],
            ],
            label=peer.name,
            color=colour(found.plan, peer),
            marker=_mark(found.plan, peer),
            markersize=4,
            linewidth=1.4,
            capsize=2.5,
            elinewidth=0.9,
        )
    axes.set_xscale('log', base=2)
    axes.set_xticks(sorted(found.plan.threads))
    axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    _logarithmic(axes)
    axes.set_title(pattern)
    axes.set_xlabel('threads of each client process')
    axes.set_ylabel('messages / s')
    _legend(axes)


def _latency(axes: Any, found: results.Results, cell: plan_.Cell) -> None:
    """Draw the share that took longer, on a scale of nines."""
    for peer in found.plan.peers:
        row = found.row(cell, peer.name)
        curve = row.latencies().curve() if row else []
        if not curve:
            continue
        axes.plot(
            [1 / (1 - share) for share, _ in curve],
            [seconds * 1000 for _, seconds in curve],
            label=peer.name,
            color=colour(found.plan, peer),
            linewidth=1.4,
        )
    axes.set_xscale('log')
    ticks = [1 / (1 - share) for share in _SHARES]
    axes.set_xticks(ticks)
    axes.set_xticklabels([f'{share * 100:g}' for share in _SHARES])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlim(left=1)
    _logarithmic(axes)
    axes.set_title(f'{cell.pattern}, {cell.threads} thread(s)')
    axes.set_xlabel('percentile')
    axes.set_ylabel('ms')
    _legend(axes)


def _cpu(axes: Any, found: results.Results, pattern: plan_.Pattern) -> None:
    """Draw client and server CPU as stacked bars."""
    threads = sorted({min(found.plan.threads), max(found.plan.threads)})
    labels, bottom = [], 0
    for count in threads:
        for peer in found.plan.peers:
            row = found.row(plan_.Cell(pattern, count), peer.name)
            if row is None:
                continue
            left = 0.0
            for side, shade in (('client', 1.0), ('server', 0.5)):
                value = (row.cpu(side) or 0.0) * 1e6
                axes.barh(
                    bottom,
                    value,
                    left=left,
                    height=0.7,
                    color=colour(found.plan, peer),
                    alpha=shade,
                )
                left += value
            axes.text(left, bottom, f' {left:.0f}', va='center', fontsize=8)
            labels.append(f'{peer.name}, {count}')
            bottom += 1
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis='y')
    axes.margins(x=0.12)
    axes.set_title(pattern)
    axes.set_xlabel('CPU µs per message: client (full), server (pale)')


def _logarithmic(axes: Any) -> None:
    """Scale the vertical axis, with numbers that can be read."""
    axes.set_yscale('log')
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(_plain))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _legend(axes: Any) -> None:
    """Name the peers, if there are any."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _plain(value: float, _position: int) -> str:
    """Return a number without an exponent."""
    return f'{value:,.0f}' if value >= 1 else f'{value:g}'
