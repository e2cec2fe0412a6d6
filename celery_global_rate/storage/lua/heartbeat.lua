-- heartbeat: this worker is alive; returns how many are. A new worker is announced to the others at once.
--
-- KEYS[1]  the workers, a sorted set: worker -> epoch us until which it counts as living
-- ARGV[1]  worker             a name that is unique to the calling process
-- ARGV[2]  life, us           how long it counts without another beat
-- ARGV[3]  channel            where new workers are announced
-- ARGV[4]  now, epoch us      tests only
-- Returns the number of workers that live, this one among them.

local workers, life_us = KEYS[1], tonumber(ARGV[2])
local now_us = clock(ARGV[4])
forget(workers, now_us, life_us)
local joined = redis.call('ZADD', workers, exact(now_us + life_us), ARGV[1])
redis.call('PEXPIRE', workers, exact(math.ceil(life_us / 1000)))
local count = redis.call('ZCARD', workers)
if joined == 1 then redis.call('PUBLISH', ARGV[3], 'workers\n' .. count) end
return count
