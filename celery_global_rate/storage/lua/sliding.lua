-- Sliding windows: at most N starts in any period P. Prepended to the scripts for lanes, after the fixed windows.
--
-- There is a log of the slots of the last P. If N are in it, the next one is when the oldest has left. A start may come
-- later than its slot, by D at the most, so a slot stays for P + D: the starts i and i + N then lie P apart, however late
-- each of them is. (Where D is over half a per cent of P, it stays for P, and the promise has D in it.) Where N is large,
-- all slots of one cell, a thousandth of P, are one entry, at the latest of them: the log stays small, no window has
-- more, and no more than a thousandth of the rate is lost.
--
-- A start that costs more than N begins when nothing is left in the log, and what it costs beyond N is booked a span
-- later, N each at the most. A costly one is booked as soon as the first unit of it is free: who asks for less would
-- take what leaves the log before there is enough.
--
-- If the clock steps back, the log goes on: its instants are those of the clock and `shift`.
--
-- KEYS[1], the bucket, a hash:
--   used           slots in the log
--   last           the latest instant in it, epoch us + shift
--   lead           how far that was ahead of the clock when it was written, us, 0 or more
--   shift          how far the clock has stepped back so far, us
--   born           the serial with which the log began, or the clock stepped back: what was booked before stays booked
--   seq, given     as of any limit (slots.lua)
-- and the log, a list, the newest first: instant, slots, instant, slots ...
-- The two are one state: if one is missing, both are.

local ENTRIES_AT_ONCE = 20

local sliding = {}

-- The entry of a place in the log, counted from the oldest; nil if there are not so many.
local function entry_at(log, place)
  local entries = log.entries
  if place > #entries and not log.is_missing then
    local read = 2 * #entries
    local words = redis.call('LRANGE', log.key, exact(-read - 2 * ENTRIES_AT_ONCE), exact(-read - 1))
    for index = #words, 2, -2 do
      entries[#entries + 1] = {us = tonumber(words[index - 1]), slots = tonumber(words[index])}
    end
  end
  return entries[place]
end

-- The log of a bucket without the entries that have left it: `first` is the place of the oldest that is left.
local function load_log(bucket, key, now_us, span_us)
  local log = {bucket = bucket, key = key, entries = {}, first = 1, used = 0, shift_us = 0}
  local used, last, lead, shift, born, seq, off, off_length =
    unpack(redis.call('HMGET', bucket, 'used', 'last', 'lead', 'shift', 'born', 'seq', 'off', 'off_length'))
  log.off_us = end_of_back_off(now_us, off, off_length)
  log.seq = tonumber(seq) or 0
  log.is_missing = not born or (tonumber(used) > 0 and not entry_at(log, 1))
  if log.is_missing then return log end
  log.used, log.last_us, log.shift_us, log.born = tonumber(used), tonumber(last), tonumber(shift), tonumber(born)
  if log.last_us - log.shift_us - now_us > tonumber(lead) then  -- written at once: time must pass from here
    log.shift_us, log.born = log.last_us - lead - now_us, log.seq + 1
    redis.call('HSET', bucket, 'shift', exact(log.shift_us), 'born', exact(log.born))
  end
  local entry = entry_at(log, 1)
  while entry and entry.us + span_us <= now_us + log.shift_us do
    log.used, log.first = log.used - entry.slots, log.first + 1
    entry = entry_at(log, log.first)
  end
  return log
end

-- Remove the entries before a place.
local function cut(log, place)
  if place > 1 then redis.call('LTRIM', log.key, 0, exact(1 - 2 * place)) end
end

function sliding.load(limit, now_us, horizon_us, most, span_us, cell_us, grace_us)
  limit.most, limit.span_us, limit.cell_us, limit.grace_us = most, span_us, cell_us, grace_us
  limit.age_us = math.floor(OLDEST * grace_us)
  limit.log = load_log(limit.bucket, limit.log_key, now_us, span_us)
  limit.floor_us = math.max(limit.floor_us, limit.log.off_us)
  limit.seq, limit.booked = limit.log.seq, {}
  limit.count = 0  -- slots booked in this call
  limit.place, limit.left = limit.log.first - 1, 0  -- with that entry, so many units will have left the log
end

-- An entry of the log, or behind it one that is booked in this call.
local function entry_of(limit, place)
  return entry_at(limit.log, place) or limit.booked[place - #limit.log.entries]
end

-- When so many units, counted from the oldest, have left the log.
local function when_left(limit, units)
  while limit.left < units do
    limit.place = limit.place + 1
    limit.left = limit.left + entry_of(limit, limit.place).slots
  end
  local entry = entry_of(limit, limit.place)
  while limit.left - entry.slots >= units do
    limit.place, limit.left = limit.place - 1, limit.left - entry.slots
    entry = entry_of(limit, limit.place)
  end
  return entry.us - limit.log.shift_us + limit.span_us
end

-- The start: t, or the first instant after it that the limit allows; it is the slot as well. And from when on the first
-- unit of it can be had.
function sliding.find(limit, t_us, cost)
  local excess = limit.log.used + limit.count + math.min(cost, limit.most) - limit.most
  if excess <= 0 then return t_us, t_us, t_us end
  local start_us = math.max(t_us, when_left(limit, excess))
  if cost == 1 then return start_us, start_us, start_us end
  excess = limit.log.used + limit.count + 1 - limit.most
  return start_us, start_us, excess > 0 and math.max(t_us, when_left(limit, excess)) or t_us
end

-- How many units there are up to an instant.
function sliding.count_free(limit, end_us)
  local log = limit.log
  if not limit.free then
    limit.free = limit.most - log.used
    local place = log.first
    local entry = entry_at(log, place)
    while entry and entry.us - log.shift_us + limit.span_us <= end_us do
      limit.free, place = limit.free + entry.slots, place + 1
      entry = entry_at(log, place)
    end
  end
  return math.max(0, limit.free - limit.count)
end

-- Book a slot that was found.
function sliding.book(limit, us, cost)
  local log, booked = limit.log, limit.booked
  us = math.max(us + log.shift_us, log.last_us or 0)
  limit.count = limit.count + cost
  while cost > 0 do
    local units, entry = math.min(cost, limit.most), booked[#booked]
    if entry and math.floor(entry.us / limit.cell_us) == math.floor(us / limit.cell_us) then
      entry.us, entry.slots = us, entry.slots + units
    else
      booked[#booked + 1] = {us = us, slots = units}
    end
    log.last_us, us, cost = us, us + limit.span_us, cost - units
  end
end

-- Until when a start may use its slot.
function sliding.usable_until(limit, t_us)
  return t_us + limit.grace_us
end

function sliding.store(limit, now_us, seq)
  local log, booked = limit.log, limit.booked
  if log.born then
    cut(log, log.first)
    local newest = redis.call('LRANGE', log.key, 0, 1)
    if newest[1] and math.floor(newest[1] / limit.cell_us) == math.floor(booked[1].us / limit.cell_us) then
      redis.call('LSET', log.key, 0, exact(booked[1].us))
      redis.call('LSET', log.key, 1, exact(newest[2] + booked[1].slots))
      table.remove(booked, 1)
    end
  else
    redis.call('LTRIM', log.key, 1, 0)  -- of a bucket that is missing, nothing is left
  end
  for _, entry in ipairs(booked) do redis.call('LPUSH', log.key, exact(entry.slots), exact(entry.us)) end
  redis.call('HSET', log.bucket, 'used', exact(log.used + limit.count), 'last', exact(log.last_us),
             'lead', exact(log.last_us - log.shift_us - now_us), 'shift', exact(log.shift_us),
             'born', exact(log.born or seq), 'seq', exact(seq))
end

-- From when on a missing bucket is as good as this one; nil if it is missing.
function sliding.full_us(limit)
  return limit.log.last_us and limit.log.last_us - limit.log.shift_us + limit.span_us
end

-- The entries that are not before an instant, the newest first.
local function entries_since(key, us)
  local entries = {}
  while true do
    local words = redis.call('LRANGE', key, exact(2 * #entries), exact(2 * (#entries + ENTRIES_AT_ONCE) - 1))
    for index = 1, #words, 2 do
      if tonumber(words[index]) < us then return entries end
      entries[#entries + 1] = {us = tonumber(words[index]), slots = tonumber(words[index + 1])}
    end
    if #words < 2 * ENTRIES_AT_ONCE then return entries end
  end
end

-- Slots of a booking are free again; how many units. One may be in the log at a later instant than its own. So the first
-- entries that are not before it have so many less: if one was another's, ours stays as that one's, at the same instant or later.
-- If all that is in the log is later, ours may have left it.
function sliding.take_back(bucket, seq, slots, costs, now_us, span_us, key)
  local log = load_log(bucket, key, now_us, span_us)
  local oldest = entry_at(log, log.first)
  if not oldest or log.born > seq then return 0 end
  local entries, taken, gone = entries_since(key, slots[1] + log.shift_us), 0, 0
  for index, slot_us in ipairs(slots) do
    local us = slot_us + log.shift_us
    local left = oldest.us <= us and costs[index] or 0
    for place = #entries, 1, -1 do
      local entry = entries[place]
      local units = entry.us >= us and math.min(entry.slots, left) or 0
      if units > 0 then
        entry.slots, taken, left = entry.slots - units, taken + units, left - units
        redis.call('LSET', key, exact(2 * place - 1), exact(entry.slots))
        if entry.slots == 0 then
          redis.call('LSET', key, exact(2 * place - 2), '0')
          gone = gone + 2
        end
      end
    end
  end
  if taken > 0 then
    if gone > 0 then redis.call('LREM', key, exact(gone), '0') end
    cut(log, log.first)
    redis.call('HSET', bucket, 'used', exact(log.used - taken))
  end
  return taken
end
