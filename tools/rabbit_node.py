# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ of one's own on the loopback, for comparisons.

It is Debian's ``rabbitmq-server`` with a node name, ports and directories of
its own, so that it has nothing to do with one that the system runs.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


def _free_ports(count):
    with contextlib.ExitStack() as opened:
        return [
            opened.enter_context(
                socket.create_server(('127.0.0.1', 0))
            ).getsockname()[1]
            for _ in range(count)
        ]


class RabbitNode:
    """One node, its port mapper and their directory.

    Thread: owner only.
    """

    def __init__(self):
        self.port, self._dist, self._mapper = _free_ports(3)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='zr'))
        home = self.directory / 'home'
        home.mkdir()
        self._env = {
            'PATH': os.environ['PATH'],
            'LANG': 'C.UTF-8',
            'HOME': str(home),
            'RABBITMQ_NODENAME': f'measure{os.getpid()}@localhost',
            'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
            'RABBITMQ_NODE_PORT': str(self.port),
            'RABBITMQ_DIST_PORT': str(self._dist),
            'RABBITMQ_MNESIA_BASE': str(self.directory / 'mnesia'),
            'RABBITMQ_LOG_BASE': str(self.directory / 'log'),
            'RABBITMQ_CONFIG_FILE': str(self.directory / 'rabbitmq'),
            'RABBITMQ_CONF_ENV_FILE': str(self.directory / 'none'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(self.directory / 'plugins'),
            'RABBITMQ_PID_FILE': str(self.directory / 'pid'),
            'ERL_EPMD_PORT': str(self._mapper),
            'ERL_EPMD_ADDRESS': '127.0.0.1',
        }

    @property
    def url(self):
        return f'rabbit://guest:guest@127.0.0.1:{self.port}/'

    def __enter__(self):
        try:
            with (self.directory / 'out').open('wb') as out:
                self._process = subprocess.Popen(
                    [SERVER],
                    env=self._env,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self):
        # It listens before it is ready; it says so when it is.
        end = time.monotonic() + START_TIMEOUT
        while b'completed with' not in self._said():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f'no RabbitMQ: {self._said().decode()}')
            time.sleep(0.1)

    def _said(self):
        return (self.directory / 'out').read_bytes()

    def __exit__(self, *exc):
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # The one that it has started on a port of its own.
        subprocess.run(
            ['epmd', '-port', str(self._mapper), '-kill'],
            env=self._env,
            capture_output=True,
        )
        shutil.rmtree(self.directory, ignore_errors=True)
