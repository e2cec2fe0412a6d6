-- back off: an API has asked for a pause. The buckets have no slot before it is over, and save none until then.
--
-- KEYS     the states of all limits of a bucket (slots.lua, fixed.lua, sliding.lua, crontab.lua)
-- ARGV[1]  length, us       integer >= 1, from now on; of several pauses the one that ends last counts
-- ARGV[2]  channel          where it is announced, as "off\nuntil length\nnote"
-- ARGV[3]  note             whose it is, and why
-- ARGV[4]  now, epoch us    tests only
-- Returns {now us, until us, 1 if it ends later than before, else 0}.

local SLACK_US = 60 * 1000000
local now_us = clock(ARGV[4])
local before_us, off_us = {}, now_us + tonumber(ARGV[1])
for index, bucket in ipairs(KEYS) do
  before_us[index] = end_of_back_off(now_us, unpack(redis.call('HMGET', bucket, 'off', 'off_length')))
  off_us = math.max(off_us, before_us[index])
end
local length_us, is_later = off_us - now_us, 0
for index, bucket in ipairs(KEYS) do
  if off_us > before_us[index] then
    redis.call('HSET', bucket, 'off', exact(off_us), 'off_length', exact(length_us))
    local idle_ms = math.ceil((length_us + SLACK_US) / 1000)
    if redis.call('PTTL', bucket) < idle_ms then redis.call('PEXPIRE', bucket, exact(idle_ms)) end
    is_later = 1
  end
end
if is_later == 1 then
  redis.call('PUBLISH', ARGV[2], 'off\n' .. exact(off_us) .. ' ' .. exact(length_us) .. '\n' .. ARGV[3])
end
return {now_us, off_us, is_later}
