# SPDX-License-Identifier: Apache-2.0
"""Hosts are what this user may make, and a run says what they are."""

import os
import socket as posix
import subprocess

import pytest

from tests.fault import network
from tests.fault import site
from tests.fixtures import waiting


@pytest.fixture
def hosts():
    hosts = network.make()
    yield hosts
    hosts.close()


def is_reachable(host):
    """Return whether a host answers at all: it refuses this port."""
    try:
        posix.create_connection((host.address, 1), timeout=0.3)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


@pytest.mark.spec('FL-09')
def test_hosts_of_this_user(hosts):
    one, other = hosts.host('one'), hosts.host('other')
    assert one.address != other.address
    if isinstance(hosts, network.Loopback):
        assert 'loopback' in hosts.kind
        assert not one.can_be_unplugged
        assert one.prefix == []
        return
    assert 'namespaces' in hosts.kind
    shown = subprocess.run(
        [*one.prefix, 'ip', '-o', 'addr'],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    assert one.address in shown
    assert other.address not in shown
    assert is_reachable(one)
    one.unplug()
    assert not is_reachable(one)
    assert is_reachable(other)
    one.plug_in()
    waiting.until(lambda: is_reachable(one), 'plugged in')


@pytest.mark.spec('FL-09')
def test_without_the_right_hosts_are_on_the_loopback(monkeypatch):
    monkeypatch.setattr(os, 'getuid', lambda: 1000)
    hosts = network.make()
    assert isinstance(hosts, network.Loopback)
    assert hosts.host('one').address.startswith('127.')
    hosts.close()


@pytest.mark.spec('FL-09')
def test_namespaces_that_cannot_be_made(monkeypatch):
    def fail(*command):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(os, 'getuid', lambda: 0)
    monkeypatch.setattr(network, '_run', fail)
    assert isinstance(network.make(), network.Loopback)


@pytest.mark.spec('FL-09')
def test_a_local_site_says_what_it_is():
    assert site.Site('local', 1).machines == 'one host, ipc'
