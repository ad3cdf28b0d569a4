# SPDX-License-Identifier: Apache-2.0
"""Stores in real files."""

import pytest

from tests.unit.store import samples


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / 'ipc')


@pytest.fixture
def make(directory):
    """Return a function that makes a store in the directory."""
    made = []

    def make(site='local /', where=directory, **options):
        store = samples.make(where, site, **options)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make):
    return make()
