-- Holes: the free slots that a limit has before S. Prepended to the scripts for lanes, after the overrides.
--
-- The limits of a lane book together: a slot of the lane starts at one instant t, at which each of them has a slot f
-- (t - (b-1) T <= f <= t; what t waits for is another limit). A limit that other lanes cross must not lose the slots it
-- skips for that: they are holes, and found again. Also, a slot may be older than (b-1) T at t, by A = OLDEST of the
-- grace D at the most. The slot of the lane ends that much earlier, at min(t, f + (b-1) T) + D.
--
-- Why no window holds more than b + (w + D)/T starts: all slots booked and all holes of a limit lie at least T apart
-- (one is booked at S + T or later, or was a hole, and is none from then on; holes are left between S and a later slot,
-- at multiples of T before that). A start lies within [f, f + (b-1) T + D]. So the starts of a window of length w have
-- slots in one of length w + (b-1) T + D, which holds 1 + that / T.
--
-- A start that costs c units takes c slots in a row, all of them at t or before: f, f + T, ..., f + (c-1) T. Where c is
-- more than b, read c for b: what the burst does not hold is paid from S + T on, and the start waits for the last of it.
--
-- T is in whole us here, rounded up, and so is S. reserve.lua and give_back.lua may book on the same hash (a rolling
-- deploy). They know no holes: they book at S + T or later and take back no slot from before their own, so that S stays
-- behind the holes. Where their T is another one, the slots lie the shorter of the two apart, as with any two limits
-- declared for one bucket.
--
-- The field `holes` of the bucket's hash: "T grid us:n us:n ...". Each range is n holes at us, us + T, ..., the oldest
-- range first. `grid` is the serial with which it began: slots booked since lie T apart from all there is, and only these
-- become holes when they are given back.

local MOST_RANGES = 16
local OLDEST = 0.3  -- how old a slot may be at its start, as a share of D

local smooth = {}

-- The ranges of free slots and the grid they are on; a new grid is nil until it is written.
local function parse_holes(text, interval_us)
  local ranges = {}
  local interval, grid = string.match(text or '', '^(%d+) (%d+)')
  if tonumber(interval) ~= interval_us then return ranges, nil end
  for us, count in string.gmatch(text, '(%d+):(%d+)') do
    ranges[#ranges + 1] = {us = tonumber(us), count = tonumber(count)}
  end
  return ranges, tonumber(grid)
end

-- If there are too many ranges, the oldest slots are lost: fewer, never more.
local function format_holes(ranges, interval_us, grid)
  local words = {exact(interval_us), exact(grid)}
  for index = math.max(1, #ranges - MOST_RANGES + 1), #ranges do
    words[#words + 1] = exact(ranges[index].us) .. ':' .. exact(ranges[index].count)
  end
  return table.concat(words, ' ')
end

-- The state of a limit. `reach_us` is (b-1) T, `age_us` A, `oldest_us` the oldest slot of use now, `last_us` S and
-- `next_us` S + T; both nil if the bucket is missing.
function smooth.load(limit, now_us, horizon_us, interval_us, burst, grace_us, is_crossed)
  limit.interval_us, limit.grace_us, limit.is_crossed = interval_us, grace_us, is_crossed == 1
  limit.reach_us, limit.age_us = (burst - 1) * interval_us, math.floor(OLDEST * grace_us)
  limit.oldest_us = now_us - limit.reach_us - limit.age_us
  local us, ps, off_us = last_slot(limit.bucket, now_us)
  limit.floor_us = math.max(limit.floor_us, off_us)
  if us then
    local seq, text, largest = unpack(redis.call('HMGET', limit.bucket, 'seq', 'holes', 'largest'))
    limit.largest = tonumber(largest)
    limit.last_us = us + math.min(1, ps)
    limit.next_us = limit.last_us + interval_us
    limit.seq = tonumber(seq)
    limit.ranges, limit.grid = parse_holes(text, interval_us)
    while limit.ranges[1] and limit.ranges[1].us + (limit.ranges[1].count - 1) * interval_us < limit.oldest_us do
      table.remove(limit.ranges, 1)
    end
  else
    limit.ranges, limit.seq = {}, 0
  end
end

-- The first of `cost` holes in a row for a start, which must not lie behind `t_us`; or nil. If all that are left do, the
-- first of these. The best is the oldest within the burst's reach, then the newest beyond it.
local function find_hole(limit, t_us, first_us, low_us, cost)
  local T, older_us = limit.interval_us, nil
  for _, range in ipairs(limit.ranges) do
    local last_us = range.us + (range.count - cost) * T
    local us = range.us + math.max(0, math.ceil((first_us - range.us) / T)) * T
    local newest_us = math.min(us - T, last_us)
    if newest_us >= math.max(range.us, low_us) then older_us = newest_us end
    if us <= last_us then return us > t_us and older_us or us end
  end
  return older_us
end

-- How far before its start a slot may lie, within the burst's reach or that of the cost.
local function reach_of(limit, cost)
  return math.max(limit.reach_us, (cost - 1) * limit.interval_us)
end

-- The start: t, or the first instant after it that the limit allows; its slot, the first of `cost` in a row; and from
-- when on that one can be had. `slack_us` is how much later a start may be at no cost to the other limits of the lane.
function smooth.find(limit, t_us, cost)
  local T, next_us = limit.interval_us, limit.next_us
  local reach_us, span_us = reach_of(limit, cost), (cost - 1) * T
  local first_us = math.max(t_us - reach_us, limit.floor_us)
  local low_us = math.max(t_us - reach_us - limit.age_us, limit.floor_us)
  if limit.ranges[1] then
    local hole_us = find_hole(limit, t_us - span_us, first_us, low_us, cost)
    if hole_us then return math.max(t_us, hole_us + span_us), hole_us, hole_us end
  end
  if not next_us or next_us <= limit.oldest_us + limit.reach_us - reach_us then
    return math.max(t_us, first_us + span_us), first_us, first_us
  end
  if next_us + span_us > t_us then return next_us + span_us, next_us, next_us end
  if not limit.is_crossed or cost > 1 then  -- many in a row find few holes to fill, and leave none if they need not
    local us = math.max(next_us, low_us)
    return math.max(t_us, us + span_us), us, us
  end
  -- In step with S the holes are of use: the first slot within reach, one no older than A, or the next one, if the
  -- others can wait. Else out of step, as old as it may be: the time from S + T to there is lost in part.
  local us = next_us + math.max(0, math.ceil((first_us - next_us) / T)) * T
  if us + span_us <= t_us then return t_us, us, us end
  if us - T >= low_us then return t_us, us - T, us - T end
  if us + span_us - t_us <= limit.slack_us then return us + span_us, us, us end
  return math.max(t_us, low_us + span_us), low_us, low_us
end

-- How many units there are up to an instant.
function smooth.count_free(limit, end_us)
  local T = limit.interval_us
  local low_us = math.max(limit.oldest_us, limit.floor_us)
  local free = 0
  for _, range in ipairs(limit.ranges) do
    local skipped = math.max(0, math.ceil((low_us - range.us) / T))
    free = free + math.max(0, math.min(range.count, math.floor((end_us - range.us) / T) + 1) - skipped)
  end
  local next_us = math.max(limit.next_us or 0, low_us)
  return free + math.max(0, math.floor((end_us - next_us) / T) + 1)
end

-- Remove holes in a row: their range is cut in two.
local function fill(limit, us, cost)
  local T, ranges = limit.interval_us, limit.ranges
  for index, range in ipairs(ranges) do
    local before = (us - range.us) / T
    if before >= 0 and before < range.count then
      local behind = range.count - before - cost
      if behind > 0 then table.insert(ranges, index + 1, {us = us + cost * T, count = behind}) end
      range.count = before
      if before == 0 then table.remove(ranges, index) end
      return
    end
  end
end

-- Book a slot that was found.
function smooth.book(limit, us, cost)
  local T = limit.interval_us
  if (cost - 1) * T > limit.reach_us then limit.largest = math.max(cost, limit.largest or 0) end
  if limit.last_us and us <= limit.last_us then
    fill(limit, us, cost)
    return
  end
  if limit.is_crossed then
    local skipped = math.floor((us - math.max(limit.next_us or 0, limit.floor_us, limit.oldest_us)) / T)
    if skipped > 0 then table.insert(limit.ranges, {us = us - skipped * T, count = skipped}) end
  end
  limit.last_us, limit.next_us = us + (cost - 1) * T, us + cost * T
end

-- Until when a start may use its slot: an old one ends earlier.
function smooth.usable_until(limit, t_us, us, cost)
  return math.min(t_us, us + reach_of(limit, cost)) + limit.grace_us
end

function smooth.store(limit, now_us, seq)
  local holes = format_holes(limit.ranges, limit.interval_us, limit.grid or seq)
  write(limit.bucket, now_us, limit.last_us, 0, seq, 'holes', holes)
  if limit.largest then redis.call('HSET', limit.bucket, 'largest', exact(limit.largest)) end
end

-- From when on a missing bucket is as good as this one, for the largest cost as well; nil if it is missing.
function smooth.full_us(limit)
  return limit.last_us and limit.next_us + reach_of(limit, limit.largest or 1)
end

-- Booked slots in a row become holes, unless they would overlap some.
local function free_again(ranges, us, cost, interval_us)
  local place, end_us = 1, us + cost * interval_us
  for index, range in ipairs(ranges) do
    local last_us = range.us + (range.count - 1) * interval_us
    if end_us > range.us and us < last_us + interval_us then return false end
    if us > last_us then place = index + 1 end
  end
  local before, behind = ranges[place - 1], ranges[place]
  if before and before.us + before.count * interval_us == us then
    before.count = before.count + cost
    if behind and behind.us == end_us then
      before.count = before.count + behind.count
      table.remove(ranges, place)
    end
  elseif behind and behind.us == end_us then
    behind.us, behind.count = us, behind.count + cost
  else
    table.insert(ranges, place, {us = us, count = cost})
  end
  return true
end

-- Slots of a booking become holes; how many units.
function smooth.take_back(bucket, seq, slots, costs, now_us, interval_us)
  local last, text = unpack(redis.call('HMGET', bucket, 'slot', 'holes'))
  local ranges, grid = parse_holes(text, interval_us)
  local taken = 0
  if last and grid and grid <= seq then
    for place, us in ipairs(slots) do
      local cost = costs[place]
      local end_us = us + (cost - 1) * interval_us
      if end_us <= tonumber(last) and free_again(ranges, us, cost, interval_us) then taken = taken + cost end
    end
  end
  if taken > 0 then redis.call('HSET', bucket, 'holes', format_holes(ranges, interval_us, grid)) end
  return taken
end
