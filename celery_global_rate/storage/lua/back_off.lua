-- back off: an API has asked for a pause. The buckets have no slot before it is over, and save none until then.
--
-- KEYS     the states of all limits of a bucket (slots.lua, fixed.lua, sliding.lua, crontab.lua)
-- ARGV[1]  length, us       from now on; of several pauses the one that ends last counts. 0 to end those there are
-- ARGV[2]  channel          where it is announced, as "off\nuntil length\nnote"
-- ARGV[3]  note             whose it is, and why
-- ARGV[4]  now, epoch us    tests only
-- Returns {now us, until us, 1 if that is another end than before, else 0}.

local SLACK_US = 60 * 1000000
local now_us, is_end = clock(ARGV[4]), ARGV[1] == '0'
local before_us, off_us = {}, now_us + tonumber(ARGV[1])
for index, bucket in ipairs(KEYS) do
  before_us[index] = end_of_back_off(now_us, unpack(redis.call('HMGET', bucket, 'off', 'off_length')))
  if not is_end then off_us = math.max(off_us, before_us[index]) end
end
local length_us, is_new = off_us - now_us, 0
for index, bucket in ipairs(KEYS) do
  if is_end and before_us[index] > off_us or not is_end and before_us[index] < off_us then
    redis.call('HSET', bucket, 'off', exact(off_us), 'off_length', exact(length_us))
    local idle_ms = math.ceil((length_us + SLACK_US) / 1000)
    if redis.call('PTTL', bucket) < idle_ms then redis.call('PEXPIRE', bucket, exact(idle_ms)) end
    is_new = 1
  end
end
if is_new == 1 then
  redis.call('PUBLISH', ARGV[2], 'off\n' .. exact(off_us) .. ' ' .. exact(length_us) .. '\n' .. ARGV[3])
end
return {now_us, off_us, is_new}
