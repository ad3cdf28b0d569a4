# SPDX-License-Identifier: Apache-2.0
"""A module is short enough to be read in one sitting."""

from tests.meta import tree

MOST_LINES = 400


def test_no_module_is_too_long():
    long = {
        module.name: lines
        for module in tree.modules()
        if (lines := len(module.text.splitlines())) > MOST_LINES
    }
    assert not long
