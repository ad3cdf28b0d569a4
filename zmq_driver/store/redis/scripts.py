# SPDX-License-Identifier: Apache-2.0
"""The Lua scripts of the store in Redis.

Each operation is one script, so that it is one round trip, happens whole or
not at all, and goes by the clock of the server. ``KEYS[1]`` begins the names
of all keys.
"""

from typing import Final

from zmq_driver.matchmaker.redis import scripts
from zmq_driver.store.redis import library


def _script(*parts: str) -> scripts.Script:
    return scripts.script(library.BEGIN + ''.join(parts))


_QUEUES = library.QUEUES
_COPIES = library.QUEUES + library.COPIES

#: ARGV: message id, body, the milliseconds for which the id is remembered;
#: the bounds by count, size and age (in microseconds; 0: none), '1' if the
#: oldest make room; and of each copy the name of its queue and its holder.
#: Returns the option whose bound is reached, or ''; and what was dropped.
ADD: Final = _script(
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
POOLS: Final = _script(
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
SAW: Final = _script(
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
LIST: Final = _script(
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

#: ARGV: the consumer, or '' to look only; the queue; how many; after which
#: number; bytes of bodies; '1' for what a listener may have only.
#: Returns the name of the queue and of each copy its number, message, message
#: id, body and attempts with holder.
#:
#: First what the consumer has already, then what dead ones have left, then
#: what nobody has. What was read and is too much goes to nobody, because the
#: number of the caller may have passed it next time. What a listener may have
#: is taken out of turn; who reads it later gives it back.
TAKE: Final = _script(
    library.IF_ALIVE,
    _COPIES,
    """
local me, queue, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local after, size, only_held = ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local name, found, key = name_of(queue), {}, stream(queue)
if not name then return {'', found} end
local function room() return #found < limit and size > 0 end
local function give(id, message)
  local number = id:match('^%d+')
  local body = call('XRANGE', MESSAGES, message .. '-0', message .. '-0')[1]
  if not body then return delete(queue, number) end
  found[#found + 1] = {number, message, body[2][2], body[2][4],
    call('HGET', held(queue), number) or '0 '}
  size = size - #body[2][4]
end
local function give_all(some)
  for _, one in ipairs(some) do
    if room() then
      give(one[1], one[2][2])
      after = one[1]:match('^%d+')
    elseif me ~= '' then
      call('XCLAIM', key, GROUP, NOBODY, 0, one[1], 'JUSTID')
    end
  end
end
local function read(from, most)
  local some = call('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', most,
    'STREAMS', key, from)
  return some and some[1] and some[1][2] or {}
end
local function owner_of(id)
  local one = call('XPENDING', key, GROUP, id, id, 1)[1]
  return one and one[2]
end
local function read_new(most)
  local group = call('XINFO', 'GROUPS', key)[1]
  local last = '0-0'
  for i = 1, #group, 2 do
    if group[i] == 'last-delivered-id' then last = group[i + 1] end
  end
  local next_ones = call('XRANGE', key, '(' .. last, '+', 'COUNT', most)
  if #next_ones == 0 then return nil end
  local owners, new = {}, {}
  if call('EXISTS', held(queue)) == 1 then
    for _, one in ipairs(next_ones) do owners[one[1]] = owner_of(one[1]) end
  end
  for _, one in ipairs(read('>', #next_ones)) do
    local owner = owners[one[1]]
    if owner and owner ~= me and alive(owner) then
      call('XCLAIM', key, GROUP, owner, 0, one[1], 'JUSTID')
    elseif owner ~= me then
      new[#new + 1] = one
    end
  end
  return new
end
local function give_held()
  local numbers, value = {}, {}
  local page = call('HSCAN', held(queue), 0, 'COUNT', 1000)[2]
  for i = 1, #page, 2 do
    if page[i + 1]:match(' .') then numbers[#numbers + 1] = page[i] end
  end
  table.sort(numbers, function(a, b) return tonumber(a) < tonumber(b) end)
  for _, number in ipairs(numbers) do
    if not room() then return end
    local id, message = number .. '-0', exists(queue, number)
    local owner = me ~= '' and owner_of(id)
    if message and not (owner and owner ~= me and alive(owner)) then
      if me ~= '' and owner ~= me then
        call('XCLAIM', key, GROUP, me, 0, id, 'FORCE', 'JUSTID')
      end
      give(id, message)
    end
  end
end
local function claim(consumer)
  while room() do
    local one = call('XPENDING', key, GROUP, '-', '+', 1, consumer)[1]
    if not one then
      call('XGROUP', 'DELCONSUMER', key, GROUP, consumer)
      return
    end
    local claimed = call('XCLAIM', key, GROUP, me, 0, one[1])[1]
    if claimed then
      give(claimed[1], claimed[2][2])
    else
      call('XACK', key, GROUP, one[1])
    end
  end
end
if only_held then
  give_held()
elseif me == '' then
  while room() do
    local some = call('XRANGE', key, '(' .. after .. '-0', '+', 'COUNT', 64)
    if #some == 0 then break end
    give_all(some)
  end
else
  while room() do
    local mine = read(after .. '-0', math.min(64, limit - #found))
    if #mine == 0 then break end
    give_all(mine)
  end
  for _, one in ipairs(call('XINFO', 'CONSUMERS', key, GROUP)) do
    if one[2] ~= me and not alive(one[2]) then claim(one[2]) end
  end
  while room() do
    local new = read_new(math.min(64, limit - #found))
    if not new then break end
    give_all(new)
  end
end
finish()
return {name, found}
""",
)

#: ARGV: the consumer, the queue. Lets others have what it took; returns how
#: many.
PUT_BACK: Final = _script(
    _QUEUES,
    """
local key = stream(ARGV[2])
if not name_of(ARGV[2]) then return 0 end
local mine = call('XPENDING', key, GROUP, '-', '+', 1000, ARGV[1])
for _, one in ipairs(mine) do
  call('XCLAIM', key, GROUP, NOBODY, 0, one[1], 'JUSTID')
end
return #mine
""",
)

#: ARGV: the consumer or '', the holder, and queue and number of copies.
HOLD: Final = _script(
    library.IF_ALIVE,
    _COPIES,
    """
for i = 3, #ARGV, 2 do
  if exists(ARGV[i], ARGV[i + 1]) then
    local key = held(ARGV[i])
    local kept = call('HGET', key, ARGV[i + 1]) or '0'
    local attempts = tonumber(kept:match('^%d+')) + 1
    call('HSET', key, ARGV[i + 1], attempts .. ' ' .. ARGV[2])
  end
end
""",
)

#: ARGV: the consumer or '', and queue and number of copies.
RELEASE: Final = _script(
    library.IF_ALIVE,
    _QUEUES,
    """
for i = 2, #ARGV, 2 do
  local key = held(ARGV[i])
  local kept = call('HGET', key, ARGV[i + 1]) or ''
  local attempts, holder = kept:match('^(%d+) (.+)$')
  if holder then
    call('HSET', key, ARGV[i + 1], (tonumber(attempts) - 1) .. ' ')
  end
end
""",
)

#: ARGV: queue and number of copies. Returns how many there were.
DONE: Final = _script(
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
SPLIT: Final = _script(
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
BURY: Final = _script(
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
REPLAY: Final = _script(
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
PURGE: Final = _script(
    _COPIES,
    """
local dropped = name_of(ARGV[1]) and purge(ARGV[1], ARGV[2]) or 0
finish()
return dropped
""",
)

#: ARGV: the queue. Returns whether it is gone.
REMOVE: Final = _script(_QUEUES, 'return remove(ARGV[1])')

#: Returns copies, dead letters, and bytes of bodies.
COUNTS: Final = _script(
    "return {total('copies'), total('dead'), total('size')}"
)

#: ARGV: drop what is older than so many microseconds (0: nothing), forget
#: pools not seen for so many, drop at most so many copies.
#: Returns how many were dropped; and of each pool that is forgotten its name
#: and how many were dropped with it.
TIDY: Final = _script(
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

#: ARGV: the consumer or '', the microseconds that it lives without this.
#: Returns the epoch of the store, how many copies were ever added, and
#: whether the consumer lives.
CHANGED: Final = _script(
    """
local lives = ARGV[1] ~= '' and alive(ARGV[1])
if lives then call('ZADD', DRAINERS, text(now + ARGV[2]), ARGV[1]) end
return {call('HGET', TOTAL, 'epoch') or '0', text(total('added')),
  lives and 1 or 0}
"""
)

#: ARGV: the consumer, the microseconds that it lives without renewal, how
#: many there may be; '1' if it has a lease already. Returns whether it lives.
LEASE: Final = _script(
    """
if ARGV[4] == '1' then
  if not alive(ARGV[1]) then return 0 end
else
  call('ZREMRANGEBYSCORE', DRAINERS, '-inf', text(now))
  if call('ZCARD', DRAINERS) >= tonumber(ARGV[3]) then return 0 end
end
call('ZADD', DRAINERS, text(now + ARGV[2]), ARGV[1])
return 1
"""
)

#: ARGV: the consumer, which drains no more.
LEAVE: Final = _script("return call('ZREM', DRAINERS, ARGV[1])")
