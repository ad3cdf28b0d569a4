# SPDX-License-Identifier: Apache-2.0
"""The modules of the package, parsed."""

import ast
from collections.abc import Iterator
import dataclasses
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'zmq_driver'


@dataclasses.dataclass(frozen=True)
class Module:
    path: pathlib.Path
    text: str
    ast: ast.Module

    @property
    def name(self) -> str:
        """The dotted name, e.g. zmq_driver.pool.entry."""
        parts = self.path.relative_to(ROOT).with_suffix('').parts
        return '.'.join(p for p in parts if p != '__init__')

    def where(self, node: ast.AST) -> str:
        return f'{self.path.relative_to(ROOT)}:{node.lineno}'

    def imports(self) -> Iterator[tuple[str, ast.AST]]:
        """Yield the dotted name of everything that is imported.

        ``from a import b`` yields a.b: it may be a module or a name in one.
        """
        for node in ast.walk(self.ast):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node
            elif isinstance(node, ast.ImportFrom):
                start = '.' * node.level + (node.module or '')
                for alias in node.names:
                    yield f'{start}.{alias.name}', node


def parse(path: pathlib.Path) -> Module:
    text = path.read_text()
    return Module(path, text, ast.parse(text, str(path)))


@functools.cache
def modules() -> tuple[Module, ...]:
    return tuple(parse(p) for p in sorted(PACKAGE.rglob('*.py')))


def dotted(node: ast.AST) -> str:
    """Return 'a.b.c' for such an expression, '?.c' where a call is in it."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f'{dotted(node.value)}.{node.attr}'
    return '?'


def is_under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + '.')
