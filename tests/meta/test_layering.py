# SPDX-License-Identifier: Apache-2.0
"""Who may import what, and which calls nobody makes."""

import ast
import sys

import pytest

from tests.meta import tree

POOL_MAY_IMPORT = (
    'zmq_driver.clock',
    'zmq_driver.ownership',
    'zmq_driver.pool',
)

#: Modules that nothing here imports, and why.
FORBIDDEN = {
    'eventlet': 'the driver runs on native threads',
    'greenlet': 'the driver runs on native threads',
    'pickle': 'a message must not be able to run code',
    'marshal': 'a message must not be able to run code',
    'shelve': 'a message must not be able to run code',
    'dill': 'a message must not be able to run code',
}

#: Calls that block for ever unless a time-out is among their arguments: the
#: position that the time-out has, counted from 1.
WAITS = {
    'wait': 1,
    'wait_for': 2,
    'join': 1,
    'get': 2,
    'poll': 1,
    'result': 1,
    'communicate': 2,
}
#: Calls that only share the name of a wait: a method of ours, a constructor.
NO_WAITS = {'self._membership.join()', 'select.poll()'}
#: What the time-out may be called when it is given by name.
TIMEOUT_NAMES = {'timeout', 'timeout_ms', 'deadline'}


def test_the_pool_imports_only_what_it_may():
    bad = []
    for module in tree.modules():
        if not tree.is_under(module.name, 'zmq_driver.pool'):
            continue
        for name, node in module.imports():
            stdlib = name.partition('.')[0] in sys.stdlib_module_names
            if not stdlib and not any(
                tree.is_under(name, allowed) for allowed in POOL_MAY_IMPORT
            ):
                bad.append(f'{module.where(node)} imports {name}')
    assert not bad


def test_one_module_touches_the_private_driver_api():
    bad = []
    for module in tree.modules():
        if module.name == 'zmq_driver._oslo':
            continue
        bad += [
            f'{module.where(node)} imports {name}'
            for name, node in module.imports()
            if tree.is_under(name, 'oslo_messaging._drivers')
        ]
        bad += [
            f'{module.where(node)} uses {tree.dotted(node)}'
            for node in ast.walk(module.ast)
            if isinstance(node, ast.Attribute)
            and tree.dotted(node).startswith('oslo_messaging._')
        ]
    assert not bad


@pytest.mark.spec('LC-08')
def test_nothing_imports_what_is_forbidden():
    bad = [
        f'{module.where(node)} imports {name}: {why}'
        for module in tree.modules()
        for name, node in module.imports()
        for forbidden, why in FORBIDDEN.items()
        if tree.is_under(name, forbidden)
    ]
    assert not bad


def test_dependencies_are_absolute_and_without_cycles():
    """Every module can be understood after those that it imports."""
    names = {module.name for module in tree.modules()}
    needs = {}
    for module in tree.modules():
        needs[module.name] = set()
        for name, node in module.imports():
            assert not name.startswith('.'), (
                f'{module.where(node)} imports relatively'
            )
            found = next(
                (n for n in (name, name.rpartition('.')[0]) if n in names), ''
            )
            if found and found != module.name:
                needs[module.name].add(found)
    while needs:
        leaves = {name for name, found in needs.items() if not found}
        assert leaves, f'import cycle among {sorted(needs)}'
        needs = {
            name: found - leaves
            for name, found in needs.items()
            if name not in leaves
        }


def test_only_the_driver_context_makes_and_ends_contexts():
    bad = []
    for module in tree.modules():
        for node in ast.walk(module.ast):
            if not isinstance(node, ast.Call):
                continue
            name = tree.dotted(node.func)
            made = name in {'zmq.Context', 'Context'}
            if made and module.name == 'zmq_driver.context':
                continue
            if made or name.endswith(('Context.instance', '.destroy')):
                bad.append(f'{module.where(node)} calls {name}')
    assert not bad


def _endless(call: ast.Call) -> bool:
    """Return whether *call* looks like a wait without an end."""
    if not isinstance(call.func, ast.Attribute):
        return False
    name = call.func.attr
    if name not in WAITS:
        return False
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in TIMEOUT_NAMES:
            return _is_none(keyword.value)
        if keyword.arg == 'block':
            return _is_true(keyword.value)
    if name == 'get':
        # With arguments it is a mapping's, unless it is get(True).
        if not call.args:
            return True
        return len(call.args) == 1 and _is_true(call.args[0])
    position = WAITS[name]
    if len(call.args) < position:
        return True
    return _is_none(call.args[position - 1])


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_true(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.spec('TO-06')
def test_nothing_waits_without_a_limit():
    bad = []
    for module in tree.modules():
        if tree.is_under(module.name, 'zmq_driver.cmd'):
            # Programs, which wait for what their user does.
            continue
        bad += [
            f'{module.where(node)} calls {ast.unparse(node)}'
            for node in ast.walk(module.ast)
            if isinstance(node, ast.Call)
            and _endless(node)
            and ast.unparse(node) not in NO_WAITS
        ]
    assert not bad


@pytest.mark.parametrize(
    ('code', 'endless'),
    [
        ('event.wait()', True),
        ('event.wait(None)', True),
        ('event.wait(timeout=None)', True),
        ('event.wait(1.0)', False),
        ('event.wait(deadline.left())', False),
        ('condition.wait_for(ready)', True),
        ('condition.wait_for(ready, 1)', False),
        ('thread.join()', True),
        ('thread.join(timeout=left)', False),
        ("', '.join(names)", False),
        ('queue.get()', True),
        ('queue.get(True)', True),
        ('queue.get(block=True)', True),
        ('queue.get(block=False)', False),
        ('queue.get(True, 1)', False),
        ('queue.get(timeout=1)', False),
        ("mapping.get('key')", False),
        ('poller.poll()', True),
        ('poller.poll(50)', False),
        ('future.result()', True),
    ],
)
def test_the_check_knows_a_wait_without_a_limit(code, endless):
    assert _endless(ast.parse(code, mode='eval').body) is endless
