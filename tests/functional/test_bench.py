# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver bench``, as its users run it."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.fixtures import ports
from tests.fixtures import process
from tests.fixtures import waiting

#: Seconds after which a command hangs, on a machine that is busy.
HANG = 120

SHORT = ('--rounds', '2', '--duration', '0.3', '--warmup', '0.1')
LONG = ('--rounds', '100', '--duration', '5')


@pytest.fixture
def command(ipc_dir):
    """Give a factory of running commands, which are ended by force."""
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                [
                    *(sys.executable, '-W', 'ignore'),
                    *('-m', 'zmq_driver.cmd.main', 'bench', *arguments),
                ],
                # Its processes are known by the directory that they work in.
                cwd=ipc_dir,
                env={
                    **os.environ,
                    'PYTHONPATH': str(process.ROOT),
                    'TMPDIR': str(ipc_dir),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(OSError):
            one.kill()
        one.communicate(timeout=HANG)


@pytest.fixture
def run(command):
    """Give what runs a command: status, output and errors."""

    def finish(*arguments):
        one = command(*arguments)
        output, errors = one.communicate(timeout=HANG)
        assert 'Traceback' not in errors
        return one.returncode, output, errors

    return finish


@pytest.fixture
def here(ipc_dir):
    """Give the URL of a directory of its own."""
    return f'zmq:///?rpc_zmq_ipc_dir={ipc_dir}'


def processes_in(directory):
    """Return the command lines of the processes that work there."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cwd'):
        with contextlib.suppress(OSError):
            if path.readlink() == directory:
                line = path.with_name('cmdline').read_bytes()
                found.append(line.replace(b'\0', b' ').decode())
    return found


def nothing_left(directory):
    waiting.until(
        lambda: not processes_in(directory), 'end of the processes', 30
    )
    assert not list(directory.iterdir())


@pytest.mark.spec(
    'BN-01', 'BN-02', 'BN-04', 'BN-06', 'BN-07', 'BN-12', 'BN-13', 'BN-19'
)
def test_every_pattern(run, here, ipc_dir, tmp_path):
    target, page = tmp_path / 'bench.json', tmp_path / 'bench.html'
    patterns = ('call', 'cast', 'fanout', 'notify')
    status, output, errors = run(
        *('--url', here, '--url', f'again={here}', '--baseline', 'again'),
        *('--pattern', ','.join(patterns), '--threads', '1,4', *SHORT),
        *('--servers', '2', '--json', str(target), '--report', str(page)),
    )
    assert (status, errors) == (0, '')
    assert 'Ratio (quartiles)' in output
    assert len(re.findall(r'^\| (?:call|cast)', output, re.MULTILINE)) == 10
    found = json.loads(target.read_text())
    assert found['problems'] == []
    assert found['command'][:2] == ['zmq-driver', 'bench']
    assert 'libzmq' in found['environment']
    assert found['plan']['servers'] == 2
    rows = {
        (row['pattern'], row['threads'], row['peer']): row
        for row in found['results']
    }
    # Of calls there is the raw ping-pong too.
    assert len(rows) == 2 * (2 * 4 + 1)
    for (pattern, _, peer), row in rows.items():
        check(row, pattern, peer)
    text = page.read_text()
    assert 'raw pyzmq' in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    nothing_left(ipc_dir)


def check(row, pattern, peer):
    assert row['rate'] > 0
    assert row['errors'] == {}
    assert 0 < row['p50'] <= row['p99'] <= row['p99.9'] <= row['longest']
    # The warm-up is not counted.
    assert [one['round'] for one in row['rounds']] == [0, 1]
    if peer == 'raw pyzmq':
        assert row['lost'] is row['duplicated'] is None
    else:
        assert (row['lost'], row['duplicated']) == (0, 0)
    for one in row['rounds']:
        sent = sum(count for _, count in one['histogram']['buckets'])
        copies = 2 if pattern == 'fanout' else 1
        assert one['messages'] == copies * sent
        assert one['rate'] <= one['messages'] / 0.3 + 1e-6
    assert row['cpu_client'] > 0
    assert row['cpu_server'] > 0
    assert (peer == 'again') is (row['ratios'] == {})


@pytest.mark.spec('BN-03', 'BN-05')
def test_sizes_think_time_and_processes(run, here, tmp_path):
    target = tmp_path / 'bench.json'
    status, _, errors = run(
        *('--url', here, '--threads', '2', '--processes', '2', *SHORT),
        *('--payload', '10', '--think', '0.05', '--json', str(target)),
    )
    assert (status, errors) == (0, '')
    rows = json.loads(target.read_text())['results']
    assert [row['peer'] for row in rows] == ['zmq', 'raw pyzmq']
    for row in rows:
        # Four threads, each a message in 50 ms or more.
        assert 0 < row['rate'] <= 4 / 0.05 * 1.5


@pytest.mark.spec('BN-10')
def test_grpc(run, here):
    pytest.importorskip('grpc')
    status, output, errors = run('--url', here, '--grpc', *SHORT)
    assert (status, errors) == (0, '')
    assert '| gRPC' in output


@pytest.mark.spec('BN-15', 'BN-16', 'BN-17', 'BN-18')
def test_a_server_that_cannot_be_reached(run, ipc_dir):
    port = ports.free()
    begin = time.monotonic()
    status, output, errors = run(
        *('--url', f'rabbit://user:s3cret@127.0.0.1:{port}/'),
        *('--start-timeout', '4', '--no-raw'),
    )
    assert time.monotonic() - begin < HANG / 2
    assert (status, output) == (1, '')
    assert f'rabbit (rabbit://127.0.0.1:{port}/)' in errors
    assert 'is not ready within 4 s' in errors
    assert 'Connection refused' in errors
    assert 's3cret' not in errors
    nothing_left(ipc_dir)


@pytest.mark.spec('BN-16')
def test_nothing_is_started_for_a_wrong_argument(run, ipc_dir):
    begin = time.monotonic()
    status, output, errors = run('--url', 'nix://u:s3cret@host/')
    assert time.monotonic() - begin < HANG / 2
    assert (status, output) == (1, '')
    assert "no driver 'nix'" in errors
    assert 's3cret' not in errors
    assert not list(ipc_dir.iterdir())
    status, _, errors = run('--threads', 'many')
    assert status == 2
    assert "'many' is not a number" in errors


@pytest.mark.spec('BN-15', 'BN-19')
@pytest.mark.parametrize('number', ['SIGINT', 'SIGTERM', 'SIGKILL'])
def test_whatever_ends_it_nothing_is_left(command, here, ipc_dir, number):
    one = command('--url', f'{here}&redis_password=s3cret', *LONG)
    # Itself, a server and a client of each peer.
    waiting.until(
        lambda: len(processes_in(ipc_dir)) == 5, 'start of the processes', 60
    )
    for line in processes_in(ipc_dir):
        assert 'cmd.main' in line or 's3cret' not in line
    one.send_signal(getattr(signal, number))
    _, errors = one.communicate(timeout=HANG)
    assert one.returncode != 0
    assert 'Traceback' not in errors
    assert 's3cret' not in errors
    nothing_left(ipc_dir)


@pytest.mark.spec('BN-14', 'BN-18')
def test_a_server_that_dies(command, here, ipc_dir):
    one = command('--url', here, '--no-raw', *LONG)
    waiting.until(
        lambda: (
            len(list(ipc_dir.iterdir())) > 2
            and len(processes_in(ipc_dir)) == 3
        ),
        'start of the processes',
        60,
    )
    for path in pathlib.Path('/proc').glob('[0-9]*/cwd'):
        with contextlib.suppress(OSError):
            line = path.with_name('cmdline').read_bytes()
            if path.readlink() == ipc_dir and b'programs.server' in line:
                os.kill(int(path.parent.name), signal.SIGKILL)
    _, errors = one.communicate(timeout=HANG)
    assert one.returncode == 1
    assert 'server 0 of zmq' in errors
    assert 'has ended' in errors
    assert 'Traceback' not in errors
    # What a killed driver leaves behind, the next one removes.
    waiting.until(
        lambda: not processes_in(ipc_dir), 'end of the processes', 30
    )
