-- give_back_lane: slots of a lane that were not used are holes of its limits again. Each limit decides for itself; what
-- one cannot take back stays booked.
--
-- Never sent twice: if a hole was booked again meanwhile, a repeat would free the slot of another.
--
-- KEYS     of each limit: the bucket (slots.lua, holes.lua)
-- ARGV     of each limit: the emission interval T, us, with which the slots were reserved
-- then seq                the serial of the reservation
-- then count              integer >= 1, slots to return
-- then for each of them the slot of each limit, us
-- Returns for each limit how many it has taken back.

local size = #KEYS
local seq, count = tonumber(ARGV[size + 1]), tonumber(ARGV[size + 2])
local taken = {}
for index, bucket in ipairs(KEYS) do
  local interval_us = tonumber(ARGV[index])
  local last, text = unpack(redis.call('HMGET', bucket, 'slot', 'holes'))
  local ranges, grid = parse_holes(text, interval_us)
  taken[index] = 0
  if last and grid and grid <= seq then
    for slot = 1, count do
      local us = tonumber(ARGV[size + 2 + (slot - 1) * size + index])
      if us <= tonumber(last) and free_again(ranges, us, interval_us) then taken[index] = taken[index] + 1 end
    end
  end
  if taken[index] > 0 then
    redis.call('HSET', bucket, 'holes', format_holes(ranges, interval_us, grid))
    redis.call('HINCRBY', bucket, 'given', -taken[index])
  end
end
return taken
