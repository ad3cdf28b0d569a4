# SPDX-License-Identifier: Apache-2.0
"""What Redis keeps of a listener: one member of a sorted set.

A MessagePack array: version, ipc endpoint, tcp endpoint, mark of the ipc
directory (16 bytes), incarnation (16 bytes), server, host, process id, start
of the member. A registration has the same bytes for as long as it lives, so
renewing it only moves its score.
"""

from typing import Any
from typing import NamedTuple

import msgpack

from zmq_driver import address

#: The version of the array. Later ones may append fields; what changes the
#: meaning of a field gets another number, which older readers skip.
VERSION = 1

_ID_SIZE = 16


class Entry(NamedTuple):
    """One record, as it was published."""

    ipc_endpoint: str
    tcp_endpoint: str
    #: The mark of the ipc directory.
    mark: bytes
    incarnation: bytes
    server: str
    host: str
    pid: int
    #: ISO 8601 with the offset from UTC.
    started: str

    def encode(self) -> bytes:
        """Return the member of the sorted set."""
        # Names may hold what Python takes for file names that are not UTF-8.
        packer = msgpack.Packer(unicode_errors='surrogatepass')
        encoded: bytes = packer.pack([VERSION, *self])
        return encoded

    def endpoint_for(self, mark: bytes) -> str:
        """Return how a process with this ipc directory reaches the listener.

        :param mark: the mark of the ipc directory of the one who asks
        :returns: '' if there is no way
        """
        if mark == self.mark and self.ipc_endpoint:
            return self.ipc_endpoint
        return self.tcp_endpoint

    def registration(self, where: address.Address) -> address.Registration:
        """Return the registration that was published at *where*."""
        route = address.Route(self.ipc_endpoint, self.incarnation, self.server)
        return address.Registration(where, route, self.tcp_endpoint)


def decode(member: bytes) -> Entry:
    """Return what a member of a sorted set says.

    :raises ValueError: it is garbage, or of another version
    """
    try:
        found = _unpack(member)
        if found[0] != VERSION:
            raise ValueError(f'version {found[0]!r:.80} is not {VERSION}')
        fields = found[1:_END]
    except (TypeError, IndexError, LookupError) as exc:
        raise ValueError(f'{type(exc).__name__}: {exc}') from None
    # One comparison, because there may be ten thousand of them.
    if tuple(map(type, fields)) != _TYPES:
        raise ValueError(f'{fields!r:.200} are not the fields of a record')
    entry = Entry._make(fields)
    if len(entry.incarnation) != _ID_SIZE:
        raise ValueError('the incarnation has not 16 bytes')
    return entry


def _unpack(member: bytes) -> Any:
    """Return what is in MessagePack.

    :raises ValueError: it is something else
    """
    try:
        return msgpack.unpackb(member)
    except UnicodeDecodeError:
        # Slower by far, and for names that nobody should have.
        return msgpack.unpackb(member, unicode_errors='surrogatepass')


_END = len(Entry._fields) + 1
_TYPES = (str, str, bytes, bytes, str, str, int, str)
