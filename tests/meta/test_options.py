# SPDX-License-Identifier: Apache-2.0
"""Every option is explained, bounded and read."""

import ast
import math

from oslo_config import cfg
import pytest

from tests.meta import tree
from zmq_driver import options

OPTIONS = [
    pytest.param(option, id=f'{group}.{option.name}')
    for group, found in options.list_opts()
    for option in found
]


def _read_names() -> set[str]:
    """Return every name that is read as an attribute: ``x.name``."""
    return {
        node.attr
        for module in tree.modules()
        for node in ast.walk(module.ast)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_there_are_options():
    assert OPTIONS


@pytest.mark.parametrize('option', OPTIONS)
def test_an_option_is_explained(option):
    assert option.help
    assert option.help.endswith('.')
    assert len(option.help.split()) >= 8


@pytest.mark.parametrize('option', OPTIONS)
def test_a_duration_states_its_unit(option):
    if isinstance(option, cfg.FloatOpt):
        assert 'econds' in option.help


@pytest.mark.parametrize('option', OPTIONS)
def test_a_number_has_a_lower_bound(option):
    if isinstance(option, cfg.IntOpt | cfg.FloatOpt):
        assert option.type.min is not None
        assert option.default is None or math.isfinite(option.default)


@pytest.mark.parametrize('option', OPTIONS)
def test_an_option_is_read(option):
    assert option.dest in _read_names()
