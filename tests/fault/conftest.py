# SPDX-License-Identifier: Apache-2.0
"""Prints what the laboratory found, also when all is well."""

import pytest

#: The lines of the report.
REPORT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(REPORT, []):
        terminalreporter.write_line(line)
