-- keep: a worker and this server tell each other all records; of each the higher one stays.
--
-- KEYS[1]  the records (records.lua)
-- KEYS[2]  the era
-- ARGV[1]  id of a new era, where there is none
-- ARGV[2]  name    } any number of these pairs: what the worker knows
-- ARGV[3]  record  }
-- Returns {now us, id of the era, its changes, {name, record, ...}}: all records there are. Where there are none, there
-- is no era, and nothing is written.

local records, era = KEYS[1], KEYS[2]
for index = 2, #ARGV, 2 do keep(records, era, ARGV[index], ARGV[index + 1]) end
if redis.call('EXISTS', records) == 1 then redis.call('HSETNX', era, 'id', ARGV[1]) end
local id, changes = unpack(redis.call('HMGET', era, 'id', 'changes'))
return {clock(), id, changes, redis.call('HGETALL', records)}
