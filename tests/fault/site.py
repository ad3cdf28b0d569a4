# SPDX-License-Identifier: Apache-2.0
"""A site: hosts, a matchmaker, servers and clients, and their journals."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import uuid

from tests.fault import journal
from tests.fault import machines
from tests.fault import network
from tests.fixtures import redis_server

KINDS = ('local', 'tcp', 'sentinel')

#: Seconds that an operation of a client may take.
DEADLINE = 10.0

SERVERS = ('a', 'b', 'c')
CLIENTS = ('x', 'y')

#: Seconds for which Redis knows a server that was killed.
RECORD_TTL = 12

#: Shorter than their defaults, so that what Redis forgets is seen in time.
#: The backlog is small enough to be filled.
OPTIONS = {
    'rpc_cast_timeout': DEADLINE,
    'notify_timeout': DEADLINE,
    'matchmaker_heartbeat_freq': 3,
    'matchmaker_heartbeat_ttl': RECORD_TTL,
    'rpc_zmq_topic_backlog': 20,
}


class Site:
    """What one run works on.

    ``servers`` are *a*, behind a proxy; *b*, on a host that can be unplugged
    (or behind a proxy too); and *c*, which is never killed.

    Thread: owner only.
    """

    def __init__(self, kind, seed, pause=0.01):
        """Prepare a site.

        :param kind: one of KINDS
        :param pause: seconds between two operations of a client's thread
        """
        self.kind = kind
        self.topic = f'laboratory-{uuid.uuid4().hex[:6]}'
        self.registry = None
        self._seed = seed
        self._pause = pause
        self._undo = contextlib.ExitStack()
        self._programs = []
        self.servers = {}
        self.clients = {}

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            undo.push(self._close)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *exc):
        self._close(*exc)

    @property
    def spans_hosts(self):
        return self.kind != 'local'

    @property
    def proxy_address(self):
        return self.network.address

    @property
    def machines(self):
        """What the hosts are."""
        return self.network.kind if self.spans_hosts else 'one host, ipc'

    def url(self, name, **options):
        """Return the transport URL of the process *name*."""
        options = {
            'rpc_zmq_ipc_dir': self.ipc_dir(name),
            # Redis loses all it has when it is killed here.
            'notification_store': 'sqlite',
            'notification_store_directory': self.store_dir(name),
            **options,
            **OPTIONS,
        }
        query = urllib.parse.urlencode(options, safe='/')
        match self.kind:
            case 'tcp':
                base = f'zmq+redis://{self._redis_address}/'
            case 'sentinel':
                base = f'zmq+sentinel://{self.registry.hosts}/mymaster'
            case _:
                base = 'zmq:///'
        return f'{base}?{query}'

    def ipc_dir(self, name):
        """Processes that share one are on one host."""
        if not self.spans_hosts:
            return self.shared_dir
        path = self.directory / f'ipc-{name}'
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def store_dir(self, name):
        """The ipc directory is small, so that it can be filled."""
        host = name if self.spans_hosts else 'host'
        path = self.directory / f'store-{host}'
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def server_journal(self, name):
        return self.directory / f'ran-{name}'

    def client_journal(self, name):
        return self.directory / f'told-{name}'

    def keep(self, program):
        """End *program* with the site at the latest."""
        ended = [one for one in self._programs if not one.running]
        for one in ended:
            self._programs.remove(one)
            one.close()
        self._programs.append(program)

    @property
    def lives(self):
        return [life for s in self.servers.values() for life in s.lives]

    # -- the load

    def begin(self, window):
        for client in self.clients.values():
            client.write(f'begin {window}')

    def pause(self):
        """End the load; return whether all operations ended."""
        ended = [client.ask('pause') for client in self.clients.values()]
        return all(ended)

    def counts(self):
        """Return the clients' counters, added up."""
        total = {}
        for client in self.clients.values():
            for name, count in client.ask('status').items():
                total[name] = total.get(name, 0) + count
        return total

    # -- beginning and end

    def _start(self):
        # A short path: the names of ipc sockets have at most 107 bytes.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='zl'))
        self._undo.callback(shutil.rmtree, self.directory, True)
        self._make_shared_dir()
        # Sentinels tell addresses, which are those of the loopback.
        self.network = (
            network.make() if self.kind == 'tcp' else network.Loopback()
        )
        self._undo.callback(self.network.close)
        self._start_registry()
        for number, name in enumerate(SERVERS):
            host = self.network.host(name)
            proxied = self.spans_hosts and (
                number == 0 or (number == 1 and not host.can_be_unplugged)
            )
            self.servers[name] = machines.Server(self, name, host, proxied)
        for server in self.servers.values():
            server.launch()
        for number, name in enumerate(CLIENTS):
            self.clients[name] = self._launch_client(number, name)
        for server in self.servers.values():
            server.wait()
        for client in self.clients.values():
            client.wait_for('ready', machines.PATIENCE)

    def _make_shared_dir(self):
        self.shared_dir = self.directory / 'ipc'
        self.shared_dir.mkdir(mode=0o700)
        self.can_be_full = self.kind == 'local' and os.getuid() == 0
        if self.can_be_full:
            options = f'size={FULL_AT},mode=0700'
            command = ['mount', '-t', 'tmpfs', '-o', options]
            try:
                subprocess.run(
                    [*command, 'laboratory', self.shared_dir],
                    check=True,
                    capture_output=True,
                )
            except subprocess.CalledProcessError:
                self.can_be_full = False
            else:
                self._undo.callback(
                    subprocess.run, ['umount', '-l', self.shared_dir]
                )

    def _start_registry(self):
        if self.kind == 'sentinel':
            self.registry = redis_server.SentinelDeployment()
            self._undo.callback(self.registry.close)
            self.registry.start()
        elif self.kind == 'tcp':
            address = self.network.address
            self.registry = redis_server.RedisServer(
                f'bind 127.0.0.1 {address}'.replace(
                    '127.0.0.1 127.0.0.1', '127.0.0.1'
                ),
                'protected-mode no',
            )
            self._undo.callback(self.registry.close)
            self.registry.start()
            self._redis_address = f'{address}:{self.registry.port}'

    def _launch_client(self, number, name):
        client = machines.Machine(
            'laboratory_client',
            self.network.host(name),
            *('--url', self.url(name)),
            *('--topic', self.topic),
            *('--name', name),
            *('--journal', self.client_journal(name)),
            *('--seed', self._seed * 10 + number),
            *('--deadline', DEADLINE),
            *('--pause', self._pause),
        )
        self.keep(client)
        return client.start(wait=False)

    def _close(self, *exc):
        # However one of them fails, the others are done.
        for server in self.servers.values():
            self._undo.callback(server.close_proxy)
        for program in self._programs:
            self._undo.callback(program.close)
        self._undo.close()


#: Bytes of the file system of the ipc directory, where one can be mounted.
FULL_AT = 1024 * 1024


class Readers:
    """What callers were told and what servers ran, since the last time.

    Thread: owner only.
    """

    def __init__(self, site):
        self._told = journal.ToldReader(
            [site.client_journal(name) for name in site.clients]
        )
        self._ran = [
            journal.Reader(site.server_journal(name)) for name in SERVERS
        ]

    def told(self):
        return self._told.read()

    def hanging(self):
        return self._told.hanging()

    def ran(self):
        return [
            journal.Ran(**record)
            for reader in self._ran
            for record in reader.read()
        ]

    def settle(self, complete, timeout):
        """Read until ``complete(ran so far)`` or *timeout* s have passed."""
        end = time.monotonic() + timeout
        found = self.ran()
        while not complete(found) and time.monotonic() < end:
            time.sleep(0.05)
            found += self.ran()
        return found
