# SPDX-License-Identifier: Apache-2.0
"""The Lua scripts of the store in Redis; those of who drains are apart.

Each operation is one script, so that it is one round trip, happens whole or
not at all, and goes by the clock of the server. ``KEYS[1]`` begins the names
of all keys.
"""

from typing import Final

from zmq_driver.matchmaker.redis import scripts
from zmq_driver.store.redis import library


def make(*parts: str) -> scripts.Script:
    """Return the script of these parts, which follow what all have."""
    return scripts.script(library.BEGIN + ''.join(parts))


_QUEUES = library.QUEUES
_COPIES = library.QUEUES + library.COPIES

#: ARGV: message id, body, the milliseconds for which the id is remembered;
#: the bounds by count, size and age (in microseconds; 0: none), '1' if the
#: oldest make room; and of each copy the name of its queue and its holder.
#: Returns the option whose bound is reached, or ''; and what was dropped.
ADD: Final = make(
    _COPIES,
    """
local known = base .. 'id:' .. ARGV[1]
if call('EXISTS', known) == 1 then return {'', 0} end
local size, copies = #ARGV[2], (#ARGV - 7) / 2
local most, most_size = tonumber(ARGV[4]), tonumber(ARGV[5])
local age, drops = tonumber(ARGV[6]), ARGV[7] == '1'
local function bound(copies_used, size_used)
  if copies_used + copies > most then return 'notification_store_max_count' end
  if size_used + size > most_size then return 'notification_store_max_size' end
end
local reached = bound(0, 0)
if reached then return {reached, 0} end
if age > 0 and not drops then
  for i = 8, #ARGV, 2 do
    local queue = call('ZSCORE', INDEX, ARGV[i])
    local first = queue and oldest(text(tonumber(queue)))
    if first and first < now - age then
      return {'notification_store_max_age', 0}
    end
  end
end
local dropped = 0
while true do
  reached = bound(total('copies'), total('size'))
  if not reached then break end
  if not drops then return {reached, 0} end
  local some = drop_oldest(math.huge)
  if not some then break end
  dropped = dropped + some
end
local queues, made = {}, size .. ';'
for i = 8, #ARGV, 2 do queues[#queues + 1] = queue_of(ARGV[i]) end
local message = new_number()
call('XADD', MESSAGES, message .. '-0', 'i', ARGV[1], 'b', ARGV[2])
for i, queue in ipairs(queues) do
  put(queue, message, message)
  made = made .. queue .. ':' .. message .. ';'
  local holder = ARGV[7 + 2 * i]
  if holder ~= '' then call('HSET', held(queue), message, '1 ' .. holder) end
end
call('HSET', COPIES, message, made)
call('SET', known, '', 'PX', ARGV[3])
count('size', size)
finish()
return {'', dropped}
""",
)

#: ARGV: the address, since when pools must have been seen. Returns the epoch
#: of the store and the pools.
POOLS: Final = make(
    """
local found = call('HGETALL', base .. 'pools:' .. ARGV[1])
local pools = {}
for i = 1, #found, 2 do
  local seen = call('ZSCORE', SEEN, found[i + 1])
  if seen and tonumber(seen) > now - ARGV[2] then
    pools[#pools + 1] = found[i]
  end
end
return {call('HGET', TOTAL, 'epoch') or '0', pools}
"""
)

#: ARGV: names of queues. Returns the epoch of the store.
SAW: Final = make(
    _QUEUES,
    """
for _, name in ipairs(ARGV) do
  call('ZADD', SEEN, text(now), queue_of(name))
end
finish()
return call('HGET', TOTAL, 'epoch')
""",
)

#: ARGV: all, waiting or dead; how many; after which number.
#: Returns of each queue its number, name, length, the number of its oldest
#: message or '', and when it was seen.
LIST: Final = make(
    _QUEUES,
    """
local key = ARGV[1] == 'all' and INDEX or base .. ARGV[1]
local found = call('ZRANGEBYSCORE', key, '(' .. ARGV[3], '+inf',
  'WITHSCORES', 'LIMIT', 0, ARGV[2])
local list = {}
for i = 2, #found, 2 do
  local queue = text(tonumber(found[i]))
  local first = oldest(queue)
  list[#list + 1] = {queue, name_of(queue) or '',
    call('XLEN', stream(queue)), first and text(first) or '',
    text(tonumber(call('ZSCORE', SEEN, queue) or '0'))}
end
return list
""",
)

#: ARGV: queue and number of copies. Returns how many there were.
DONE: Final = make(
    _COPIES,
    """
local done = 0
for i = 1, #ARGV, 2 do done = done + delete(ARGV[i], ARGV[i + 1]) end
finish()
return done
""",
)

#: ARGV: the consumer or '', how many pools, their names, and queue and number
#: of copies.
SPLIT: Final = make(
    library.IF_ALIVE,
    _COPIES,
    """
local most = 2 + tonumber(ARGV[2])
for i = most + 1, #ARGV, 2 do
  local name, targets = name_of(ARGV[i]), {}
  if name then
    for j = 3, most do
      targets[j - 2] = queue_of(name:match('^.*:') .. ARGV[j])
    end
    move(ARGV[i], ARGV[i + 1], targets)
  end
end
finish()
""",
)

#: ARGV: the consumer or '', and queue and number of copies. Returns how many
#: were buried.
BURY: Final = make(
    library.IF_ALIVE,
    _COPIES,
    """
local buried = 0
for i = 2, #ARGV, 2 do
  local name = name_of(ARGV[i])
  if name and not is_dead(name) then
    local grave = queue_of('d' .. name:sub(2))
    buried = buried + move(ARGV[i], ARGV[i + 1], {grave})
  end
end
finish()
return buried
""",
)

#: ARGV: the queue, how many. Returns how many were replayed.
REPLAY: Final = make(
    _COPIES,
    """
local name = name_of(ARGV[1])
if not name or not is_dead(name) then return 0 end
local queue = queue_of('a' .. name:sub(2))
local found = call('XRANGE', stream(ARGV[1]), '-', '+', 'COUNT', ARGV[2])
for _, one in ipairs(found) do
  local number = one[1]:match('^%d+')
  call('HDEL', held(ARGV[1]), number)
  move(ARGV[1], number, {queue})
end
finish()
return #found
""",
)

#: ARGV: the queue, how many. Returns how many were dropped.
PURGE: Final = make(
    _COPIES,
    """
local dropped = name_of(ARGV[1]) and purge(ARGV[1], ARGV[2]) or 0
finish()
return dropped
""",
)

#: ARGV: the queue. Returns whether it is gone.
REMOVE: Final = make(_QUEUES, 'return remove(ARGV[1])')

#: Returns copies, dead letters, and bytes of bodies.
COUNTS: Final = make("return {total('copies'), total('dead'), total('size')}")

#: ARGV: drop what is older than so many microseconds (0: nothing), forget
#: pools not seen for so many, drop at most so many copies.
#: Returns how many were dropped; and of each pool that is forgotten its name
#: and how many were dropped with it.
TIDY: Final = make(
    _COPIES,
    """
local old, unseen, most = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local dropped, forgotten = 0, {}
while old > 0 and dropped < tonumber(most) do
  local some = drop_oldest(now - old)
  if not some then break end
  dropped = dropped + some
end
local since = text(now - unseen)
for _, queue in ipairs(
  call('ZRANGEBYSCORE', SEEN, '-inf', since, 'LIMIT', 0, 100)) do
  local name, lost = name_of(queue), 0
  local pools = name and pools_of(name)
  if pools then lost = purge(queue, math.max(1, most - dropped)) end
  dropped = dropped + lost
  if remove(queue) == 0 and not pools then
    call('ZADD', SEEN, text(now), queue)  -- It is looked at later.
  elseif pools and call('ZSCORE', INDEX, name) == false then
    forgotten[#forgotten + 1] = {name, lost}
  end
end
finish()
return {dropped, forgotten}
""",
)
