-- set_override: a new override of a bucket, made of the stored one and a change. One change is written once.
--
-- KEYS[1]  the overrides (overrides.lua)
-- KEYS[2]  the era
-- KEYS[3]  the last changes of the bucket, a list of overrides, the newest first
-- ARGV[1]  name           of the bucket
-- ARGV[2]  change, JSON   `what`: 'set', 'reset', 'pause' or 'resume'; `by`, `source`, `reason`; with 'set' and 'reset'
--                         a `limit`, with 'pause' perhaps `until`, epoch us. All values are texts
-- ARGV[3]  id             of the change, letters and digits: all workers that hear the same command send the same one
-- ARGV[4]  late, us       the command may be this old: it does not undo a later one
-- ARGV[5]  channel        where it is announced
-- ARGV[6]  now, epoch us  tests only
-- Returns {1, now us, override} if it was written; {0, now us, the stored override or ''} if it was known, or late, or
-- no change.

local CHANGES_KEPT = 20
local FOREVER_US = '9000000000000000'

local overrides, era, history = KEYS[1], KEYS[2], KEYS[3]
local name, change, id = ARGV[1], cjson.decode(ARGV[2]), ARGV[3]
local now_us = clock(ARGV[6])
local now = exact(now_us)
local stored = redis.call('HGET', overrides, name)
local version, floor, override = 0, '0', {}
local is_read, content = pcall(cjson.decode, string.match(stored or '', '{.*') or '')
if stored and parse_rank(stored) and is_read and content.when then  -- anything else is overwritten
  local last_version, _, last_floor_us = parse_rank(stored)
  version, floor, override = last_version, exact(last_floor_us), content
  local late_us = tonumber(ARGV[4])
  if late_us > 0 and tonumber(override.when) > now_us - late_us then return {0, now_us, stored} end
end
for _, past in ipairs(redis.call('LRANGE', history, 0, -1)) do
  local _, past_id = parse_rank(past)
  if past_id == id then return {0, now_us, stored or ''} end
end

-- The same limit again, for as long and with as much to say, is no change.
local function is_same(limit, other)
  for _, key in ipairs({'rate', 'us', 'ps', 'burst', 'until', 'declared'}) do
    if limit[key] ~= other[key] then return false end
  end
  return limit.reason == change.reason
end
if change.limit and override.limit and is_same(override.limit, change.limit) then return {0, now_us, stored} end

override.what, override.by, override.source, override.reason = change.what, change.by, change.source, change.reason
override.when = now
if change.limit then
  local before = override.limit
  local is_over = before and before['until'] and tonumber(before['until']) <= now_us
  local replaced = before and not is_over and before.rate or 'declared'
  override.limit = change.limit
  override.limit.replaced, override.limit.when = replaced, now
  override.limit.by, override.limit.source, override.limit.reason = change.by, change.source, change.reason
elseif change.what == 'pause' then
  local by, source, reason = change.by, change.source, change.reason
  override.pause = {by = by, source = source, reason = reason, when = now, ['until'] = change['until']}
  floor = change['until'] or FOREVER_US
else
  override.pause, floor = nil, now
end

local text = exact(math.max(version + 1, now_us)) .. ':' .. id .. ':' .. floor .. ':' .. cjson.encode(override)
redis.call('HSET', overrides, name, text)
redis.call('LPUSH', history, text)
redis.call('LTRIM', history, 0, CHANGES_KEPT - 1)
redis.call('HSETNX', era, 'id', id)
redis.call('HINCRBY', era, 'changes', 1)
redis.call('PUBLISH', ARGV[5], text .. '\n' .. name)
return {1, now_us, text}
