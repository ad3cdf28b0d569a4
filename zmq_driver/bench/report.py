# SPDX-License-Identifier: Apache-2.0
"""The results as one HTML file that needs nothing else."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import html
import shlex
import string

from zmq_driver.bench import histogram
from zmq_driver.bench import payload
from zmq_driver.bench import plots
from zmq_driver.bench import results
from zmq_driver.bench import table

_PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #f6f7f8;
       margin: 0 }
main { max-width: 1240px; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0 0 .2rem }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem }
p.lead { color: #555; margin: 0 0 1rem }
section h2 { margin: 1rem 0 .6rem }
section { background: #fff; border: 1px solid #e2e4e6; border-radius: 8px;
          padding: .2rem 1.2rem 1.2rem; margin: 1.2rem 0; overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
        font-size: .86rem; width: 100% }
th, td { padding: .28rem .55rem; text-align: right; white-space: nowrap }
th { border-bottom: 2px solid #ccd; color: #444; vertical-align: bottom }
td { border-bottom: 1px solid #eee }
th.name, td.name { text-align: left }
tr.first td { border-top: 2px solid #ccd }
table.facts { width: auto }
table.facts td { text-align: left; white-space: normal }
table.facts td:first-child { color: #666; white-space: nowrap }
.dot { display: inline-block; width: .65em; height: .65em;
       border-radius: 50%; margin-right: .45em }
.bad { color: #b00020; font-weight: 600 }
pre { background: #f1f3f5; border-radius: 6px; padding: .7rem;
      white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 }
img { max-width: 100%; display: block; margin: 0 auto }
dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.2rem }
</style>
</head>
<body><main>
<h1>$title</h1>
<p class="lead">$lead</p>
$problems
<section><h2>Results</h2>$results</section>
<section><h2>Ratios to $baseline</h2>$ratios</section>
$pictures
<section><h2>How to read this</h2>$reading</section>
<section><h2>Environment</h2>$environment
<h2>Command</h2><pre>$command</pre></section>
</main></body></html>
""")

_READING = """
<dl>
<dt>Rate</dt><dd>Messages a second, the median over the rounds. Of calls:
those that were answered within the duration. Of casts, fanouts and
notifications: what servers have run, until the last of them has run; each
server's copy of a fanout counts.</dd>
<dt>Latency</dt><dd>What the sender waits: for the answer to a call, else until
the driver says that the message is accepted, which may mean less with one
driver than with another. Percentiles are over all rounds, within 0.3 %; the
longest latency is exact. Each thread sends its next message when it is done
with the one before, so that a peer that stalls is asked less meanwhile.</dd>
<dt>Ratio</dt><dd>The figure of a peer divided by that of the baseline in the
same round, a moment apart: the median and, in brackets, the quartiles over
the rounds. Trust ratios more than rates on a machine that does other things
too, and trust neither if the quartiles are far apart.</dd>
<dt>Lost, duplicated</dt><dd>By the ids of the messages: never run by a server
though no error was raised; run once more than they should. A dash: not
recorded.</dd>
<dt>CPU, memory, descriptors, threads</dt><dd>Client processes + server
processes. What a broker uses comes on top and is not shown. Memory includes
what the benchmark itself records.</dd>
<dt>raw pyzmq</dt><dd>A ping-pong of the same payload between two processes
over ipc, without oslo.messaging and without JSON: the floor.</dd>
</dl>
"""


def render(
    found: results.Results, around: dict[str, str], command: Sequence[str]
) -> str:
    """Return the page.

    :param around: the environment, names and values
    :param command: the command line, without passwords
    """
    plan = found.plan
    size = (
        f'lengths as in oslo.messaging\'s simulator '
        f'({min(payload.BUCKETS)} to 11,500, about 3,280 on average)'
        if plan.payload is None
        else f'{plan.payload} characters'
    )
    lead = (
        f'{", ".join(peer.shown for peer in plan.peers)}. '
        f'{plan.rounds} round(s) of {plan.duration:g} s, {size}; '
        f'{plan.processes} client process(es), {plan.servers} server(s) '
        f'each.'
    )
    return _PAGE.substitute(
        title='oslo.messaging drivers, side by side',
        lead=html.escape(lead),
        problems=_problems(found.problems()),
        results=_table(table.COLUMNS, _results(found)),
        baseline=html.escape(plan.baseline),
        ratios=_table(_RATIOS, _ratios(found)),
        pictures='\n'.join(_picture(one) for one in plots.pictures(found)),
        reading=_READING,
        environment=_facts(around),
        command=html.escape(shlex.join(command)),
    )


_RATIOS = ('Pattern', 'Threads', 'Peer', 'Rate', *histogram.SHARES)


def _results(found: results.Results) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the colour and the cells of each row."""
    for row, cells in zip(found.rows(), table.rows(found), strict=True):
        yield plots.colour(found.plan, row.peer), cells


def _ratios(found: results.Results) -> Iterator[tuple[str, Sequence[str]]]:
    for row in found.rows():
        if found.ratio(row) is not None:
            yield (
                plots.colour(found.plan, row.peer),
                (
                    row.cell.pattern,
                    str(row.cell.threads),
                    row.peer.name,
                    *(
                        table.ratio(found, row, figure)
                        for figure in ('rate', *histogram.SHARES)
                    ),
                ),
            )


def _table(
    columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]
) -> str:
    """Return a table; each pattern and number of threads is a group."""
    lines = ['<table><thead><tr>']
    named = {'Pattern', 'Peer'}
    kinds = [' class="name"' if name in named else '' for name in columns]
    lines += [
        f'<th{kind}>{html.escape(name)}</th>'
        for kind, name in zip(kinds, columns, strict=True)
    ]
    lines.append('</tr></thead><tbody>')
    group: Sequence[str] = ()
    for colour, cells in rows:
        first = cells[:2] != group
        group = cells[:2]
        lines.append('<tr class="first">' if first else '<tr>')
        for name, kind, text in zip(columns, kinds, cells, strict=True):
            shown = html.escape(text)
            if name == 'Peer':
                shown = (
                    f'<span class="dot" style="background:{colour}"></span>'
                    f'{shown}'
                )
            elif name in {'Errors', 'Lost'} and text not in {'0', table.NONE}:
                shown = f'<span class="bad">{shown}</span>'
            lines.append(f'<td{kind}>{shown}</td>')
        lines.append('</tr>')
    lines.append('</tbody></table>')
    return '\n'.join(lines)


def _facts(around: dict[str, str]) -> str:
    rows = ''.join(
        f'<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in around.items()
    )
    return f'<table class="facts">{rows}</table>'


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ''
    items = ''.join(f'<li>{html.escape(one)}</li>' for one in problems)
    return f'<section class="bad"><h2>Problems</h2><ul>{items}</ul></section>'


def _picture(picture: plots.Picture) -> str:
    return (
        f'<section><h2>{html.escape(picture.title)}</h2>'
        f'<img alt="{html.escape(picture.text)}" src="{picture.source}">'
        f'</section>'
    )
