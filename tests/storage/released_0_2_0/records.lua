-- Records: what operators have ordered. Prepended to every script, after the slots.
--
-- A record is a text: "version:id:floor:" and a JSON object. The scripts order records by version and id, and obey
-- the floor: an instant (epoch us) before which the bucket has no slot and saves none. Limits are for workers to read.
--
-- records  a hash, bucket name -> record. None is ever deleted: going back to the declared limit is a record, too.
-- era      a hash. `id` is drawn when it is made and `changes` grows with each change, so who finds both as they were
--          has missed nothing, and who does not may have: a change, or the loss of them all.

local function order(record)
  local version, id, floor_us = string.match(record, '^(%d+):(%w+):(%d+):')
  return tonumber(version), id, tonumber(floor_us)
end

local function is_higher(record, other)
  local version, id = order(record)
  local other_version, other_id = order(other)
  if version ~= other_version then return version > other_version end
  return id > other_id
end

-- The higher of a caller's record ('' where it has none) and the stored one, which is stored then; nothing where
-- there is neither.
local function keep(records, era, name, record)
  local stored = redis.call('HGET', records, name)
  if record == '' or (stored and order(stored) and not is_higher(record, stored)) then return stored end
  redis.call('HSET', records, name, record)
  redis.call('HINCRBY', era, 'changes', 1)
  return record
end
