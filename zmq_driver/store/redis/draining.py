# SPDX-License-Identifier: Apache-2.0
"""The Lua scripts of those who drain the store in Redis."""

from typing import Final

from zmq_driver.store.redis import library
from zmq_driver.store.redis import scripts

_QUEUES = library.QUEUES
_COPIES = library.QUEUES + library.COPIES

#: ARGV: the consumer, or '' to look only; the queue; how many; after which
#: number; bytes of bodies; '1' for what a listener may have only.
#: Returns the name of the queue and of each copy its number, message, message
#: id, body and attempts with holder.
#:
#: First what the consumer has already, then what dead ones have left, then
#: what nobody has. Of that, what was read and is too much goes to nobody,
#: because the number of the caller may have passed it next time. What a
#: listener may have is taken out of turn; who reads it later gives it back.
TAKE: Final = scripts.make(
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
local function give_all(some, are_new)
  for _, one in ipairs(some) do
    if room() then
      give(one[1], one[2][2])
      after = one[1]:match('^%d+')
    elseif are_new then
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
    local known = owner == me and after ~= '0'
    if message and not known and not (
      owner and owner ~= me and alive(owner)) then
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
    give_all(new, true)
  end
end
finish()
return {name, found}
""",
)

#: ARGV: the consumer, the queue, how many. Lets others have what it took;
#: returns how many those were.
PUT_BACK: Final = scripts.make(
    _QUEUES,
    """
local key = stream(ARGV[2])
if not name_of(ARGV[2]) then return 0 end
local mine = call('XPENDING', key, GROUP, '-', '+', ARGV[3], ARGV[1])
for _, one in ipairs(mine) do
  call('XCLAIM', key, GROUP, NOBODY, 0, one[1], 'JUSTID')
end
return #mine
""",
)

#: ARGV: the consumer or '', the holder, and queue and number of copies.
HOLD: Final = scripts.make(
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
RELEASE: Final = scripts.make(
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

#: ARGV: the consumer or '', the microseconds that it lives without this.
#: Returns the epoch of the store, how many copies were ever added, and
#: whether the consumer lives.
CHANGED: Final = scripts.make(
    """
local lives = ARGV[1] ~= '' and alive(ARGV[1])
if lives then call('ZADD', DRAINERS, text(now + ARGV[2]), ARGV[1]) end
return {call('HGET', TOTAL, 'epoch') or '0', text(total('added')),
  lives and 1 or 0}
"""
)

#: ARGV: the consumer, the microseconds that it lives without renewal, how
#: many there may be; '1' if it has a lease already. Returns whether it lives.
LEASE: Final = scripts.make(
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
LEAVE: Final = scripts.make("return call('ZREM', DRAINERS, ARGV[1])")
