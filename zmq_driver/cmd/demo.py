# SPDX-License-Identifier: Apache-2.0
"""``zmq-driver demo``: RPC and notifications between real processes."""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import uuid

from cliff import command
from oslo_config import cfg
import oslo_messaging

from zmq_driver import clock
from zmq_driver import options

#: Names of the servers; each is a process of its own.
SERVERS = ('server-1', 'server-2', 'server-3')

#: Without the warnings that oslo's own modules give when imported.
PYTHON = (sys.executable, '-W', 'ignore')

#: Seconds that a server process may take to start.
START_TIMEOUT = 30.0
#: Seconds that the client process may take, and a server to end.
CLIENT_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0


class Demo(command.Command):
    """Show RPC and notifications between processes, then measure them.

    Starts three RPC server processes and one client process, which use
    nothing but oslo.messaging's public API. No broker and no other server is
    needed.

    Thread: owner only (the main thread).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser of the command's arguments."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--url',
            default='zmq://',
            help='transport URL (default: %(default)s)',
        )
        parser.add_argument(
            '--seconds',
            type=float,
            default=2.0,
            help='length of each measurement (default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run the processes; return the exit status."""
        # A mistake in the URL is better told once than by each process. cliff
        # shows the text of what is raised.
        oslo_messaging.get_rpc_transport(cfg.CONF, parsed_args.url).cleanup()
        topic = f'demo-{uuid.uuid4().hex[:8]}'
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(tempfile.TemporaryDirectory())
            arguments = ['--url', parsed_args.url, '--topic', topic]
            arguments += ['--store', store]
            servers = [
                stack.enter_context(_Server(name, arguments))
                for name in SERVERS
            ]
            for server in servers:
                server.wait_ready()
            client = subprocess.run(
                [
                    *PYTHON,
                    '-m',
                    'zmq_driver.cmd.demo_client',
                    *arguments,
                    '--seconds',
                    str(parsed_args.seconds),
                ],
                timeout=CLIENT_TIMEOUT + 2 * parsed_args.seconds,
                check=False,
            )
        return client.returncode


def configure(store: str) -> cfg.ConfigOpts:
    """Return the configuration of a process of the demo.

    :param store: directory for notifications, so that nothing is left of
        them, nor of the listener pools, when the demo is over
    """
    conf = cfg.CONF
    conf([], project='zmq-driver-demo')
    options.load(conf, oslo_messaging.TransportURL.parse(conf, 'zmq://'))
    for name, value in (
        ('notification_store', 'sqlite'),
        ('notification_store_directory', store),
    ):
        conf.set_default(name, value, group=options.GROUP)
    return conf


class _Server:
    """A server process; its output is shown under its name.

    Thread: owner only, except the thread that reads its output.
    """

    def __init__(self, name: str, arguments: list[str]) -> None:
        self._name = name
        self._command = [
            *PYTHON,
            '-m',
            'zmq_driver.cmd.demo_server',
            *arguments,
            '--server',
            name,
        ]
        self._ready = threading.Event()

    def __enter__(self) -> '_Server':
        # The server ends when its input does, so it cannot outlive us.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()
        return self

    def wait_ready(self) -> None:
        """Wait until the server receives messages.

        :raises RuntimeError: it did not start
        """
        deadline = clock.Deadline(START_TIMEOUT)
        while not self._ready.wait(0.1):
            if self._process.poll() is not None or deadline.passed():
                raise RuntimeError(f'{self._name} did not start')

    def __exit__(self, *exc_info: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
        self._reader.join(STOP_TIMEOUT)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _show(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            if line == 'READY\n':
                self._ready.set()
            else:
                print(f'  [{self._name}] {line}', end='', flush=True)
