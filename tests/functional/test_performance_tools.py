# SPDX-License-Identifier: Apache-2.0
"""The tools that show where time goes know the driver as it is."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.fixtures import process

#: Seconds after which a tool hangs, on a machine that is busy.
HANG = 180

#: The stages of a call, in their order.
STAGES = [
    'prepare',
    'serialise',
    'look up',
    'check out',
    'send',
    'wire',
    'receive',
    'decode',
    'executor',
    'dispatch',
    'reply',
    'wire',
    'receive',
    'return',
]

ROW = re.compile(
    r'(?P<stage>[a-z ]+?) +(?P<whose>[a-z]+) +(?P<us>[0-9.]+)  .*'
)


def run(tool, *arguments):
    return subprocess.run(
        [
            *(sys.executable, '-W', 'ignore'),
            *(str(pathlib.Path('tools') / tool), *arguments),
        ],
        cwd=process.ROOT,
        env={**os.environ, 'PYTHONPATH': str(process.ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=HANG,
        check=True,
    ).stdout.splitlines()


@pytest.mark.spec('PF-02')
def test_the_profile_of_a_call_has_every_stage():
    lines = run('profile_call.py', '--calls', '30', '--rounds', '1')
    rows = [ROW.fullmatch(line) for line in lines[1 : 1 + len(STAGES)]]
    assert [row and row['stage'] for row in rows] == STAGES
    # Nothing ends before it begins, and only to wake up may take no time.
    for row in rows:
        assert float(row['us']) >= (0.0 if row['whose'] == 'wire' else 0.1)
    cpu = {line.split()[0]: line.split()[1:3] for line in lines[-3:]}
    for side in ('client', 'server'):
        python, pyzmq = map(float, cpu[side])
        assert python > 0.0, side
        assert pyzmq > 0.0, side


@pytest.mark.spec('PF-02')
def test_the_python_of_a_call_is_measured():
    client, server, together = run('measure_python.py', '--rounds', '2')
    for line in (client, server):
        _, whole, _, _, _, _, codec, _ = line.split()
        assert 0.0 < float(codec) < float(whole)
    assert float(together.split()[1]) > 0.0


@pytest.mark.spec('PF-02')
def test_the_switches_of_a_call_are_counted():
    lines = run('count_switches.py', '--seconds', '0.5', '--thin')
    assert len(lines) == 8
    for line in lines:
        whose, figures = line.split(': ')
        waits, _, _, others, _, _, us, *_ = figures.split()
        assert 0.5 < float(waits) < 50.0, whose
        assert float(others) >= 0.0, whose
        assert float(us) > 0.0, whose
