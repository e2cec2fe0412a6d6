-- reserve_lane: the next slots of a lane: at each all of its limits have one. All book it, or none does. A refused call
-- books nothing.
--
-- KEYS[1]  the overrides (overrides.lua)
-- KEYS[2]  their era
-- then of each limit:
--   the bucket (slots.lua, holes.lua, fixed.lua, sliding.lua)
--   the waiting workers, a sorted set: worker -> epoch us until which it counts as waiting
-- then of each sliding one:
--   the log (sliding.lua)
-- ARGV[1]  wanted         slots the caller could use before the horizon, and what they cost (costs.lua)
-- ARGV[2]  horizon, us    how far ahead of the clock slots are given out
-- ARGV[3]  patience, us   how long a worker sleeps on this lane at the most
-- ARGV[4]  worker         a name that is unique to the calling process; '' for a caller that does not wait
-- ARGV[5]  awake, us      how long the caller has been in touch: no slot is saved from before
-- ARGV[6]  after, epoch us no slot is before this: the last one that the caller has in hand, or 0
-- ARGV[7]  latest, us     how far ahead of the clock the caller can use a start
-- then of each limit:
--   window                smooth, fixed, sliding or crontab, and four values. Of a smooth one:
--     interval, us          integer >= 1, the emission interval T, rounded up
--     burst                 integer >= 1, slots in a full bucket
--     grace, us             D: how long after its slot a start may be
--     crossed               1 if other lanes share the limit: what is skipped stays free for them; else 0
--                         of a fixed one:
--     N                     integer >= 1, slots in a window
--     e0, e1, e2, epoch us  the begin of the window of now, its end, and the end of the next one
--                         of a sliding one:
--     N                     integer >= 1, slots in a period
--     span, us              how long a slot stays in the log
--     cell, us              integer >= 1: slots as close as this are one entry
--     grace, us             as above
--                         of a crontab:
--     maximum               integer >= 1, tokens in a full bucket
--     amount                integer >= 1, tokens that come at each edge
--     past, epoch us        edges up to now, in order: as many as fill a bucket, and one more
--     ahead, epoch us       the next two, when such a bucket is full for certain, and for what it owes beyond that the
--                           longest time that a token can take, us
--   name                  of the bucket, among the overrides
--   override              that the caller's limit comes from, '' if it knows none
-- then now, epoch us      tests only
-- Returns {now us, count, seq, waiting, binds, again us, which, override, ...} and for each of the `count` slots the
-- instant from which and until which a start may use it, and the slot f of each limit, all in us. A costly one may lie
-- far ahead: it is granted when its first units can be had. `again` is when that is so for the lane's next slot after
-- these, `binds` the limit (from 1) that sets it, and `waiting` counts the workers that wait there.
-- `which` is 0 unless a higher override of that limit is stored than the caller knows: then nothing is granted until it
-- knows it.

local SLOTS_PER_CALL = 100
local SLACK_US = 60 * 1000000
local HEAD, FIELDS = 7, 7  -- arguments before those of the limits, and of each limit
local LAST_US = 2 ^ 53  -- of what costs nothing
local MOST_ROUNDS = 100  -- of a handful, until the limits agree on a start: nothing may stop the server
local WINDOWS = {smooth = smooth, fixed = fixed, sliding = sliding, crontab = crontab}

local horizon_us, patience_us, worker = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local size = math.floor((#ARGV - HEAD) / FIELDS)
local wanted, costs = parse_costs(ARGV[1], size)
wanted = math.min(wanted, SLOTS_PER_CALL)
local now_us = clock(ARGV[1 + HEAD + FIELDS * size])
local last_us = now_us + tonumber(ARGV[7])
local end_us = math.min(now_us + horizon_us, last_us)

local function number(text)  -- of an argument that may be several
  return tonumber(text) or text
end

local limits, next_log = {}, 3 + 2 * size
local t_us = math.max(now_us, tonumber(ARGV[6]))  -- a start
for index = 1, size do
  local window, a, b, c, d, name, known = unpack(ARGV, 1 + HEAD + FIELDS * (index - 1), HEAD + FIELDS * index)
  local floor_us, override = now_us - tonumber(ARGV[5]), keep(KEYS[1], KEYS[2], name, known)
  if override then
    if override ~= known then return {now_us, 0, 0, 1, index, now_us, index, override} end
    floor_us = math.max(floor_us, (select(3, parse_rank(override))))
  end
  local limit = {window = WINDOWS[window], bucket = KEYS[1 + 2 * index], waiters = KEYS[2 + 2 * index]}
  limit.floor_us, limit.units = floor_us, 0
  if limit.window == sliding then
    limit.log_key, next_log = KEYS[next_log], next_log + 1
  end
  limit.window.load(limit, now_us, horizon_us, number(a), number(b), number(c), number(d))
  limits[index] = limit
  t_us = math.max(t_us, limit.floor_us)
end

-- How much later a start may be at no cost to the others: the least A of these.
for index, limit in ipairs(limits) do
  local slack_us = size > 1 and math.huge or 0
  for place, other in ipairs(limits) do
    if place ~= index then slack_us = math.min(slack_us, other.age_us) end
  end
  limit.slack_us = slack_us
end

-- The lane's first slot of some costs from t_us on: its start, when it is granted, the slot of each limit, and the limit
-- that would be the last by itself. It is granted before its start only if it takes several units of one.
local function next_of_lane(from_us, cost)
  local slots, binds, latest_us, granted_us, is_costly = {}, 1, from_us, from_us, false
  for index, limit in ipairs(limits) do
    slots[index] = from_us
    if cost[index] > 0 then
      local start_us, us, first_us = limit.window.find(limit, from_us, cost[index])
      if start_us > latest_us then binds, latest_us = index, start_us end
      slots[index], granted_us, is_costly = us, math.max(granted_us, first_us), is_costly or cost[index] > 1
    end
  end
  local rounds = 0
  while latest_us > from_us and rounds < MOST_ROUNDS do
    from_us, rounds = latest_us, rounds + 1
    for index, limit in ipairs(limits) do
      if cost[index] > 0 then
        local start_us, us, first_us = limit.window.find(limit, from_us, cost[index])
        slots[index], latest_us = us, math.max(latest_us, start_us)
        if first_us > start_us then granted_us = first_us end  -- never
      end
    end
  end
  if latest_us > from_us then return latest_us, math.max(latest_us, end_us + 1), slots, binds end
  return from_us, is_costly and math.min(granted_us, from_us) or from_us, slots, binds
end

-- Workers that wait at a limit, this one among them.
local longest_us = patience_us + 2 * horizon_us
local function count_waiting(limit)
  if not limit.waiting then
    redis.call('ZREM', limit.waiters, worker)
    forget(limit.waiters, now_us, longest_us)
    limit.waiting = redis.call('ZCARD', limit.waiters) + 1
  end
  return limit.waiting
end

local answer = {now_us, 0, 0, 1, 1, 0, 0, ''}
local count, again_us, slots, binds = 0, nil, nil, nil
while true do
  local cost = costs[math.min(count + 1, #costs)]
  t_us, again_us, slots, binds = next_of_lane(t_us, cost)
  if count < wanted and t_us > last_us then again_us = t_us end  -- of a costly one, which could be granted before
  if count == wanted or again_us > end_us then break end
  -- At most twice the fair share, so that no worker takes the whole horizon from the others.
  local limit = limits[binds]
  if count > 0 then
    local free = limit.window.count_free(limit, end_us)
    if limit.units + cost[binds] > 2 * (free + limit.units) / count_waiting(limit) then break end
  end
  local until_us = math.huge
  answer[#answer + 1] = t_us
  local place = #answer + 1
  answer[place] = 0
  for index, limit in ipairs(limits) do
    local us, units = slots[index], cost[index]
    if units > 0 then
      limit.window.book(limit, us, units)
      limit.units = limit.units + units
      until_us = math.min(until_us, limit.window.usable_until(limit, t_us, us, units))
    end
    answer[#answer + 1] = us
  end
  answer[place] = math.min(until_us, LAST_US)
  count = count + 1
end

local seq = 0
if count > 0 then
  seq = now_us
  for _, limit in ipairs(limits) do seq = math.max(seq, limit.seq + 1) end
  for _, limit in ipairs(limits) do
    if limit.units > 0 then
      limit.window.store(limit, now_us, seq)
      redis.call('HINCRBY', limit.bucket, 'given', exact(limit.units))
    end
  end
end

-- Expiry collects garbage and decides nothing: the bucket is full again long before, for every limit that asked.
for _, limit in ipairs(limits) do
  local full_us = limit.window.full_us(limit)
  if full_us then
    local idle_ms = math.ceil((full_us - now_us + math.max(SLACK_US, 2 * horizon_us)) / 1000)
    for _, key in ipairs({limit.bucket, limit.log_key}) do
      if redis.call('PTTL', key) < idle_ms then redis.call('PEXPIRE', key, exact(idle_ms)) end
    end
  end
end

-- The caller comes back when the next slot enters the horizon, or when its patience ends.
local limit = limits[binds]
local waiting = count_waiting(limit)
local return_us = math.max(now_us, math.min(again_us - horizon_us, now_us + patience_us)) + 2 * horizon_us
if worker ~= '' then
  redis.call('ZADD', limit.waiters, exact(return_us), worker)
  redis.call('PEXPIRE', limit.waiters, exact(math.ceil(longest_us / 1000)))
end
answer[2], answer[3], answer[4], answer[5], answer[6] = count, seq, waiting, binds, again_us
return answer
