# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps, in this process only."""

import time

_time = time.time
_time_ns = time.time_ns


def jump(seconds):
    """Let :func:`time.time` be *seconds* ahead; 0 puts it right again."""
    time.time = lambda: _time() + seconds
    time.time_ns = lambda: _time_ns() + int(seconds * 1e9)
