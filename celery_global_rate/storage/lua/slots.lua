-- The slots of a limit. Prepended to every script: the only place with the maths.
--
-- A limit gives out slots, one emission interval T after the other, on the clock of this server (GCRA: ITU-T
-- I.371 in its virtual scheduling form). What is stored is S, the last slot given out, and not the next one:
-- the caller's own T and burst decide what comes next, so a change of the limit is right at once.
--
-- An instant or interval is two integers, microseconds and picoseconds (0 to 999,999): "us" and "ps". Rates
-- that do not divide a second keep their remainder in ps. All values stay below 2^53, where doubles are exact.
--
-- KEYS[1], the bucket, a hash:
--   slot, slot_ps  S, epoch us and its ps
--   lead           how far S was ahead of the clock when it was written, us, 0 or more
--   seq            the serial of the last booking: grows with each, and never below the clock in us
--   given          slots given out so far, without those that came back
--   holes          free slots before S (holes.lua), where lanes of several limits share it
--   off            before this there is no slot, epoch us, and none is saved: an API has asked for a pause (back_off.lua)
--   off_length     how far ahead of the clock that was when it was written, us
-- A missing bucket is a full one.

local PS_PER_US = 1000000

local function exact(number)  -- tostring() would keep 14 digits
  return string.format('%.0f', number)
end

local function clock(injected_us)  -- tests inject; production omits the argument
  if injected_us then return tonumber(injected_us) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The instant `count` intervals after an instant; before it, if count is negative.
local function after(us, ps, count, interval)
  ps = ps + count * interval.ps
  return us + count * interval.us + math.floor(ps / PS_PER_US), ps % PS_PER_US
end

local function is_later(us, ps, than_us, than_ps)
  return us > than_us or (us == than_us and ps > than_ps)
end

-- Until when a bucket backs off; 0 if it does not. It lasts no longer than was asked, on a clock that has stepped back
-- since as well.
local function end_of_back_off(now_us, off, off_length)
  return off and math.min(tonumber(off), now_us + tonumber(off_length)) or 0
end

-- S as it stands at now_us, and until when the bucket backs off; no S if the bucket is full. S - now can only shrink while the clock moves
-- forward, so a lead larger than the one written means that the clock stepped back: S then keeps its lead. That is
-- written at once, by a refused call too: time must pass from the new S. The holes are instants of the clock as it was,
-- and what is booked from now on would overlap them.
local function last_slot(bucket, now_us)
  local us, ps, lead, off, off_length =
    unpack(redis.call('HMGET', bucket, 'slot', 'slot_ps', 'lead', 'off', 'off_length'))
  local off_us = end_of_back_off(now_us, off, off_length)
  if not us then return nil, nil, off_us end
  if us - now_us > tonumber(lead) then
    us = now_us + lead
    redis.call('HSET', bucket, 'slot', exact(us), 'holes', '')
  end
  return tonumber(us), tonumber(ps), off_us
end

-- Of a sorted set, worker -> epoch us until which it counts, forget workers that have not come back in time, or that
-- wrote their time on a clock that has stepped back since: nobody writes one further ahead than this.
local function forget(workers, now_us, longest_us)
  redis.call('ZREMRANGEBYSCORE', workers, '-inf', exact(now_us))
  redis.call('ZREMRANGEBYSCORE', workers, '(' .. exact(now_us + longest_us), '+inf')
end

-- The next slot that the limit allows: S + T, or as far back as its burst reaches, or the floor; and that floor, with
-- the end of a back-off.
local function next_slot(bucket, now_us, limit, floor_us)
  local full_us, full_ps = after(now_us, 0, 1 - limit.burst, limit)
  local us, ps, off_us = last_slot(bucket, now_us)
  floor_us = math.max(floor_us, off_us)
  if floor_us > full_us then full_us, full_ps = floor_us, 0 end
  if not us then return full_us, full_ps, floor_us end
  us, ps = after(us, ps, 1, limit)
  if is_later(full_us, full_ps, us, ps) then return full_us, full_ps, floor_us end
  return us, ps, floor_us
end

local function write(bucket, now_us, us, ps, seq, ...)
  redis.call('HSET', bucket, 'slot', exact(us), 'slot_ps', exact(ps),
             'lead', exact(math.max(0, us - now_us)), 'seq', exact(seq), ...)
end
