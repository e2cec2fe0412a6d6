-- Refills by a crontab: so many tokens at each of its instants, up to a maximum. Prepended to the scripts for lanes, after
-- the sliding windows.
--
-- The crontab is the caller's, with its time zone. It sends the instants of refills ("edges") around the one that it takes
-- for now: those that fill a bucket, however much it owes, and one more, up to that instant; and the next two. A caller
-- that pays no costs sends only as many as fill an empty one, so each call keeps the refills of a bucket that is not full. If it is wrong about now,
-- nothing is granted; the answer has the clock, so the caller knows better at its next call.
--
-- The slot of a start is the edge before it, as a token of that time is taken. As in fixed windows, no start leaves its
-- time: it is granted for no instant of the last GUARD before an edge, and may use its slot until half of that is left. So
-- between two edges there are no more starts than the maximum, and with n edges in between n amounts more.
--
-- KEYS[1], the bucket, a hash:
--   tokens         left since the last edge, less than 0 where a start has cost more than the maximum
--   edge           that edge, epoch us
--   ahead          tokens that are taken already of what there will be at the next one
--   born           the serial with which this state began: what was booked before it cannot come back
--   seq, given     as of any limit (slots.lua)
-- A missing bucket is a full one. If the clock steps back, there are no refills until it has reached the edge again.

local crontab = {}

-- What is left when refills come.
local function refill(limit, edges)
  for index = 1, edges do
    limit.tokens = math.min(limit.most, limit.tokens + limit.amount)
    if index == 1 then limit.tokens, limit.ahead = limit.tokens - limit.ahead, 0 end
  end
end

local function keep_refills(limit)
  redis.call('HSET', limit.bucket, 'tokens', exact(limit.tokens), 'edge', exact(limit.edge_us), 'ahead', exact(limit.ahead))
end

function crontab.load(limit, now_us, horizon_us, most, amount, past, ahead)
  local pattern = '(%d+) (%d+) (%d+) (%d+) (%d+)$'
  local begin_us, end_us, next_end_us, full_us, interval_us = string.match(past .. ' ' .. ahead, pattern)
  limit.most, limit.amount, limit.when_full_us, limit.interval_us = most, amount, tonumber(full_us), tonumber(interval_us)
  limit.edges_us = {tonumber(begin_us), tonumber(end_us), tonumber(next_end_us)}
  limit.age_us, limit.never_us = horizon_us, now_us + horizon_us + 1
  limit.is_wrong = now_us < limit.edges_us[1] or now_us >= limit.edges_us[2]
  local tokens, edge, taken, born, seq, off, off_length =
    unpack(redis.call('HMGET', limit.bucket, 'tokens', 'edge', 'ahead', 'born', 'seq', 'off', 'off_length'))
  limit.floor_us = math.max(limit.floor_us, end_of_back_off(now_us, off, off_length))
  limit.seq, limit.born = tonumber(seq) or 0, tonumber(born)
  limit.tokens, limit.ahead = tonumber(tokens) or most, tonumber(taken) or 0
  limit.edge_us = tonumber(edge) or limit.edges_us[1]
  if limit.edge_us < limit.edges_us[1] then
    local edges = 0
    for us in string.gmatch(past, '%d+') do
      if tonumber(us) > limit.edge_us then edges = edges + 1 end
    end
    refill(limit, edges)
    limit.edge_us = limit.edges_us[1]
    if born and limit.tokens < most and not limit.is_wrong then keep_refills(limit) end
  end
  limit.now_us = now_us
end

-- What there will be at the next edge, if `units` are taken before.
local function count_next(limit, units)
  return math.min(limit.most, limit.tokens - units + limit.amount) - limit.ahead
end

-- Whether so many units can be had, before the next edge or (place 2) after it. What costs more than the maximum can if
-- all of that is there.
local function has_tokens(limit, place, cost)
  local needed = math.min(cost, limit.most)
  if place == 2 then return limit.edge_us == limit.edges_us[1] and count_next(limit, 0) >= needed end
  return limit.tokens >= needed and (limit.ahead == 0 or count_next(limit, cost) >= 0)
end

-- The start: t, or the first instant after it that the limit allows; its slot, the edge before it; and the start again,
-- for nothing is booked before it can be had, or never.
function crontab.find(limit, t_us, cost)
  local edges_us = limit.edges_us
  for place = 1, limit.is_wrong and 0 or 2 do
    local start_us = math.max(t_us, edges_us[place])
    if start_us < edges_us[place + 1] - GUARD_US and has_tokens(limit, place, cost) then
      return start_us, edges_us[place], start_us
    end
  end
  return math.max(t_us, edges_us[limit.is_wrong and 1 or 3], limit.never_us), edges_us[3], math.huge
end

-- How many units there are up to an instant.
function crontab.count_free(limit, end_us)
  local edges_us, free = limit.edges_us, 0
  if limit.now_us < edges_us[2] - GUARD_US then free = math.max(0, limit.tokens) end
  if edges_us[2] <= end_us then free = free + math.max(0, count_next(limit, 0)) end
  return free
end

-- Book a slot that was found.
function crontab.book(limit, edge_us, cost)
  if edge_us == limit.edges_us[1] then
    limit.tokens = limit.tokens - cost
  else
    limit.ahead = limit.ahead + cost
  end
end

-- Until when a start may use its slot.
function crontab.usable_until(limit, t_us, edge_us)
  return limit.edges_us[edge_us == limit.edges_us[1] and 2 or 3] - GUARD_US / 2
end

function crontab.store(limit, now_us, seq)
  keep_refills(limit)
  redis.call('HSET', limit.bucket, 'born', exact(limit.born or seq), 'seq', exact(seq))
  limit.born = limit.born or seq
end

-- From when on a missing bucket is as good as this one; nil if it is missing.
function crontab.full_us(limit)
  local owed = math.max(0, limit.ahead - limit.tokens - limit.most)
  return limit.born and limit.when_full_us + owed * limit.interval_us
end

-- Tokens of a booking are there again, if no refill has come since; how many.
function crontab.take_back(bucket, seq, slots, costs)
  local tokens, edge, ahead, born = unpack(redis.call('HMGET', bucket, 'tokens', 'edge', 'ahead', 'born'))
  local taken = 0
  if not born or tonumber(born) > seq then return 0 end
  tokens, edge, ahead = tonumber(tokens), tonumber(edge), tonumber(ahead)
  for place, edge_us in ipairs(slots) do
    if edge_us == edge then
      tokens, taken = tokens + costs[place], taken + costs[place]
    elseif edge_us > edge then
      local units = math.min(ahead, costs[place])
      ahead, taken = ahead - units, taken + units
    end
  end
  if taken > 0 then redis.call('HSET', bucket, 'tokens', exact(tokens), 'ahead', exact(ahead)) end
  return taken
end
