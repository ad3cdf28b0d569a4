# SPDX-License-Identifier: Apache-2.0
"""Hosts: network namespaces on a bridge where possible, else loopback."""

import contextlib
import os
import random
import shutil
import subprocess

from zmq_driver import listening


class Host:
    """Where processes run: how they are started, and at which address."""

    def __init__(self, name, address, namespace=None, link=None):
        self.name = name
        self.address = address
        #: What a command line begins with, so that it runs here.
        self.prefix = ['ip', 'netns', 'exec', namespace] if namespace else []
        self._link = link

    @property
    def can_be_unplugged(self):
        return self._link is not None

    def unplug(self):
        _run('ip', 'link', 'set', self._link, 'down')

    def plug_in(self):
        _run('ip', 'link', 'set', self._link, 'up')


class Namespaces:
    """Hosts that are network namespaces with a cable to a bridge.

    Thread: owner only.
    """

    kind = 'network namespaces'

    def __init__(self):
        self._tag = f'zl{random.randrange(16**5):05x}'
        self._net = f'10.{random.randrange(64, 255)}.{random.randrange(255)}'
        self._undo = contextlib.ExitStack()
        self._hosts = 0
        #: The address of this process.
        self.address = f'{self._net}.1'
        self._do('ip', 'link', 'add', self._tag, 'type', 'bridge')
        self._undo.callback(_run, 'ip', 'link', 'del', self._tag)
        try:
            self._do(
                'ip', 'addr', 'add', f'{self.address}/24', 'dev', self._tag
            )
            self._do('ip', 'link', 'set', self._tag, 'up')
        except BaseException:
            self.close()
            raise

    def host(self, name):
        self._hosts += 1
        namespace = f'{self._tag}-{self._hosts}'
        link = f'{self._tag}h{self._hosts}'
        address = f'{self._net}.{self._hosts + 1}'
        self._do('ip', 'netns', 'add', namespace)
        self._undo.callback(_run, 'ip', 'netns', 'del', namespace)
        inside = ['ip', '-n', namespace]
        self._do(
            *('ip', 'link', 'add', link, 'type', 'veth'),
            *('peer', 'name', 'eth0', 'netns', namespace),
        )
        self._do('ip', 'link', 'set', link, 'master', self._tag, 'up')
        self._do(*inside, 'addr', 'add', f'{address}/24', 'dev', 'eth0')
        self._do(*inside, 'link', 'set', 'eth0', 'up')
        self._do(*inside, 'link', 'set', 'lo', 'up')
        return Host(name, address, namespace, link)

    def close(self):
        self._undo.close()

    def _do(self, *command):
        _run(*command)


class Loopback:
    """Hosts that are addresses of the loopback interface.

    Thread: owner only.
    """

    kind = 'processes on the loopback interface'
    address = '127.0.0.1'

    def __init__(self):
        self._hosts = 0
        self._net = f'127.{random.randrange(1, 255)}.{random.randrange(255)}'

    def host(self, name):
        self._hosts += 1
        return Host(name, f'{self._net}.{self._hosts + 1}')

    def close(self):
        pass


def _run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=10)


def make():
    """Return real hosts if this user may make them, or else loopback."""
    if os.getuid() != 0 or not shutil.which('ip'):
        return Loopback()
    try:
        made = Namespaces()
    except subprocess.CalledProcessError:
        return Loopback()
    try:
        made.host('trial')
    except subprocess.CalledProcessError:
        made.close()
        return Loopback()
    return made


def port():
    """Return a port at random, outside of those of outgoing connections."""
    busy = listening.ephemeral_ports()
    return random.choice([p for p in range(10240, 32000) if p not in busy])
