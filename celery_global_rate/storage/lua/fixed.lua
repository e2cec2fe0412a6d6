-- Fixed windows: at most N starts in each window of a calendar. Prepended to the scripts for lanes, after the holes.
--
-- The calendar is the caller's: months, and days that have 23 or 25 hours, are its business. It says where the windows
-- begin around the instant that it takes for now: e0, e1 and e2 are the begin of that window, its end, and the end of
-- the next one. If it is wrong about now, nothing is lost but time: a start before e0 waits for e0, and none is granted
-- at e2 or later. The answer has the clock, so the caller knows better at its next call.
--
-- The slot of a start is the window that it counts in, by its begin. A start lies within its window: it is granted for
-- no instant of the last GUARD of it, and may use its slot until half of that is left.
--
-- KEYS[1], the bucket, a hash:
--   windows        "born begin:used begin:used ...", epoch us: how many slots of each window are booked. `born` is the
--                  serial with which this state began: what was booked before it is not in there, and cannot come back.
--   seq, given     as of any limit (slots.lua)
-- A missing bucket has used nothing. Windows that are over are kept for a while: the clock may step back.

local GUARD_US = 50000
local MOST_WINDOWS = 8

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
  for index = math.max(1, #windows - MOST_WINDOWS + 1), #windows do
    words[#words + 1] = exact(windows[index].begin_us) .. ':' .. exact(windows[index].used)
  end
  return table.concat(words, ' ')
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
  local seq, text = unpack(redis.call('HMGET', limit.bucket, 'seq', 'windows'))
  limit.seq = tonumber(seq) or 0
  limit.windows, limit.born = parse_windows(text)
end

local function count_left(limit, begin_us)
  local window = find_window(limit.windows, begin_us)
  return math.max(0, limit.most - (window and window.used or 0))
end

-- The start: t, or the first instant after it that the limit allows; and its slot, the begin of its window.
function fixed.find(limit, t_us)
  local edges_us = limit.edges_us
  for place = 1, 2 do
    t_us = math.max(t_us, edges_us[place])
    if t_us < edges_us[place + 1] - GUARD_US and count_left(limit, edges_us[place]) > 0 then
      return t_us, edges_us[place]
    end
  end
  return math.max(t_us, edges_us[3], limit.never_us), edges_us[3]
end

-- How many slots there are up to an instant.
function fixed.count_free(limit, end_us)
  local edges_us, free = limit.edges_us, 0
  for place = 1, 2 do
    local is_over = limit.now_us >= edges_us[place + 1] - GUARD_US
    if edges_us[place] <= end_us and not is_over then free = free + count_left(limit, edges_us[place]) end
  end
  return free
end

-- Book a slot that was found.
function fixed.book(limit, begin_us)
  local window, index = find_window(limit.windows, begin_us)
  if window then table.remove(limit.windows, index) end
  limit.windows[#limit.windows + 1] = {begin_us = begin_us, used = (window and window.used or 0) + 1}
end

-- Until when a start may use its slot.
function fixed.usable_until(limit, t_us, begin_us)
  local edges_us = limit.edges_us
  return edges_us[begin_us == edges_us[1] and 2 or 3] - GUARD_US / 2
end

function fixed.store(limit, now_us, seq)
  redis.call('HSET', limit.bucket, 'windows', format_windows(limit.windows, limit.born or seq), 'seq', exact(seq))
end

-- From when on a missing bucket is as good as this one; nil if it is missing.
function fixed.full_us(limit)
  return limit.windows[1] and limit.edges_us[3]
end

-- Slots of a booking are free again; how many.
function fixed.take_back(bucket, seq, slots)
  local windows, born = parse_windows(redis.call('HGET', bucket, 'windows'))
  local taken = 0
  if born and born <= seq then
    for _, begin_us in ipairs(slots) do
      local window = find_window(windows, begin_us)
      if window and window.used > 0 then
        window.used, taken = window.used - 1, taken + 1
      end
    end
  end
  if taken > 0 then redis.call('HSET', bucket, 'windows', format_windows(windows, born)) end
  return taken
end
