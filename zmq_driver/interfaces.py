# SPDX-License-Identifier: Apache-2.0
"""The network interfaces of this host, as the kernel lists them."""

import contextlib
import fcntl
import ipaddress
import pathlib
import socket as posix
import struct

#: ``SIOCGIFADDR`` of include/uapi/linux/sockios.h.
_SIOCGIFADDR = 0x8915
#: Bytes of a name in ``struct ifreq``, and of what comes before the address.
_NAME_SIZE = 16
_ADDRESS_AT = 20

_IF_INET6 = pathlib.Path('/proc/net/if_inet6')
#: The scope of addresses that are good on one link only, and the flags of
#: those that are not usable (yet): include/net/ipv6.h, linux/if_addr.h.
_LINK_LOCAL = 0x20
_DADFAILED = 0x08
_TENTATIVE = 0x40


def names() -> list[str]:
    """Return the names of all interfaces."""
    return [name for _, name in posix.if_nameindex()]


def addresses(name: str) -> list[str]:
    """Return the addresses of an interface that other hosts can be told.

    :returns: its first IPv4 address, then IPv6 addresses but those that are
        good on one link only; empty if there is none, or no such interface
    """
    found = _ipv4(name)
    with contextlib.suppress(OSError):
        for line in _IF_INET6.read_text().splitlines():
            address = _ipv6(line, name)
            if address is not None:
                found.append(address)
    return found


def _ipv4(name: str) -> list[str]:
    try:
        encoded = name.encode()
    except UnicodeError:
        return []
    if len(encoded) >= _NAME_SIZE:
        return []
    with posix.socket(posix.AF_INET, posix.SOCK_DGRAM) as one:
        try:
            answer = fcntl.ioctl(
                one, _SIOCGIFADDR, struct.pack('256s', encoded)
            )
        except OSError:
            return []
    return [posix.inet_ntoa(answer[_ADDRESS_AT : _ADDRESS_AT + 4])]


def _ipv6(line: str, name: str) -> str | None:
    """Return the address in a line of ``if_inet6`` if *name* has it."""
    digits, _index, _prefix, scope, flags, owner = line.split()
    if owner != name or int(scope, 16) == _LINK_LOCAL:
        return None
    if int(flags, 16) & (_TENTATIVE | _DADFAILED):
        return None
    return str(ipaddress.IPv6Address(bytes.fromhex(digits)))
