# SPDX-License-Identifier: Apache-2.0
"""A machine that keeps threads from running is noticed."""

import time

import pytest

from tests.fault import pulse
from tests.fixtures import waiting


@pytest.mark.spec('FL-05')
def test_lateness_is_noticed():
    ahead = 0.0

    def clock():
        return time.monotonic() + ahead

    with pulse.Pulse(clock) as beat:
        time.sleep(3 * pulse.BEAT)
        ahead = 500.0
        waiting.until(lambda: beat.latest > 400.0, 'late beat')
    assert beat.latest < 510.0
