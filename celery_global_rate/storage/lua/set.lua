-- set: a new record of a bucket, made of the stored one and a change. One change is written once.
--
-- KEYS[1]  the records (records.lua)
-- KEYS[2]  the era
-- KEYS[3]  the last changes of the bucket, a list of records, the newest first
-- ARGV[1]  name           of the bucket
-- ARGV[2]  change, JSON   `what`: 'set', 'reset', 'pause' or 'resume'; `by`, `source`, `reason`; with 'set' and 'reset'
--                         a `limit`, with 'pause' perhaps `until`, epoch us. All values are texts
-- ARGV[3]  id             of the change, letters and digits: whoever heard the same order sends the same one
-- ARGV[4]  late, us       the order may be this old: it does not undo what was ordered since
-- ARGV[5]  channel        where the news goes
-- ARGV[6]  now, epoch us  tests only
-- Returns {1, now us, record} where it was written; {0, now us, the stored record or ''} where it was known, or late,
-- or no change.

local CHANGES_KEPT = 20
local FOREVER_US = '9000000000000000'

local records, era, history = KEYS[1], KEYS[2], KEYS[3]
local name, change, id = ARGV[1], cjson.decode(ARGV[2]), ARGV[3]
local now_us = clock(ARGV[6])
local now = exact(now_us)
local stored = redis.call('HGET', records, name)
local version, floor, record = 0, '0', {}
local is_read, content = pcall(cjson.decode, string.match(stored or '', '{.*') or '')
if stored and order(stored) and is_read and content.when then  -- anything else is overwritten
  local last_version, _, last_floor_us = order(stored)
  version, floor, record = last_version, exact(last_floor_us), content
  local late_us = tonumber(ARGV[4])
  if late_us > 0 and tonumber(record.when) > now_us - late_us then return {0, now_us, stored} end
end
for _, past in ipairs(redis.call('LRANGE', history, 0, -1)) do
  local _, past_id = order(past)
  if past_id == id then return {0, now_us, stored or ''} end
end

-- The same limit again, for as long and with as much to say, is no change.
local function is_same(limit, other)
  for _, key in ipairs({'rate', 'us', 'ps', 'burst', 'until', 'declared'}) do
    if limit[key] ~= other[key] then return false end
  end
  return limit.reason == change.reason
end
if change.limit and record.limit and is_same(record.limit, change.limit) then return {0, now_us, stored} end

record.what, record.by, record.source, record.reason = change.what, change.by, change.source, change.reason
record.when = now
if change.limit then
  local before = record.limit
  local is_over = before and before['until'] and tonumber(before['until']) <= now_us
  local replaced = before and not is_over and before.rate or 'declared'
  record.limit = change.limit
  record.limit.replaced, record.limit.when = replaced, now
  record.limit.by, record.limit.source, record.limit.reason = change.by, change.source, change.reason
elseif change.what == 'pause' then
  record.pause = {by = change.by, source = change.source, reason = change.reason, when = now, ['until'] = change['until']}
  floor = change['until'] or FOREVER_US
else
  record.pause, floor = nil, now
end

local text = exact(math.max(version + 1, now_us)) .. ':' .. id .. ':' .. floor .. ':' .. cjson.encode(record)
redis.call('HSET', records, name, text)
redis.call('LPUSH', history, text)
redis.call('LTRIM', history, 0, CHANGES_KEPT - 1)
redis.call('HSETNX', era, 'id', id)
redis.call('HINCRBY', era, 'changes', 1)
redis.call('PUBLISH', ARGV[5], text .. '\n' .. name)
return {1, now_us, text}
