-- sync_overrides: a worker and this server exchange all overrides; of each the higher one stays.
--
-- KEYS[1]  the overrides (overrides.lua)
-- KEYS[2]  the era
-- ARGV[1]  id of a new era, if there is none
-- ARGV[2]  name     } any number of these pairs: what the worker knows
-- ARGV[3]  override }
-- Returns {now us, id of the era, its changes, {name, override, ...}}: all overrides there are. If there are none, there
-- is no era, and nothing is written.

local overrides, era = KEYS[1], KEYS[2]
for index = 2, #ARGV, 2 do keep(overrides, era, ARGV[index], ARGV[index + 1]) end
if redis.call('EXISTS', overrides) == 1 then redis.call('HSETNX', era, 'id', ARGV[1]) end
local id, changes = unpack(redis.call('HMGET', era, 'id', 'changes'))
return {clock(), id, changes, redis.call('HGETALL', overrides)}
