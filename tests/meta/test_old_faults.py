# SPDX-License-Identifier: Apache-2.0
"""No fault of the drivers before this one comes back."""

import ast
import dataclasses
import functools
import re

import pytest

from tests.meta import tree

SPEC = tree.ROOT / 'doc' / 'specs' / 'old-faults.rst'

#: How many faults each part has, and those in between.
PARTS = {'S': 12, 'K': 21, 'R': 36, 'L': 41, 'T': 15, 'D': 7}
IN_BETWEEN = ['L7a', 'L7b', 'L7c', 'L7d']

#: Words that a reason has at least.
LEAST_WORDS = 4

_ROW = re.compile(
    r'^ {3}\* - (?P<number>\S+)\n'
    r'^ {5}- (?P<then>.+?)\n'
    r'^ {5}- (?P<now>.+?)\n(?= {3}\* - |\n|\Z)',
    re.MULTILINE | re.DOTALL,
)
_TEST = re.compile(r'``(tests/[\w/]+\.py)::(test_\w+)``,?')

#: What sockets of other kinds would bring back, and names of sockets.
FOREIGN = {
    'PUB', 'SUB', 'XPUB', 'XSUB', 'PUSH', 'PULL', 'REQ', 'REP', 'STREAM',
    'IDENTITY', 'ROUTING_ID', 'CONNECT_ROUTING_ID', 'CONNECT_RID',
    'ROUTER_HANDOVER', 'Poller',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    number: str
    then: str
    now: str

    @property
    def tests(self):
        return _TEST.findall(self.now)

    @property
    def reason(self):
        return ' '.join(_TEST.sub('', self.now).split())

    def problem(self):
        """Return what is wrong with this row, or None."""
        if not self.then.strip():
            return f'{self.number} does not say what was wrong'
        for path, name in self.tests:
            if name not in functions_of(path):
                return f'{self.number}: there is no {path}::{name}'
        reason = self.reason
        if reason and (
            len(reason.split()) < LEAST_WORDS or not reason.endswith('.')
        ):
            return f'{self.number}: {reason!r} is no reason'
        if not self.tests and not reason:
            return f'{self.number} has neither test nor reason'
        return None


def rows(text):
    return [Row(**match.groupdict()) for match in _ROW.finditer(text)]


@functools.cache
def functions_of(path):
    file = tree.ROOT / path
    if not file.exists():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(tree.parse(file).ast)
        if isinstance(node, ast.FunctionDef)
    )


def test_every_old_fault_has_a_test_or_a_reason():
    text = SPEC.read_text()
    found = rows(text)
    # Each part has a row of headings too.
    assert len(found) == len(re.findall(r'^ {3}\* - ', text, re.MULTILINE))
    problems = [row.problem() for row in found if row.number != 'Number']
    assert not [problem for problem in problems if problem]


def test_no_number_is_missing():
    found = [row.number for row in rows(SPEC.read_text())]
    expected = [
        f'{part}{number}'
        for part, count in PARTS.items()
        for number in range(1, count + 1)
    ]
    assert sorted(n for n in found if n != 'Number') == sorted(
        expected + IN_BETWEEN
    )


@pytest.mark.parametrize(
    ('cell', 'problem'),
    [
        ('``tests/meta/test_size.py::test_no_module_is_too_long``', None),
        ('There is nothing that could do it.', None),
        ('``tests/meta/test_old_faults.py::test_x``', 'there is no'),
        ('``tests/meta/test_nothing.py::test_x``', 'there is no'),
        ('No.', 'no reason'),
        ('``test_x``', 'no reason'),
        ('There is nothing that could do it', 'no reason'),
    ],
)
def test_a_bad_row_is_found(cell, problem):
    table = f'   * - X1\n     - Some fault\n       of old\n     - {cell}\n'
    (row,) = rows(table)
    found = row.problem()
    assert (found is None) if problem is None else (problem in found)


# -- faults that a look at the code shows


def _is_of_import(handler):
    """Return whether an ``except`` is for imports that fail."""
    return handler.type is not None and any(
        tree.dotted(node) in {'ImportError', 'ModuleNotFoundError'}
        for node in ast.walk(handler.type)
    )


def test_no_import_is_optional():
    bad = [
        module.where(node)
        for module in tree.modules()
        for node in ast.walk(module.ast)
        if isinstance(node, ast.ExceptHandler) and _is_of_import(node)
    ]
    bad += [
        module.where(node)
        for module in tree.modules()
        for name, node in module.imports()
        if name.endswith('try_import')
    ]
    assert not bad


def test_nobody_reads_the_global_configuration():
    """The commands and their processes may: they are applications."""
    applications = ('zmq_driver.cmd', 'zmq_driver.bench.programs')
    bad = [
        module.where(node)
        for module in tree.modules()
        if not any(tree.is_under(module.name, one) for one in applications)
        for node in ast.walk(module.ast)
        if tree.dotted(node).endswith('cfg.CONF')
    ]
    assert not bad


def test_sockets_are_dealers_and_routers_without_a_name():
    bad = [
        f'{module.where(node)} uses {tree.dotted(node)}'
        for module in tree.modules()
        for node in ast.walk(module.ast)
        if isinstance(node, ast.Attribute)
        and tree.dotted(node.value) == 'zmq'
        and node.attr in FOREIGN
    ]
    assert not bad


def test_no_test_hides_that_the_driver_cannot_be_imported():
    """Only what the driver never needs may be missing where it is tested."""
    needed = ('zmq', 'redis', 'oslo', 'zmq_driver', 'msgpack', 'stevedore')
    bad = []
    for path in sorted((tree.ROOT / 'tests').rglob('test_*.py')):
        for node in ast.walk(tree.parse(path).ast):
            skips = (
                isinstance(node, ast.Call)
                and tree.dotted(node.func) == 'pytest.importorskip'
                and str(ast.literal_eval(node.args[0])).startswith(needed)
            )
            catches = isinstance(node, ast.ExceptHandler) and _is_of_import(
                node
            )
            if skips or catches:
                bad.append(f'{path}:{node.lineno}')
    assert not bad
