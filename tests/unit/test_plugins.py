# SPDX-License-Identifier: Apache-2.0
"""Matchmakers and stores are found by name."""

import pytest

from zmq_driver import runtime
from zmq_driver.store import loading


@pytest.mark.parametrize(
    ('namespace', 'name', 'kind'),
    [
        (runtime.MATCHMAKERS, 'local', 'LocalMatchmaker'),
        (loading.STORES, 'none', 'NoStore'),
    ],
)
def test_they_are_found_by_name(namespace, name, kind):
    assert name in namespace.names()
    assert namespace.names() == sorted(namespace.names())
    assert namespace.load(name).__name__ == kind
    with pytest.raises(RuntimeError, match='nonsense'):
        namespace.load('nonsense')
