# SPDX-License-Identifier: Apache-2.0
"""Limits are checked once, where they are made."""

import dataclasses
import re

import pytest

from zmq_driver import pool


def test_the_defaults_are_allowed():
    pool.PoolOptions()


def test_the_least_limits_are_allowed():
    pool.PoolOptions(
        max_size=1,
        max_per_peer=1,
        max_waiters=0,
        idle_ttl=0,
        max_age=0,
        reap_interval=0.001,
        min_idle=0,
        leak_after=0,
    )


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
        (
            {'min_idle': 1.0},
            'min_idle=1.0 is no limit: give a whole number of 0 or more',
        ),
        (
            {'max_per_peer': 2, 'min_idle': 3},
            (
                'min_idle=3 can never be reached with max_per_peer=2: '
                'lower the one or raise the other'
            ),
        ),
        (
            {'reap_interval': 0},
            (
                'reap_interval=0 is no interval: '
                'give a number of seconds greater than 0'
            ),
        ),
        (
            {'reap_interval': -1.5},
            (
                'reap_interval=-1.5 is no interval: '
                'give a number of seconds greater than 0'
            ),
        ),
    ],
)
def test_a_limit_out_of_bounds_is_refused(limits, text):
    with pytest.raises(ValueError, match=f'^{re.escape(text)}$'):
        pool.PoolOptions(**limits)


@pytest.mark.spec('PL-31')
@pytest.mark.parametrize('name', ['idle_ttl', 'max_age', 'leak_after'])
@pytest.mark.parametrize('value', [-1, -0.5, float('nan'), '1', None, True])
def test_a_time_out_of_bounds_is_refused(name, value):
    text = (
        f'{name}={value!r} is no time: '
        f'give a number of seconds, or 0 to turn it off'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(text)}$'):
        pool.PoolOptions(**{name: value})


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pool.PoolOptions().max_size = 7
