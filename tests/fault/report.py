# SPDX-License-Identifier: Apache-2.0
"""The table of verdicts, and the line that sums them up."""

import dataclasses
import json

from tests.fault import checker

_COUNTS = (
    'told',
    'ok',
    'refused',
    'unsure',
    'ran',
    'failed_copies',
    'gone',
    'again',
    *checker.DEFECTS,
)
#: Lines about the defects of one cell.
MOST_PROBLEMS = 8

_TITLES = {'failed_copies': 'copies-'}


def table(results):
    """Return the lines: one for each fault and pattern, and the sums."""
    head = (
        f'{"fault":28} {"pattern":12} '
        + ' '.join(f'{_TITLES.get(c, c):>7}' for c in _COUNTS)
        + ' slowest'
    )
    lines = [head, '-' * len(head)]
    for result in results:
        for verdict in result.verdicts.values():
            lines.append(_line(verdict))
    lines += ['-' * len(head), sums(results)]
    held_up = max((result.held_up for result in results), default=0.0)
    lines.append(f'the machine held threads up for {held_up:.2f} s at most')
    return lines + problems(results)


def problems(results):
    """Return a line for each defect, but not for too many of a kind."""
    lines = []
    for result in results:
        for verdict in result.verdicts.values():
            found = verdict.problems
            lines += [
                f'{verdict.fault}, {verdict.pattern}: {problem}'
                for problem in found[:MOST_PROBLEMS]
            ]
            if len(found) > MOST_PROBLEMS:
                lines.append(f'... and {len(found) - MOST_PROBLEMS} more')
        lines += [f'{result.fault}: {text}' for text in result.problems]
    return lines


def _line(verdict):
    counts = ' '.join(f'{getattr(verdict, c):7}' for c in _COUNTS)
    return (
        f'{verdict.fault:28} {verdict.pattern:12} {counts} '
        f'{verdict.slowest:6.2f}s'
    )


def total(results, name):
    """Return the count *name* of all cells together."""
    return sum(
        getattr(verdict, name)
        for result in results
        for verdict in result.verdicts.values()
    )


def sums(results):
    """Return the line that everything comes down to."""
    counts = ', '.join(
        f'{name} {total(results, name)}' for name in checker.DEFECTS
    )
    verdict = 'good' if all(r.good for r in results) else 'BAD'
    return (
        f'verdict {verdict}: {total(results, "told")} operations, '
        f'{total(results, "ran")} executions, {counts}'
    )


def as_json(results, **more):
    """Return everything, for other programs."""
    return json.dumps(
        {'results': results, **more}, indent=1, default=dataclasses.asdict
    )
