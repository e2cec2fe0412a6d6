-- give back: the unused tail of a reservation, if nothing was booked after it.
--
-- KEYS[1]  the bucket (slots.lua)
-- ARGV[1]  interval, us  } the emission interval the slots were reserved with
-- ARGV[2]  interval, ps  }
-- ARGV[3]  count         integer >= 1, slots to return, the last ones of the reservation
-- ARGV[4]  seq           the serial of the reservation
-- ARGV[5]  now, epoch us tests only
-- Returns 1 when they are free again, 0 when a later booking, or the loss of the bucket, forbids it.

local bucket = KEYS[1]
if redis.call('HGET', bucket, 'seq') ~= ARGV[4] then return 0 end
local interval = {us = tonumber(ARGV[1]), ps = tonumber(ARGV[2])}
local now_us = clock(ARGV[5])
local last_us, last_ps = last_slot(bucket, now_us)
local us, ps = after(last_us, last_ps, -tonumber(ARGV[3]), interval)
write(bucket, now_us, us, ps, tonumber(ARGV[4]) + 1)
redis.call('HINCRBY', bucket, 'given', -tonumber(ARGV[3]))
return 1
