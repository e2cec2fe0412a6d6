-- Overrides: what operators have set. Prepended to every script, after the slots.
--
-- An override is a text: "version:id:floor:" and a JSON object. The scripts order overrides by version and id, and obey
-- the floor: an instant (epoch us) before which the bucket has no slot and saves none. Limits are for workers to read.
--
-- overrides  a hash, bucket name -> override. None is ever deleted: a return to the declared limit is an override, too.
-- era        a hash. `id` is drawn when it is made and `changes` grows with each change: a worker that finds both as they
--            were has missed nothing; one that does not may have missed a change, or the loss of them all.

local function parse_rank(override)
  local version, id, floor_us = string.match(override, '^(%d+):(%w+):(%d+):')
  return tonumber(version), id, tonumber(floor_us)
end

local function is_higher(override, other)
  local version, id = parse_rank(override)
  local other_version, other_id = parse_rank(other)
  if version ~= other_version then return version > other_version end
  return id > other_id
end

-- The higher of a caller's override ('' if it has none) and the stored one, which is stored then; nothing if there is
-- neither.
local function keep(overrides, era, name, override)
  local stored = redis.call('HGET', overrides, name)
  if override == '' or (stored and parse_rank(stored) and not is_higher(override, stored)) then return stored end
  redis.call('HSET', overrides, name, override)
  redis.call('HINCRBY', era, 'changes', 1)
  return override
end
