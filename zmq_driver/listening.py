# SPDX-License-Identifier: Apache-2.0
"""Where a driver listens for other hosts, and what it tells them.

Rules LI-01 to LI-09 of ``doc/specs/listening.rst``.
"""

from collections.abc import Sequence
import errno
import ipaddress
import logging
import pathlib
import socket as posix
from typing import NamedTuple
from typing import Protocol

import zmq

from zmq_driver import errors
from zmq_driver import hosts
from zmq_driver import interfaces

LOG = logging.getLogger(__name__)

_LOCAL_PORT_RANGE = pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range')

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Bindable(Protocol):
    """What is bound: a ROUTER.

    Thread: owner only.
    """

    def bind(self, endpoint: str, /) -> object:
        """Bind to one more endpoint."""


class _Place(NamedTuple):
    """An address to bind to."""

    #: As libzmq spells it.
    host: str
    #: What to tell others about it; None: that is a wildcard.
    concrete: IpAddress | None


class TcpListening:
    """The addresses and ports that the options allow.

    Thread: any (immutable).
    """

    def __init__(
        self,
        bind_address: str,
        host: str | None,
        first_port: int,
        port_count: int,
        only: Sequence[int] | None = None,
    ) -> None:
        """Keep the options of these names; nothing is looked up yet.

        :param bind_address: ``*``, an address, or the name of an interface
        :param host: what others are told; None: derived from *bind_address*
        :param only: the ports that others expect, whatever the range is;
            None: they are told
        """
        self._bind_address = bind_address.strip()
        self._host = (host or '').strip()
        self._ports = range(
            first_port, min(first_port + port_count, hosts.LAST_PORT + 1)
        )
        self._only = only

    def bind(self, socket: Bindable) -> str:
        """Bind *socket* to the first port that is free.

        :returns: the endpoint to connect to, ``tcp://host:port``
        :raises errors.ListenFailure: there is none; says which option to
            change
        """
        place = self._place()
        host = self._advertised(place)
        self._warn(host, place)
        for port in self._ports if self._only is None else self._only:
            try:
                socket.bind(f'tcp://{place.host}:{port}')
            except zmq.ZMQError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise self._refused(port, error) from error
            return f'tcp://{host}:{port}'
        raise self._exhausted()

    def _place(self) -> _Place:
        if self._bind_address == '*':
            return _Place('*', None)
        address = _parse(self._bind_address)
        if address is None:
            found = interfaces.addresses(self._bind_address)
            if not found:
                raise self._no_place()
            address = ipaddress.ip_address(found[0])
        return _Place(
            _literal(address), None if address.is_unspecified else address
        )

    def _no_place(self) -> errors.ListenFailure:
        known = interfaces.names()
        if self._bind_address in known:
            problem = 'is an interface without an address'
            fix = 'give it one, or name another interface'
        else:
            problem = 'is neither "*" nor an address nor an interface'
            fix = f'the interfaces of this host are {", ".join(known)}'
        return errors.ListenFailure(
            f'cannot listen for other hosts: rpc_zmq_bind_address = '
            f'{self._bind_address!r} {problem}; {fix}'
        )

    def _advertised(self, place: _Place) -> str:
        if not self._host:
            if place.concrete is not None:
                return _literal(place.concrete)
            return posix.gethostname()
        address = _parse(self._host)
        if address is not None and not address.is_unspecified:
            return _literal(address)
        if address is not None or not hosts.is_name(self._host):
            raise errors.ListenFailure(
                f'cannot listen for other hosts: rpc_zmq_host = '
                f'{self._host!r} is not the name or address of a host; set '
                f'it to what other hosts reach this one by, without a port'
            )
        return self._host

    def _warn(self, host: str, place: _Place) -> None:
        """Tell the operator what will make trouble later."""
        ephemeral = ephemeral_ports()
        if (
            self._only is None
            and self._ports.start < ephemeral.stop
            and ephemeral.start < self._ports.stop
        ):
            LOG.warning(
                'The ports %s (rpc_zmq_port, rpc_zmq_port_count) overlap with '
                '%s, from which the kernel takes ports for outgoing '
                'connections (net.ipv4.ip_local_port_range): they may be in '
                'use when a service starts. Choose ports outside.',
                _span(self._ports),
                _span(ephemeral),
            )
        local_only = place.concrete is not None and place.concrete.is_loopback
        if not local_only and _is_loopback(host):
            LOG.warning(
                'Other hosts are told to connect to %s, which is each host '
                'itself: set rpc_zmq_host to the name or address of this '
                'host.',
                host,
            )

    def _refused(self, port: int, error: zmq.ZMQError) -> errors.ListenFailure:
        problem = (
            f'cannot listen for other hosts at rpc_zmq_bind_address = '
            f'{self._bind_address!r}, port {port} of {_span(self._ports)} '
            f'(rpc_zmq_port, rpc_zmq_port_count)'
        )
        if error.errno == errno.EADDRNOTAVAIL:
            known = ', '.join(
                address
                for name in interfaces.names()
                for address in interfaces.addresses(name)
            )
            return errors.ListenFailure(
                f'{problem}: this host has no such address; set one of '
                f'{known}, or "*"'
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return errors.ListenFailure(
                f'{problem}: this user may not; use ports from 1024 on'
            )
        return errors.ListenFailure(f'{problem}: {error}')

    def _exhausted(self) -> errors.ListenFailure:
        if self._only is not None:
            listed = ', '.join(map(str, self._only))
            return errors.ListenFailure(
                f'cannot listen for other hosts at rpc_zmq_bind_address = '
                f'{self._bind_address!r}: of the ports at which others expect '
                f'this server ({listed}) none is free. List one for each '
                f'process; "ss -ltnp" shows who uses them'
            )
        problem = f'port {self._ports.start} is in use'
        if len(self._ports) > 1:
            problem = f'the ports {_span(self._ports)} are all in use'
        return errors.ListenFailure(
            f'cannot listen for other hosts at rpc_zmq_bind_address = '
            f'{self._bind_address!r}: {problem} '
            f'(rpc_zmq_port = {self._ports.start}, '
            f'rpc_zmq_port_count = {len(self._ports)}); raise '
            f'rpc_zmq_port_count, or choose another rpc_zmq_port. '
            f'"ss -ltnp" shows who uses them'
        )


def ephemeral_ports() -> range:
    """Return the ports that the kernel gives to outgoing connections.

    They are those of this network name space; empty if that is not known.
    """
    try:
        first, last = _LOCAL_PORT_RANGE.read_text().split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return range(0)


def _parse(text: str) -> IpAddress | None:
    if text.startswith('[') and text.endswith(']'):
        text = text[1:-1]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _literal(address: IpAddress) -> str:
    return f'[{address}]' if address.version == 6 else str(address)


def _is_loopback(host: str) -> bool:
    address = _parse(host)
    if address is not None:
        return address.is_loopback
    return host.partition('.')[0].lower() == 'localhost'


def _span(ports: range) -> str:
    if len(ports) == 1:
        return str(ports.start)
    return f'{ports.start}-{ports.stop - 1}'
