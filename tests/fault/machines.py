# SPDX-License-Identifier: Apache-2.0
"""The processes of a site: servers that come and go, and clients."""

import itertools
import resource
import time

from tests.fault import journal
from tests.fault import network
from tests.fault import proxy
from tests.fixtures import process
from tests.fixtures import waiting

#: Seconds for what a process is told to do.
PATIENCE = 60.0

#: The lowest ones are open from the start for as long as the process lives.
FEWEST_DESCRIPTORS = 5

#: A server has a driver for RPC and one for notifications.
PORTS = 2


class Machine(process.Program):
    """A program on a host of its own."""

    def __init__(self, module, host, *arguments):
        super().__init__(module, *arguments)
        self._command = [*host.prefix, *self._command]
        self._numbers = itertools.count(1)

    def write(self, line):
        try:
            super().write(line)
        except BrokenPipeError:
            self._process.wait(PATIENCE)
            raise AssertionError(
                f'{self.name} ended by itself with '
                f'{self._process.returncode}: {self.errors()}'
            ) from None

    def ask(self, command):
        """Send a command that is answered; return the answer."""
        line = f'{command} {next(self._numbers)}'
        self.write(line)
        return self.wait_for(line, PATIENCE)[line]

    @property
    def running(self):
        return self._process.poll() is None

    def exhaust_descriptors(self):
        """Let it open nothing more; what is open goes on."""
        self._limit_descriptors(FEWEST_DESCRIPTORS)

    def grant_descriptors(self):
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        self._limit_descriptors(hard)

    def _limit_descriptors(self, count):
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, hard))


class Server:
    """One name on one host, whichever process bears it."""

    def __init__(self, site, name, host, proxied):
        self.name = name
        self.host = host
        self.lives = []
        self.program = None
        self.proxy = None
        self._proxied = proxied
        self._site = site
        self._port = None
        self._options = {}
        if site.spans_hosts:
            self._options = {
                'rpc_zmq_bind_address': host.address,
                'rpc_zmq_port_count': PORTS,
            }
            if proxied:
                self._options['rpc_zmq_host'] = site.proxy_address

    @property
    def life(self):
        return self.lives[-1]

    def launch(self, same_port=False):
        """Begin to start; :meth:`wait` waits for it."""
        if self._site.spans_hosts and not (same_port and self._port):
            self._choose_port()
        url = self._site.url(self.name, **self._options)
        self.program = Machine(
            'laboratory_server',
            self.host,
            *('--url', url),
            *('--topic', self._site.topic),
            *('--server', self.name),
            *('--journal', self._site.server_journal(self.name)),
        )
        self._site.keep(self.program)
        self.program.start(wait=False)
        return self

    def wait(self):
        ready = self.program.wait_for('ready', PATIENCE)
        self.lives.append(
            journal.Life(self.name, ready['pid'], since=ready['at'])
        )
        return self

    def _choose_port(self):
        self.close_proxy()
        while True:
            self._port = network.port()
            if self._proxied:
                try:
                    self.proxy = proxy.Proxies(
                        self._site.proxy_address,
                        self.host.address,
                        range(self._port, self._port + PORTS),
                    )
                except OSError:
                    continue
            break
        self._options['rpc_zmq_port'] = self._port

    def kill(self):
        self.life.until = self.life.killed_at = time.monotonic()
        self.program.kill()

    def stop(self):
        self.life.until = time.monotonic()
        self.program.stop()

    def close_proxy(self):
        if self.proxy is not None:
            self.proxy.close()
            self.proxy = None


def wait_until_ended(program, timeout):
    waiting.until(lambda: not program.running, 'end of the process', timeout)
