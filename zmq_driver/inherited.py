# SPDX-License-Identifier: Apache-2.0
"""The sockets of its parent that a forked child has open, and closes.

As long as any process has a listening socket or a connection open, the kernel
keeps it: the death of the one that served it would go unnoticed. Only the I/O
threads of libzmq touch these descriptors, and a forked child has no threads
of its parent, so nothing misses them there. Descriptors that libzmq uses on
the thread of the caller stay open; nobody else sees those.
"""

from collections.abc import Iterator
import contextlib
import ipaddress
import os
import socket as posix
import stat

from zmq_driver import hosts

_Name = tuple[str, int]


def close_sockets(ipc_endpoint: str, tcp_endpoint: str) -> int:
    """Close what belongs to a router of the parent; call it in the child.

    Those are the sockets that listen at its endpoints and the connections
    that were made to them. Other descriptors are left alone.

    :param ipc_endpoint: where it is bound, ``ipc://`` followed by a path
    :param tcp_endpoint: where it is bound too, as libzmq spells it, or ''
    :returns: how many were closed
    """
    closed = 0
    for fd in find_sockets(ipc_endpoint, tcp_endpoint):
        with contextlib.suppress(OSError):
            os.close(fd)
            closed += 1
    return closed


def find_sockets(ipc_endpoint: str, tcp_endpoint: str) -> Iterator[int]:
    """Give the descriptors that belong to a router of this process.

    :param ipc_endpoint: as with :func:`close_sockets`
    :param tcp_endpoint: as with :func:`close_sockets`
    """
    path = ipc_endpoint.removeprefix('ipc://')
    name = _bound(tcp_endpoint) if tcp_endpoint else None
    return (fd for fd in _sockets() if _belongs(fd, path, name))


def _sockets() -> Iterator[int]:
    try:
        names = os.listdir('/proc/self/fd')  # noqa: PTH208
    except OSError:
        return
    for fd in map(int, names):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd


def _belongs(fd: int, ipc_path: str, tcp: _Name | None) -> bool:
    try:
        socket = posix.socket(fileno=fd)
    except OSError:
        return False
    try:
        if socket.type != posix.SOCK_STREAM:
            return False
        name = socket.getsockname()
        if socket.family == posix.AF_UNIX:
            return bool(name == ipc_path)
        if tcp is None or socket.family not in (
            posix.AF_INET,
            posix.AF_INET6,
        ):
            return False
        # Nobody else can have a port that is bound at a wildcard.
        host, port = tcp
        return name[1] == port and host in ('', _plain(name[0]))
    except OSError:
        return False
    finally:
        socket.detach()


def _bound(endpoint: str) -> _Name:
    """Return address and port of an endpoint; the wildcard is ''."""
    host, _, port = endpoint.rpartition('/')[2].rpartition(':')
    address = _plain(hosts.unbracketed(host))
    wildcard = ipaddress.ip_address(address).is_unspecified
    return '' if wildcard else address, int(port)


def _plain(host: str) -> str:
    """Return an address in one spelling: no interface, IPv4 as such."""
    address = ipaddress.ip_address(host.partition('%')[0])
    mapped = getattr(address, 'ipv4_mapped', None)
    return str(mapped or address)
