# SPDX-License-Identifier: Apache-2.0
"""The table of the specification is what the laboratory reads."""

import inspect

import oslo_messaging
import pytest

from tests.fault import expectations
from tests.fault import faults
from tests.fault import site
from zmq_driver import errors

TABLE = """\
Fault, Sites, Call, Cast, Fanout, Notification
killed, local tcp, "ok, PeerLost 0.5", "ok, gone", "ok, copies", ok
stopped, tcp, ok, ok, ok, "ok, again"
"""


def test_cells_are_read():
    rows = expectations.parse(TABLE)
    assert list(rows) == ['killed', 'stopped']
    assert rows['killed'].sites == ('local', 'tcp')
    cells = rows['killed'].cells
    assert cells['call'].errors == {'PeerLost': 0.5}
    assert not cells['call'].gone
    assert cells['cast'].gone
    assert cells['fanout'].copies
    assert rows['stopped'].cells['notification'].again


@pytest.mark.parametrize('cell', ['okay', 'PeerLost', '', 'ok gone'])
def test_cell_that_says_nothing(cell):
    with pytest.raises(ValueError, match='says nothing'):
        expectations.parse_cell('fault', 'call', cell)


def test_fault_that_is_twice_in_the_table():
    with pytest.raises(ValueError, match='twice'):
        expectations.parse(TABLE.replace('stopped', 'killed'))


@pytest.mark.spec('FL-12')
def test_each_fault_has_a_row_and_each_row_a_fault():
    rows = expectations.rows()
    assert set(rows) == set(faults.FAULTS)
    for row in rows.values():
        assert row.sites
        assert set(row.sites) <= set(faults.FAULTS[row.fault].kinds)
        assert set(faults.FAULTS[row.fault].kinds) <= set(site.KINDS)


@pytest.mark.spec('FL-12')
def test_each_error_of_the_table_exists():
    known = {
        name
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, oslo_messaging.MessagingException)
    }
    for row in expectations.rows().values():
        for cell in row.cells.values():
            assert set(cell.errors) <= known
