-- reserve: the next slots of a limit, up to the horizon. A refused call books nothing.
--
-- KEYS[1]  the bucket (slots.lua)
-- KEYS[2]  the waiting workers, a sorted set: worker -> epoch us until which it counts as waiting
-- KEYS[3]  the overrides (overrides.lua)
-- KEYS[4]  their era
-- ARGV[1]  interval, us       integer >= 0  } the emission interval T of the caller's limit,
-- ARGV[2]  interval, ps       0 to 999,999  } never both 0
-- ARGV[3]  burst              integer >= 1, slots in a full bucket
-- ARGV[4]  wanted             integer >= 1, slots the caller could use before the horizon
-- ARGV[5]  horizon, us        how far ahead of the clock slots are given out
-- ARGV[6]  patience, us       how long a worker sleeps on this bucket at the most
-- ARGV[7]  worker             a name that is unique to the calling process; '' for a caller that does not wait
-- ARGV[8]  name               of the bucket, among the overrides
-- ARGV[9]  override           that the caller's limit comes from, '' if it knows none
-- ARGV[10] awake, us          how long the caller has been in touch: no slot is saved from before
-- ARGV[11] latest, us         how far ahead of the clock the caller can use a slot
-- ARGV[12] now, epoch us      tests only
-- Returns {now us, slot us, slot ps, interval us, interval ps, count, seq, waiting, override}: `count` slots, the first
-- at `slot`, each an interval after the one before. If count is 0, `slot` is the next one that will be free.
-- `override` is '' unless a higher one is stored than the caller knows: then nothing is granted until it knows it.

local SLOTS_PER_CALL = 1000
local SLACK_US = 60 * 1000000

local bucket, waiters = KEYS[1], KEYS[2]
local limit = {us = tonumber(ARGV[1]), ps = tonumber(ARGV[2]), burst = tonumber(ARGV[3])}
local wanted, horizon_us, patience_us = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now_us = clock(ARGV[12])
local end_us = now_us + math.min(horizon_us, tonumber(ARGV[11]))

local floor_us, override = now_us - tonumber(ARGV[10]), keep(KEYS[3], KEYS[4], ARGV[8], ARGV[9])
if override then
  if override ~= ARGV[9] then return {now_us, now_us, 0, limit.us, limit.ps, 0, 0, 1, override} end
  floor_us = math.max(floor_us, (select(3, parse_rank(override))))
end
local first_us, first_ps
first_us, first_ps, floor_us = next_slot(bucket, now_us, limit, floor_us)

-- How many slots lie before that. The division may be off by one either way, hence + 2 and the walk back.
local free = 0
if first_us <= end_us then
  local interval_us = limit.us + limit.ps / PS_PER_US
  free = math.min(SLOTS_PER_CALL, math.floor((end_us - first_us) / interval_us) + 2)
  while free > 0 do
    local us, ps = after(first_us, first_ps, free - 1, limit)
    if not is_later(us, ps, end_us, 0) then break end
    free = free - 1
  end
end

-- Other workers that wait.
local longest_us = patience_us + 2 * horizon_us
redis.call('ZREM', waiters, ARGV[7])
forget(waiters, now_us, longest_us)
local waiting = redis.call('ZCARD', waiters) + 1

-- At most twice the fair share, so that no worker takes the whole horizon from the others.
local count = math.min(wanted, free, math.max(1, math.floor(2 * free / waiting)))
local us, ps = after(first_us, first_ps, count - 1, limit)  -- the last slot given out, now or before
local seq = 0
if count > 0 then
  seq = math.max((tonumber(redis.call('HGET', bucket, 'seq')) or 0) + 1, now_us)
  write(bucket, now_us, us, ps, seq)
  redis.call('HINCRBY', bucket, 'given', count)
end

-- Expiry collects garbage and decides nothing: the bucket is full again long before, for every limit that asked, and
-- before a floor it has nothing to give.
if first_us ~= floor_us or count > 0 then
  local full_us = after(us, ps, limit.burst, limit)
  local idle_ms = math.ceil((full_us - now_us + math.max(SLACK_US, 2 * horizon_us)) / 1000)
  if redis.call('PTTL', bucket) < idle_ms then redis.call('PEXPIRE', bucket, exact(idle_ms)) end
end

-- The caller comes back when the next slot enters the horizon, or when its patience ends.
local next_us = after(us, ps, 1, limit)
local return_us = math.max(now_us, math.min(next_us - horizon_us, now_us + patience_us)) + 2 * horizon_us
if ARGV[7] ~= '' then
  redis.call('ZADD', waiters, exact(return_us), ARGV[7])
  redis.call('PEXPIRE', waiters, exact(math.ceil(longest_us / 1000)))
end
return {now_us, first_us, first_ps, limit.us, limit.ps, count, seq, waiting, ''}
