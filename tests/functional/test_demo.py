# SPDX-License-Identifier: Apache-2.0
"""The commands, as their users run them."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tests.fixtures import process
from tests.fixtures import waiting

#: Seconds after which a command hangs, on a machine that is busy.
HANG = 90


@pytest.fixture
def command(ipc_dir):
    """Give a function that runs ``zmq-driver``."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(process.ROOT),
        # Where the demo finds its directory; nobody else does.
        'XDG_RUNTIME_DIR': str(ipc_dir),
    }

    def run(*arguments):
        return subprocess.run(
            [
                *(sys.executable, '-W', 'ignore'),
                *('-m', 'zmq_driver.cmd.main', *arguments),
            ],
            env=environment,
            cwd=ipc_dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG,
        )

    return run


def processes_in(directory):
    """Return the ids of the processes that work in *directory*."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cwd'):
        try:
            if path.readlink() == directory:
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_demo_shows_every_pattern_and_ends(command):
    start = time.monotonic()
    ended = command('demo', '--seconds', '0.3')
    assert time.monotonic() - start < HANG / 2
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ''
    for shown in (
        r"call greet\(name='world'\) +-> .*'text': 'hello world'",
        r"call to server='server-2' +-> .*'server': 'server-2'",
        r'received: a cast, to one of three',
        r'\[server-1\] received: a fanout, to all three',
        r'\[server-2\] received: a fanout, to all three',
        r'\[server-3\] received: a fanout, to all three',
        r'raised ZeroDivisionError: division by zero',
        r'notified by demo-client: demo.started',
        r' 1 thread\(s\): +\d+ calls/s',
        r' 8 thread\(s\): +\d+ calls/s',
    ):
        assert re.search(shown, ended.stdout), shown
    assert ended.stdout.count('a cast, to one of three') == 1
    assert ended.stdout.count('notified by') == 1


def test_demo_leaves_nothing(command, ipc_dir):
    assert command('demo', '--seconds', '0.1').returncode == 0
    directory = ipc_dir / 'zmq-driver'
    assert directory.is_dir()
    assert not list(directory.iterdir())
    waiting.until(lambda: not processes_in(ipc_dir), 'end of the processes')


def test_help_lists_the_commands(command):
    for arguments in (['--help'], []):
        ended = command(*arguments)
        assert ended.returncode == 0
        assert 'demo' in ended.stdout


@pytest.mark.spec('LC-11')
def test_bad_url_is_explained_without_a_traceback(command):
    ended = command('demo', '--url', 'zmq+nonsense://user:sekrit@host/')
    assert ended.returncode != 0
    assert 'nonsense' in ended.stderr
    assert 'sekrit' not in ended.stderr + ended.stdout
    assert 'Traceback' not in ended.stderr


@pytest.mark.spec('LC-11')
def test_bad_url_ends_the_demo(command, ipc_dir):
    start = time.monotonic()
    ended = command('demo', '--url', 'zmq+nonsense://user:sekrit@host/')
    assert time.monotonic() - start < HANG / 2
    assert ended.returncode != 0
    assert "there is no matchmaker 'nonsense'" in ended.stderr
    assert 'sekrit' not in ended.stderr + ended.stdout
    assert not list(ipc_dir.iterdir())


def test_unknown_command_is_explained(command):
    ended = command('dmeo')
    assert ended.returncode != 0
    assert 'Traceback' not in ended.stderr
