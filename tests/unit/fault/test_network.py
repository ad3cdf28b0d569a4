# SPDX-License-Identifier: Apache-2.0
"""Hosts are what this user may make, and a run says what they are."""

import os
import subprocess

import pytest

from tests.fault import network
from tests.fault import site


@pytest.fixture
def hosts():
    hosts = network.make()
    yield hosts
    hosts.close()


def pings(hosts, host):
    command = ['ping', '-c', '1', '-W', '1', hosts.address]
    return (
        subprocess.run(
            [*host.prefix, *command], capture_output=True, timeout=10
        ).returncode
        == 0
    )


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
