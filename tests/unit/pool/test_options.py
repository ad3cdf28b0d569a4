# SPDX-License-Identifier: Apache-2.0
"""Limits are checked once, where they are made."""

import dataclasses
import re

import pytest

from zmq_driver import pool


def test_the_defaults_are_allowed():
    pool.PoolOptions()


def test_the_least_limits_are_allowed():
    pool.PoolOptions(max_size=1, max_per_peer=1, max_waiters=0)


@pytest.mark.spec('PL-31')
@pytest.mark.parametrize(
    ('limits', 'text'),
    [
        (
            {'max_size': 0},
            'max_size=0 is no limit: give a whole number of 1 or more',
        ),
        (
            {'max_per_peer': -1},
            'max_per_peer=-1 is no limit: give a whole number of 1 or more',
        ),
        (
            {'max_waiters': -1},
            'max_waiters=-1 is no limit: give a whole number of 0 or more',
        ),
        (
            {'max_size': 1.5},
            'max_size=1.5 is no limit: give a whole number of 1 or more',
        ),
        (
            {'max_size': True},
            'max_size=True is no limit: give a whole number of 1 or more',
        ),
        (
            {'max_size': 2, 'max_per_peer': 3},
            (
                'max_per_peer=3 can never be reached with max_size=2: '
                'lower the one or raise the other'
            ),
        ),
    ],
)
def test_a_limit_out_of_bounds_is_refused(limits, text):
    with pytest.raises(ValueError, match=f'^{re.escape(text)}$'):
        pool.PoolOptions(**limits)


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pool.PoolOptions().max_size = 7
