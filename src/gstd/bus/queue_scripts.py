"""What Valkey does with the queue index, each script in one step.

Keys, all below the first argument: ``class:<id>`` sorted set of free units by order key;
``heads:<level>`` sorted set of the classes by their first key in a priority level; ``reserved``
sorted set of shown units by the end of their reservation in milliseconds; ``homes`` hash of their
class and key; ``epoch`` when the index is complete; ``building`` while it is rebuilt.
A unit's name is the task's 16 bytes and a digit.

Order keys lie below 2^53, so scores hold them exactly. Here they stay the strings they came in:
Lua's own ``tostring`` rounds to 14 digits.
"""

from __future__ import annotations

_BASICS = """
local base = ARGV[1]
local reserved, homes = base .. 'reserved', base .. 'homes'
local touched = {}

local function class(id) return base .. 'class:' .. id end
local function level_of(key) return math.floor(tonumber(key) / 2^51) end
local function bounds(level)
  return string.format('%.0f', level * 2^51), string.format('(%.0f', (level + 1) * 2^51)
end

local function touch(id, key)
  local level = level_of(key)
  touched[id .. ':' .. level] = {id, level}
end

-- The classes' first keys follow what was touched.
local function settle()
  for _, lane in pairs(touched) do
    local low, high = bounds(lane[2])
    local head = redis.call('ZRANGEBYSCORE', class(lane[1]), low, high, 'WITHSCORES', 'LIMIT', 0, 1)
    if head[1] then
      redis.call('ZADD', base .. 'heads:' .. lane[2], head[2], lane[1])
    else
      redis.call('ZREM', base .. 'heads:' .. lane[2], lane[1])
    end
  end
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Reservations that ended give their units back.
local function give_back()
  local now = string.format('%.0f', now_ms())
  for _, unit in ipairs(redis.call('ZRANGEBYSCORE', reserved, '-inf', now, 'LIMIT', 0, 1000)) do
    local home = redis.call('HGET', homes, unit)
    redis.call('ZREM', reserved, unit)
    redis.call('HDEL', homes, unit)
    if home then
      local id, key = string.match(home, '^(%S+) (%S+)$')
      redis.call('ZADD', class(id), key, unit)
      touch(id, key)
    end
  end
  settle()
end
"""

_CLASSES_OF_ALL_LEVELS = """
local found = {}
for level = 0, 3 do
  for _, id in ipairs(redis.call('ZRANGE', base .. 'heads:' .. level, 0, -1)) do
    found[#found + 1] = id
  end
end
return found
"""

_ONLY_COMPLETE = """
if redis.call('EXISTS', base .. 'epoch') == 0 then return false end
"""

KNOWN_CLASSES = _BASICS + _CLASSES_OF_ALL_LEVELS

CLASSES = _BASICS + _ONLY_COMPLETE + "give_back()" + _CLASSES_OF_ALL_LEVELS

PUT = (
    _BASICS
    + """
local UNITS = 5 -- the largest quorum

local function put(id, key, wanted, task)
  local names = {}
  for unit = 1, UNITS do names[unit] = task .. (unit - 1) end
  local free = redis.call('ZMSCORE', class(id), unpack(names))
  local held = redis.call('ZMSCORE', reserved, unpack(names))
  local surplus = -wanted
  for unit = 1, UNITS do
    if free[unit] or held[unit] then surplus = surplus + 1 end
  end
  for unit = 1, UNITS do
    if held[unit] and surplus > 0 then
      redis.call('ZREM', reserved, names[unit])
      redis.call('HDEL', homes, names[unit])
      surplus = surplus - 1
    elseif held[unit] then
      redis.call('HSET', homes, names[unit], id .. ' ' .. key)
    end
  end
  for unit = 1, UNITS do
    if free[unit] then
      touch(id, free[unit])
      if surplus > 0 then
        redis.call('ZREM', class(id), names[unit])
        surplus = surplus - 1
      else
        redis.call('ZADD', class(id), key, names[unit])
      end
    elseif not held[unit] and surplus < 0 then
      redis.call('ZADD', class(id), key, names[unit])
      surplus = surplus + 1
    end
  end
  touch(id, key)
end

for i = 2, #ARGV, 4 do
  put(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3])
end
settle()
return true
"""
)

# Of the class whose head is the n-th of its level no more than depth - n + 1 units can come in the
# first `depth` of the level. Where many classes share a level, each gives a part of that at first.
HEADS = (
    _BASICS
    + _ONLY_COMPLETE
    + """
give_back()
local depth, asked, found = tonumber(ARGV[2]), {}, {}
for i = 3, #ARGV do asked[ARGV[i]] = true end
for level = 0, 3 do
  local low, high = bounds(level)
  local lanes = {}
  for _, id in ipairs(redis.call('ZRANGE', base .. 'heads:' .. level, 0, -1)) do
    if #lanes == depth then break end
    if asked[id] then lanes[#lanes + 1] = id end
  end
  for place, id in ipairs(lanes) do
    local most = math.min(depth - place + 1, 2 + math.floor(2 * depth / #lanes))
    found[#found + 1] = {id, most, redis.call(
      'ZRANGEBYSCORE', class(id), low, high, 'WITHSCORES', 'LIMIT', 0, most)}
  end
end
return found
"""
)

RESERVE = (
    _BASICS
    + _ONLY_COMPLETE
    + """
local now = now_ms()
local won = {}
local function take(id, task, until_ms)
  for unit = 0, 4 do
    local name = task .. unit
    local key = redis.call('ZSCORE', class(id), name)
    if key then
      redis.call('ZREM', class(id), name)
      redis.call('ZADD', reserved, until_ms, name)
      redis.call('HSET', homes, name, id .. ' ' .. key)
      touch(id, key)
      return 1
    end
  end
  return 0
end
for i = 2, #ARGV, 3 do
  won[#won + 1] = take(ARGV[i], ARGV[i + 1], string.format('%.0f', now + ARGV[i + 2]))
end
settle()
return won
"""
)

BEGIN = """
redis.call('DEL', ARGV[1] .. 'epoch')
redis.call('SET', ARGV[1] .. 'building', ARGV[2])
return true
"""

FINISH = """
if redis.call('GET', ARGV[1] .. 'building') ~= ARGV[2] then return false end
redis.call('DEL', ARGV[1] .. 'building')
redis.call('SET', ARGV[1] .. 'epoch', ARGV[3])
return true
"""
