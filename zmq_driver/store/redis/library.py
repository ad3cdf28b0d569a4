# SPDX-License-Identifier: Apache-2.0
"""What the Lua scripts of the store have in common: its layout in Redis.

All keys begin with ``KEYS[1]``; ``doc/specs/notifications-redis.rst`` lists
them. Numbers of queues, messages and copies are microseconds on the clock of
the server, or one more than the last number: so they are never used again,
not even after the database was flushed, and tell when a message was stored.
"""

from typing import Final

#: Of the keys; another one is another layout.
VERSION: Final = '1'

#: The consumer group of each stream.
GROUP: Final = 'pool'

#: The consumer that has what was given back; it never lives.
NOBODY: Final = 'nobody'

#: Keys, numbers and counts. Begins each script.
BEGIN: Final = f"""
local base, call = KEYS[1], redis.call
local MESSAGES, COPIES = base .. 'messages', base .. 'copies'
local INDEX, SEEN = base .. 'index', base .. 'seen'
local TOTAL, DRAINERS = base .. 'total', base .. 'drainers'
local GROUP, NOBODY = '{GROUP}', '{NOBODY}'
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(number) return string.format('%.0f', number) end
local layout = call('HGET', TOTAL, 'layout')
if layout and layout ~= '{VERSION}' then
  return redis.error_reply('LAYOUT ' .. layout)
end
local function alive(consumer)
  local expires = call('ZSCORE', DRAINERS, consumer)
  return expires and tonumber(expires) > now
end
local change = {{}}
local function total(name)
  return tonumber(call('HGET', TOTAL, name) or '0') + (change[name] or 0)
end
local function count(name, by) change[name] = (change[name] or 0) + by end
local function finish()
  for name, by in pairs(change) do
    if by ~= 0 then call('HINCRBY', TOTAL, name, text(by)) end
  end
  change = {{}}
end
local function new_number()
  local number = math.max(total('last') + 1, now)
  call('HSET', TOTAL, 'last', text(number))
  return text(number)
end
"""

#: Refuses one who is taken for dead: others have what was his.
IF_ALIVE: Final = """
if ARGV[1] ~= '' and not alive(ARGV[1]) then
  return redis.error_reply('LAPSED')
end
"""

#: Queues: a name is ``a:EXCHANGE:TOPIC:POOL``, or ``d:...`` for dead letters.
QUEUES: Final = """
local names = {}
local function name_of(queue)
  if names[queue] == nil then
    names[queue] = call('ZRANGEBYSCORE', INDEX, queue, queue)[1] or false
  end
  return names[queue]
end
local function is_dead(name) return name:sub(1, 1) == 'd' end
local function pools_of(name)
  local where, pool = name:match('^a:([^:]*:[^:]*):([^:]*)$')
  if where and pool ~= '*' then return base .. 'pools:' .. where, pool end
end
local function filled(name)
  return base .. (is_dead(name) and 'dead' or 'waiting')
end
local function stream(queue) return base .. 'queue:' .. queue end
local function held(queue) return base .. 'held:' .. queue end
local function queue_of(name)
  local found = call('ZSCORE', INDEX, name)
  if found then return text(tonumber(found)) end
  call('HSETNX', TOTAL, 'layout', '1')
  local queue = new_number()
  call('HSETNX', TOTAL, 'epoch', queue)
  call('ZADD', INDEX, queue, name)
  call('XGROUP', 'CREATE', stream(queue), GROUP, '0', 'MKSTREAM')
  call('ZADD', SEEN, text(now), queue)
  local pools, pool = pools_of(name)
  if pools then call('HSET', pools, pool, queue) end
  names[queue] = name
  return queue
end
local function oldest(queue)
  local first = call('XRANGE', stream(queue), '-', '+', 'COUNT', 1)[1]
  return first and tonumber(first[2][2])
end
local function remove(queue)
  local name = name_of(queue)
  if not name then return 1 end
  if call('XLEN', stream(queue)) > 0 then return 0 end
  local pools, pool = pools_of(name)
  if pools then call('HDEL', pools, pool) end
  call('ZREM', INDEX, name)
  call('ZREM', SEEN, queue)
  call('DEL', stream(queue), held(queue))
  return 1
end
"""

#: Copies. The value of a message in ``copies`` is ``SIZE;QUEUE:COPY;...``.
COPIES: Final = """
local function put(queue, message, number)
  local name = name_of(queue)
  call('XADD', stream(queue), number .. '-0', 'm', message)
  call('ZADD', filled(name), queue, queue)
  count('copies', 1)
  count('added', 1)
  if is_dead(name) then count('dead', 1) end
end
local function exists(queue, number)
  local id = number .. '-0'
  local found = call('XRANGE', stream(queue), id, id)[1]
  return found and found[2][2]
end
local function cut(queue, number)
  local message = exists(queue, number)
  if not message then return nil end
  local name, id = name_of(queue), number .. '-0'
  call('XACK', stream(queue), GROUP, id)
  call('XDEL', stream(queue), id)
  call('HDEL', held(queue), number)
  local left = call('XLEN', stream(queue))
  if left == 0 then call('ZREM', filled(name), queue) end
  count('copies', -1)
  if is_dead(name) then count('dead', -1) end
  return message
end
local function link(message, old, new)
  local copies = call('HGET', COPIES, message) or '0;'
  local first, last = copies:find(';' .. old .. ';', 1, true)
  if first then copies = copies:sub(1, first) .. copies:sub(last + 1) end
  copies = copies .. new
  local size = copies:match('^(%d+);$')
  if not size then return call('HSET', COPIES, message, copies) end
  call('HDEL', COPIES, message)
  call('XDEL', MESSAGES, message .. '-0')
  count('size', -size)
end
local function delete(queue, number)
  local message = cut(queue, number)
  if not message then return 0 end
  link(message, queue .. ':' .. number, '')
  return 1
end
local function move(queue, number, targets)
  local kept = call('HGET', held(queue), number)
  local message = cut(queue, number)
  if not message then return 0 end
  local made = ''
  for i, target in ipairs(targets) do
    local copy = new_number()
    put(target, message, copy)
    made = made .. target .. ':' .. copy .. ';'
    if kept and i == 1 then call('HSET', held(target), copy, kept) end
  end
  link(message, queue .. ':' .. number, made)
  return 1
end
local function purge(queue, limit)
  local found = call('XRANGE', stream(queue), '-', '+', 'COUNT', limit)
  for _, one in ipairs(found) do delete(queue, one[1]:match('^%d+')) end
  return #found
end
local function drop_oldest(before)
  local first = call('XRANGE', MESSAGES, '-', '+', 'COUNT', 1)[1]
  local message = first and first[1]:match('^%d+')
  if not message or tonumber(message) >= before then return nil end
  local dropped = 0
  local copies = call('HGET', COPIES, message) or ''
  for queue, number in copies:gmatch('(%d+):(%d+)') do
    dropped = dropped + (cut(queue, number) and 1 or 0)
  end
  call('HDEL', COPIES, message)
  call('XDEL', MESSAGES, first[1])
  count('size', -#first[2][4])
  return dropped
end
"""
