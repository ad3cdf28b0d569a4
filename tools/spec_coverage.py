#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare the rules of doc/specs with the tests that cite them.

A rule is defined in ``doc/specs/*.rst`` where its id in bold begins a
paragraph, list item or table cell, ``**PL-03** checkout MUST NOT ...``, or
where it is the term of a definition list: alone in a line, above an indented
one. A test cites it: ``@pytest.mark.spec('PL-03')``. Prints a line per rule
and ends with 1 when a rule has no test, a test cites a rule that does not
exist, or an id is defined twice.
"""

import argparse
import ast
from collections.abc import Iterator
import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]

_DEFINITION = re.compile(
    r'^(?:[\s|*#.\-]*?\*\*([A-Z]{2}-\d{2,3})(?:\.|:)?\*\*'
    r'|([A-Z]{2}-\d{2,3})\n[ ]+\S)',
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Place:
    path: pathlib.Path
    line: int

    def __str__(self) -> str:
        return f'{self.path.relative_to(ROOT)}:{self.line}'


@dataclasses.dataclass
class Coverage:
    """Where each rule is defined and cited."""

    defined: dict[str, list[Place]]
    cited: dict[str, list[Place]]

    def problems(self) -> list[str]:
        found = [
            f'{places[1]}: {rule} is defined at {places[0]} already'
            for rule, places in self.defined.items()
            if len(places) > 1
        ]
        found += [
            f'{places[0]}: {rule} has no test'
            for rule, places in self.defined.items()
            if rule not in self.cited
        ]
        found += [
            f'{place}: cites {rule}, which no spec defines'
            for rule, places in self.cited.items()
            if rule not in self.defined
            for place in places
        ]
        return found


def definitions(text: str) -> Iterator[tuple[str, int]]:
    """Yield id and line of the rules that a spec defines."""
    for match in _DEFINITION.finditer(text):
        start = match.start(match.lastindex)
        yield match[match.lastindex], text.count('\n', 0, start) + 1


def citations(text: str) -> Iterator[tuple[str, int]]:
    """Yield id and line of the rules that a test module cites."""
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == 'pytest.mark.spec'
        ):
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value), node.lineno


def collect(root: pathlib.Path = ROOT) -> Coverage:
    """Read all specs and all tests under *root*."""
    coverage = Coverage({}, {})
    for read, paths, into in (
        (definitions, root.glob('doc/specs/**/*.rst'), coverage.defined),
        (citations, root.glob('tests/**/*.py'), coverage.cited),
    ):
        for path in sorted(paths):
            for rule, line in read(path.read_text()):
                into.setdefault(rule, []).append(Place(path, line))
    return coverage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument(
        '-q', '--quiet', action='store_true', help='print problems only'
    )
    arguments = parser.parse_args()
    coverage = collect()
    if not arguments.quiet:
        for rule, places in sorted(coverage.defined.items()):
            tests = len(coverage.cited.get(rule, ()))
            print(f'{rule}  {tests:3} tests  {places[0]}')
    problems = coverage.problems()
    for problem in problems:
        print(problem)
    print(f'{len(coverage.defined)} rules, {len(problems)} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
