# SPDX-License-Identifier: Apache-2.0
"""The scenarios of tests/scenarios/pool."""

import pathlib
import re

import pytest

from tests.scenarios import runner

SCENARIOS = runner.load('pool')
SPEC = pathlib.Path(__file__).parents[3] / 'doc/specs/pool-lifecycle.rst'


@pytest.mark.parametrize('name', SCENARIOS)
def test_scenario(name):
    runner.Scenario(SCENARIOS[name]).play()


def test_every_rule_has_a_scenario():
    rules = set(re.findall(r'^(PL-\d\d)$', SPEC.read_text(), re.MULTILINE))
    assert all(scenario['rules'] for scenario in SCENARIOS.values())
    assert rules == {r for s in SCENARIOS.values() for r in s['rules']}


FAILING = {
    'rules': ['PL-02'],
    'about': 'It is wrong.',
    'pool': {'max_size': 1, 'max_per_peer': 1},
    'steps': [
        {'on': 't1', 'do': 'checkout', 'peer': 'a', 'as': 'x'},
        {'on': 't1', 'do': 'release', 'lease': 'x'},
    ],
    'events': ['t1: opened a', 't1: checked out a', 't2: checked in a'],
}


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({}, "'t1: checked in a' was told, not 't2: checked in a'"),
        ({'events': []}, '3 events, not 0'),
        (
            {'events': [*FAILING['events'][:2], 't1: checked in a']}
            | {'stats': {'idle': 7}},
            'idle is 1, not 7',
        ),
        (
            {
                'steps': [
                    FAILING['steps'][0] | {'error': 'PoolTimeout'},
                ]
            },
            'PoolTimeout was not raised',
        ),
        (
            {'steps': [FAILING['steps'][0], {'on': 't2', 'do': 'close'}] * 2},
            'PoolClosed',
        ),
        ({'steps': [{'on': 't', 'do': 'reap', 'closed': 3}]}, '0, not 3'),
        ({'steps': [FAILING['steps'][0] | {'waits': True}]}, 'did not wait'),
        (
            {
                'steps': [
                    {'on': 't', 'do': 'fork', 'steps': [FAILING['steps'][0]]}
                ]
            },
            'in the child: PoolClosed',
        ),
        (
            {'events': [*FAILING['events'][:2], 't1: checked in a']}
            | {'log': ['nothing']},
            '0 lines of the log, not 1',
        ),
    ],
)
def test_a_failing_scenario_tells_the_whole_story(change, text):
    with pytest.raises(runner.Mismatch) as caught:
        runner.Scenario(FAILING | change).play()
    assert text in str(caught.value)
    for part in ('operations:\n  0: {', 'threads:\n  t', 'events:\n'):
        assert part in str(caught.value)
