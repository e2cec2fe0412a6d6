-- Fixed windows: at most N starts in each window of a calendar. Prepended to the scripts for lanes, after the holes.
--
-- The calendar is the caller's: months, and days that have 23 or 25 hours, are its business. It says where the windows
-- begin around the instant that it takes for now: e0, e1 and e2 are the begin of that window, its end, and the end of
-- the next one. If it is wrong about now, nothing is lost but time: a start before e0 waits for e0, and none waits for a
-- window that begins at e2 or later. The answer has the clock, so the caller knows better at its next call. Only a start
-- that another limit lets wait that long, for what it costs there, counts in a later window: that goes for windows of
-- less than a day, which all have one length.
--
-- The slot of a start is the window that it counts in, by its begin. A start lies within its window: it is granted for
-- no instant of the last GUARD of it, and may use its slot until half of that is left.
--
-- KEYS[1], the bucket, a hash:
--   windows        "born begin:used begin:used ...", epoch us: how many slots of each window are booked. `born` is the
--                  serial with which this state began: what was booked before it is not in there, and cannot come back.
--   owed           "begin units": what a start there cost beyond N. It had the window to itself, and the next ones have
--                  so much less, N each at the most
--   seq, given     as of any limit (slots.lua)
-- A missing bucket has used nothing. Windows that are over are kept for a while: the clock may step back.

local GUARD_US = 50000
local MOST_OVER = 7  -- windows that are kept, beside those from that of now on
local SHORTEST_DAY_US = 23 * 3600 * 1000000
local MOST_LOOKS = 8

local fixed = {}

-- The windows, the one that was booked last at the end; and `born`, nil if there is none.
local function parse_windows(text)
  local windows = {}
  for begin_us, used in string.gmatch(text or '', '(%d+):(%d+)') do
    windows[#windows + 1] = {begin_us = tonumber(begin_us), used = tonumber(used)}
  end
  return windows, tonumber(string.match(text or '', '^%d+'))
end

local function format_windows(windows, born)
  local words = {exact(born)}
  for index = 1, #windows do
    words[#words + 1] = exact(windows[index].begin_us) .. ':' .. exact(windows[index].used)
  end
  return table.concat(words, ' ')
end

local function parse_owed(text)
  local begin_us, units = string.match(text or '', '^(%d+) (%d+)')
  return begin_us and {begin_us = tonumber(begin_us), units = tonumber(units)}
end

local function store_owed(bucket, owed)
  if owed then redis.call('HSET', bucket, 'owed', exact(owed.begin_us) .. ' ' .. exact(owed.units)) end
end

local function find_window(windows, begin_us)
  for index, window in ipairs(windows) do
    if window.begin_us == begin_us then return window, index end
  end
end

function fixed.load(limit, now_us, horizon_us, most, ...)
  limit.most, limit.edges_us, limit.now_us = most, {...}, now_us
  -- A later start costs the limit nothing. But nobody waits longer than this to spare the others a slot.
  limit.age_us, limit.never_us = horizon_us, now_us + horizon_us + 1
  local seq, text, owed, off, off_length =
    unpack(redis.call('HMGET', limit.bucket, 'seq', 'windows', 'owed', 'off', 'off_length'))
  limit.floor_us = math.max(limit.floor_us, end_of_back_off(now_us, off, off_length))
  limit.seq = tonumber(seq) or 0
  limit.windows, limit.born = parse_windows(text)
  limit.owed = parse_owed(owed)
end

-- What a window still owes for a start before it. Windows differ in length, by a month's days or an hour.
local function count_owed(limit, begin_us)
  local owed, edges_us = limit.owed, limit.edges_us
  if not owed or owed.begin_us >= begin_us then return 0 end
  local behind = math.floor((begin_us - owed.begin_us) / (edges_us[2] - edges_us[1]) + 0.5)
  return math.max(0, owed.units - (behind - 1) * limit.most)
end

local function count_left(limit, begin_us)
  local window = find_window(limit.windows, begin_us)
  return math.max(0, limit.most - (window and window.used or 0) - count_owed(limit, begin_us))
end

local function end_of(limit, begin_us)
  local edges_us = limit.edges_us
  if begin_us == edges_us[1] then return edges_us[2] end
  return begin_us + edges_us[3] - edges_us[2]
end

-- The start: t, or the first instant after it that the limit allows; its slot, the begin of its window; and the start
-- again, for nothing is booked before it can be had, or never.
function fixed.find(limit, t_us, cost)
  local edges_us, units = limit.edges_us, math.min(cost, limit.most)
  local begins_us, length_us = {edges_us[1], edges_us[2]}, edges_us[3] - edges_us[2]
  if t_us >= edges_us[3] and limit.now_us < edges_us[3] and length_us < SHORTEST_DAY_US then
    local first_us = t_us - (t_us - edges_us[3]) % length_us
    for place = 1, MOST_LOOKS do begins_us[place] = first_us + (place - 1) * length_us end
  end
  for _, begin_us in ipairs(begins_us) do
    local start_us = math.max(t_us, begin_us)
    if start_us < end_of(limit, begin_us) - GUARD_US and count_left(limit, begin_us) >= units then
      return start_us, begin_us, start_us
    end
  end
  return math.max(t_us, edges_us[3], limit.never_us), edges_us[3], math.huge
end

-- How many units there are up to an instant.
function fixed.count_free(limit, end_us)
  local edges_us, free = limit.edges_us, 0
  for place = 1, 2 do
    local is_over = limit.now_us >= edges_us[place + 1] - GUARD_US
    if edges_us[place] <= end_us and not is_over then free = free + count_left(limit, edges_us[place]) end
  end
  return free
end

-- Book a slot that was found.
function fixed.book(limit, begin_us, cost)
  local window, index = find_window(limit.windows, begin_us)
  if window then table.remove(limit.windows, index) end
  local over = 0
  for place = #limit.windows, 1, -1 do
    if limit.windows[place].begin_us < limit.edges_us[1] then
      over = over + 1
      if over > MOST_OVER then table.remove(limit.windows, place) end
    end
  end
  limit.windows[#limit.windows + 1] = {begin_us = begin_us, used = (window and window.used or 0) + cost}
  if cost > limit.most then limit.owed = {begin_us = begin_us, units = cost - limit.most} end
end

-- Until when a start may use its slot.
function fixed.usable_until(limit, t_us, begin_us)
  return end_of(limit, begin_us) - GUARD_US / 2
end

function fixed.store(limit, now_us, seq)
  redis.call('HSET', limit.bucket, 'windows', format_windows(limit.windows, limit.born or seq), 'seq', exact(seq))
  store_owed(limit.bucket, limit.owed)
end

-- From when on a missing bucket is as good as this one; nil if it is missing.
function fixed.full_us(limit)
  local edges_us = limit.edges_us
  if not limit.windows[1] then return nil end
  local full_us, length_us = edges_us[3], edges_us[3] - edges_us[2]
  for _, window in ipairs(limit.windows) do full_us = math.max(full_us, window.begin_us + length_us) end
  if limit.owed then
    full_us = math.max(full_us, limit.owed.begin_us + (math.ceil(limit.owed.units / limit.most) + 2) * length_us)
  end
  return full_us
end

-- Slots of a booking are free again; how many units.
function fixed.take_back(bucket, seq, slots, costs)
  local text, owed = unpack(redis.call('HMGET', bucket, 'windows', 'owed'))
  local windows, born = parse_windows(text)
  owed = parse_owed(owed)
  local taken = 0
  if born and born <= seq then
    for place, begin_us in ipairs(slots) do
      local window = find_window(windows, begin_us)
      local units = math.min(costs[place], window and window.used or 0)
      if units > 0 then
        window.used, taken = window.used - units, taken + units
        if owed and owed.begin_us == begin_us then owed.units = math.max(0, owed.units - units) end
      end
    end
  end
  if taken > 0 then
    redis.call('HSET', bucket, 'windows', format_windows(windows, born))
    store_owed(bucket, owed)
  end
  return taken
end
