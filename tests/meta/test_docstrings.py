# SPDX-License-Identifier: Apache-2.0
"""Every class says which threads may use it, everything public is described.

Exceptions, enumerations and named tuples are values that nobody changes; of
them a ``Thread:`` line would say nothing.
"""

import ast
from collections.abc import Iterator
import enum
import pkgutil
import re

from tests.meta import tree

VALUES = (BaseException, enum.Enum, tuple)

#: What may follow ``Thread:``, up to the first bracket, comma or full stop.
THREADS = {
    'any',
    'any one',
    'caller holds the pool lock',
    'caller holds the lock',
    'drain',
    'main',
    'owner only',
    'router',
}

_THREAD = re.compile(r'^\s*Thread: ([^.,;:(]+?)\s*[.,;:(]', re.MULTILINE)


def _definitions(
    node: ast.AST, owner: str, public: bool
) -> Iterator[tuple[str, ast.AST, bool]]:
    """Yield name, node and publicness of all that classes and modules hold."""
    for child in ast.iter_child_nodes(node):
        if isinstance(
            child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            name = f'{owner}.{child.name}'
            visible = public and not child.name.startswith('_')
            yield name, child, visible
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, name, visible)
        elif isinstance(child, ast.If | ast.Try):
            yield from _definitions(child, owner, public)


def _is_value(name: str) -> bool:
    """Return whether the class of this dotted name needs no thread line."""
    return issubclass(pkgutil.resolve_name(name), VALUES)


def _all() -> Iterator[tuple[tree.Module, str, ast.AST, bool]]:
    for module in tree.modules():
        for name, node, public in _definitions(module.ast, module.name, True):
            yield module, name, node, public


def test_every_class_names_its_threads():
    bad = []
    for module, name, node, _ in _all():
        if not isinstance(node, ast.ClassDef) or _is_value(name):
            continue
        found = _THREAD.search(ast.get_docstring(node) or '')
        if not found:
            bad.append(f'{module.where(node)} {name} has no line "Thread: "')
        elif found[1] not in THREADS:
            bad.append(f'{module.where(node)} {name} has Thread: {found[1]}')
    assert not bad


def test_everything_public_is_described():
    bad = [
        f'{module.where(node)} {name} has no docstring'
        for module, name, node, public in _all()
        if public
        and not (ast.get_docstring(node) or '').strip()
        and not any(
            tree.dotted(d).endswith(('.setter', 'overload', 'override'))
            for d in node.decorator_list
        )
    ]
    bad += [
        f'{module.name} has no docstring'
        for module in tree.modules()
        if not ast.get_docstring(module.ast)
    ]
    assert not bad
