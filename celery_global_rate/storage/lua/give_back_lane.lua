-- give_back_lane: slots of a lane that were not used are free again. Each limit decides for itself; what one cannot take
-- back stays booked.
--
-- Never sent twice: if a slot was booked again meanwhile, a repeat would free that of another.
--
-- KEYS     of each limit: the bucket (slots.lua, holes.lua, fixed.lua)
-- ARGV     of each limit: the emission interval T, us, with which the slots were reserved; 0 for fixed windows
-- then seq                the serial of the reservation
-- then count              integer >= 1, slots to return
-- then for each of them the slot of each limit, us
-- Returns for each limit how many it has taken back.

local size = #KEYS
local seq, count = tonumber(ARGV[size + 1]), tonumber(ARGV[size + 2])
local taken = {}
for index, bucket in ipairs(KEYS) do
  local interval_us, slots = tonumber(ARGV[index]), {}
  for slot = 1, count do slots[slot] = tonumber(ARGV[size + 2 + (slot - 1) * size + index]) end
  local window = interval_us > 0 and smooth or fixed
  taken[index] = window.take_back(bucket, seq, slots, interval_us)
  if taken[index] > 0 then redis.call('HINCRBY', bucket, 'given', -taken[index]) end
end
return taken
