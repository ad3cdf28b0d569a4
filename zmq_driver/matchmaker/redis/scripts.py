# SPDX-License-Identifier: Apache-2.0
"""The keys in Redis, and the Lua scripts that change and read them.

Each operation is one script, so that it is one round trip, happens whole or
not at all, and goes by the clock of the server.
"""

import hashlib
from typing import Final
from typing import NamedTuple
import urllib.parse

from zmq_driver import address


class Script(NamedTuple):
    """A Lua script and the name that Redis knows it by."""

    text: str
    sha: str


def script(text: str) -> Script:
    """Return the script of this text."""
    # Redis names scripts by SHA-1; nothing here relies on its strength.
    digest = hashlib.sha1(text.encode(), usedforsecurity=False)
    return Script(text, digest.hexdigest())


#: Milliseconds since 1970 on the clock of the server.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function outlive(key, ttl)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
"""

#: KEYS: index, settled, and the address of each registration.
#: ARGV: TTL, settle time and longest gap in milliseconds; and of each
#: registration its member, the name of its address and its channel.
#: Returns 1 for each that was not there (or had expired), else 0.
REGISTER: Final = script(
    _NOW
    + """
local ttl, settle, gap = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local score = text(now + ttl)
if not redis.call('SET', KEYS[2], text(now + settle), 'NX', 'PX', gap) then
  outlive(KEYS[2], tonumber(gap))
end
local made = {}
for i = 3, #KEYS do
  local member = ARGV[3 * i - 5]
  local before = redis.call('ZSCORE', KEYS[i], member)
  redis.call('ZADD', KEYS[i], score, member)
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(now))
  outlive(KEYS[i], ttl)
  redis.call('ZADD', KEYS[1], 'GT', score, ARGV[3 * i - 4])
  local new = not before or tonumber(before) <= now
  if new then redis.pcall('PUBLISH', ARGV[3 * i - 3], '') end
  made[i - 2] = new and 1 or 0
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
outlive(KEYS[1], ttl)
return made
"""
)

#: KEYS: index, settled, and of each registration its address and the set of
#: those that left it.
#: ARGV: of each registration its member, the name of its address and its
#: channel.
#: Returns how many there were.
UNREGISTER: Final = script(
    _NOW
    + """
local settles = tonumber(redis.call('GET', KEYS[2]) or '0')
local count = 0
for i = 3, #KEYS, 2 do
  local n = (i - 3) / 2 * 3
  local member = ARGV[n + 1]
  if redis.call('ZREM', KEYS[i], member) == 1 then
    count = count + 1
    redis.pcall('PUBLISH', ARGV[n + 3], '')
  end
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[n + 2])
  end
  if settles > now then
    redis.call('ZADD', KEYS[i + 1], text(settles), member)
    outlive(KEYS[i + 1], settles - now)
  end
end
return count
"""
)

#: KEYS: address, settled, those that left the address.
#: Returns the members that have not expired; 1 if they are all; and if not,
#: those that left. Both as MessagePack arrays (or nothing), which are read
#: several times faster than as many answers.
#: What cannot be pruned (on a replica, without the right to) is left alone.
LOOKUP: Final = script(
    _NOW
    + """
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf')
local function packed(list)
  if #list == 0 then return '' end
  return cmsgpack.pack(list)
end
local settles = redis.call('GET', KEYS[2])
if settles and tonumber(settles) <= now then return {packed(found), 1, ''} end
local left = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf')
return {packed(found), 0, packed(left)}
"""
)

#: The time on the clock of the server: milliseconds since 1970.
CLOCK: Final = script(_NOW + 'return text(now)')

#: KEYS: the index, or an address. Returns members and the milliseconds that
#: each has left, in turn.
LIST: Final = script(
    _NOW
    + """
local found = redis.call(
  'ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf', 'WITHSCORES')
for i = 2, #found, 2 do found[i] = text(found[i] - now) end
return found
"""
)


class Keys:
    """Names the keys and channels of one virtual host.

    Names are percent-encoded and joined by colons, which encoded names do
    not have: whatever characters they hold, two never meet.

    Thread: any (immutable).
    """

    def __init__(self, prefix: str, virtual_host: str) -> None:
        """Put *prefix* and the virtual host before every name."""
        host = encode(virtual_host)
        self._at = f'{prefix}at:{host}:'
        self._left = f'{prefix}left:{host}:'
        self._changes = f'{prefix}changes:{host}:'
        #: Sorted set of the names of all addresses.
        self.index = f'{prefix}index:{host}'
        #: When all who live are registered again, if records were lost.
        self.settled = f'{prefix}settled:{host}'

    def at(self, name: str) -> str:
        """Return the sorted set of the registrations of an address.

        :param name: see :meth:`name`
        """
        return self._at + name

    def left(self, name: str) -> str:
        """Return the sorted set of those that left lately."""
        return self._left + name

    def channel(self, name: str) -> str:
        """Return the channel on which joins and leaves are told."""
        return self._changes + name

    def name(self, where: address.Address) -> str:
        """Return the name of an address."""
        scope = where.scope.name.lower()
        return f'{scope}:{encode(where.exchange)}:{encode(where.topic)}'

    def address(self, name: str) -> address.Address:
        """Return the address of this name.

        :raises ValueError: it is none
        """
        scope, exchange, topic = name.split(':')
        try:
            found = address.Scope[scope.upper()]
        except KeyError:
            raise ValueError(f'there is no scope {scope!r}') from None
        return address.Address(found, decode(exchange), decode(topic))


def encode(name: str) -> str:
    """Return a part of the name of a key: no colon, no asterisk."""
    return urllib.parse.quote(name, safe='', errors='surrogatepass')


def decode(name: str) -> str:
    """Return what :func:`encode` was given."""
    return urllib.parse.unquote(name, errors='surrogatepass')
