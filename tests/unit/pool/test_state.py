# SPDX-License-Identifier: Apache-2.0
"""The states are those of doc/specs, and one method each sets them."""

import ast
import inspect
import itertools
import pathlib
import re
import threading

import pytest

from tests.unit.pool import fakes
from zmq_driver import pool
from zmq_driver.pool import ledger
from zmq_driver.pool import state

SPEC = pathlib.Path(__file__).parents[3] / 'doc/specs/pool-lifecycle.rst'
CODE = pathlib.Path(inspect.getfile(pool)).parent


def _table(title):
    """Return the steps that the table called *title* draws."""
    text = SPEC.read_text().partition(f'list-table:: {title}\n')[2]
    text = re.split(r'\n\S', text)[0]
    return set(re.findall(r'\* - ([A-Z_]+)\n     - ([A-Z_]+)\n', text))


def _steps(table):
    return {(old.name, new.name) for old in table for new in table[old]}


def test_the_spec_draws_the_steps_of_an_entry():
    assert _table('Steps of an entry') == _steps(state.TRANSITIONS)


def test_the_spec_draws_the_steps_of_a_pool():
    assert _table('Steps of a pool') == _steps(state.POOL_TRANSITIONS)


def test_every_state_has_a_row():
    assert set(state.TRANSITIONS) == set(state.EntryState)
    assert set(state.POOL_TRANSITIONS) == set(state.PoolState)


def test_what_an_error_message_calls_a_reason_is_unique():
    assert len({reason.value for reason in pool.EvictReason}) == len(
        pool.EvictReason
    )


def _functions():
    for path in sorted(CODE.glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield path.stem, node


def test_states_are_set_in_one_place_each():
    setters = set()
    for module, function in _functions():
        for node in ast.walk(function):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = getattr(node, 'targets', None) or [node.target]
                for target in targets:
                    if 'state' in ast.unparse(target).split('.'):
                        setters.add((module, function.name))
    assert setters == {
        ('entry', '__init__'),
        ('ledger', '__init__'),
        ('ledger', 'move_locked'),
        ('ledger', 'move_pool_locked'),
    }


def test_what_needs_the_lock_begins_by_checking_that_it_is_held():
    bad = []
    for module, function in _functions():
        if not function.name.endswith('_locked'):
            continue
        body = function.body
        if ast.get_docstring(function):
            body = body[1:]
        while isinstance(body[0], ast.Assign):
            body = body[1:]
        first = ast.unparse(body[0])
        if not re.match(r'[\w.]+(check_held\(\)|move_locked\()', first):
            bad.append(f'{module}.{function.name} begins with {first}')
    assert not bad


@pytest.fixture
def books():
    lock = threading.Lock()
    books = ledger.Ledger(lock)
    with lock:
        books.holder = threading.current_thread()
        yield books


@pytest.mark.parametrize(
    ('old', 'new'), itertools.product(state.EntryState, repeat=2)
)
def test_an_entry_takes_no_other_step(books, old, new):
    entry = books.add_locked('a', threading.current_thread(), 0.0)
    entry.state = old
    if new in state.TRANSITIONS[old]:
        books.move_locked(entry, new)
        assert entry.state is new
    else:
        with pytest.raises(AssertionError, match='an entry goes from'):
            books.move_locked(entry, new)
        assert entry.state is old


@pytest.mark.parametrize(
    ('old', 'new'), itertools.product(state.PoolState, repeat=2)
)
def test_a_pool_takes_no_other_step(books, old, new):
    books.state = old
    if new in state.POOL_TRANSITIONS[old]:
        books.move_pool_locked(new)
        assert books.state is new
    else:
        with pytest.raises(AssertionError, match='a pool goes from'):
            books.move_pool_locked(new)
        assert books.state is old


def test_the_books_are_closed_to_who_does_not_hold_the_lock():
    lock = threading.Lock()
    books = ledger.Ledger(lock)
    books.holder = threading.current_thread()
    with pytest.raises(AssertionError, match='lock is not held'):
        books.check_held()
    with lock, fakes.actors(1) as [actor]:
        books.check_held()
        with pytest.raises(AssertionError, match='lock is not held'):
            fakes.run(actor, books.check_held)
