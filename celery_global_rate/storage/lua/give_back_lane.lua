-- give_back_lane: slots of a lane that were not used are free again. Each limit decides for itself; what one cannot take
-- back stays booked.
--
-- Never sent twice: if a slot was booked again meanwhile, a repeat would free that of another.
--
-- KEYS     of each limit: the bucket (slots.lua, holes.lua, fixed.lua, sliding.lua)
-- then of each sliding one: the log
-- ARGV[1]  seq            the serial of the reservation
-- ARGV[2]  slots          to return, and what they cost (costs.lua)
-- ARGV[3]  limits         how many the lane has
-- then of each limit: its window, and the emission interval T, us, with which the slots were reserved; of a sliding one
--                         how long a slot stays in the log, us; the others need neither
-- then for each slot that of each limit, us
-- then now, epoch us      tests only
-- Returns for each limit how many units it has taken back.

local seq, size = tonumber(ARGV[1]), tonumber(ARGV[3])
local count, costs = parse_costs(ARGV[2], size)
local WINDOWS = {smooth = smooth, fixed = fixed, sliding = sliding, crontab = crontab}
local first = 3 + 2 * size  -- the last argument before the slots
local now_us = clock(ARGV[first + count * size + 1])
local taken, next_log = {}, size + 1
for index = 1, size do
  local window, length_us, slots, units = WINDOWS[ARGV[2 + 2 * index]], tonumber(ARGV[3 + 2 * index]), {}, {}
  for slot = 1, count do
    if costs[slot][index] > 0 then
      slots[#slots + 1] = tonumber(ARGV[first + (slot - 1) * size + index])
      units[#units + 1] = costs[slot][index]
    end
  end
  local log
  if window == sliding then
    log, next_log = KEYS[next_log], next_log + 1
  end
  taken[index] = #slots > 0 and window.take_back(KEYS[index], seq, slots, units, now_us, length_us, log) or 0
  if taken[index] > 0 then redis.call('HINCRBY', KEYS[index], 'given', exact(-taken[index])) end
end
return taken
