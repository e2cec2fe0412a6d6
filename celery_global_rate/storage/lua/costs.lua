-- Costs: how many units of each limit a slot takes. Prepended to the scripts for lanes, before the holes.
--
-- A caller says it in one text: `12` for as many slots of one unit each, or runs of slots with the same costs, one per
-- limit: `3x1,500 2x1,0`. What costs nothing of a limit passes it by.

-- How many slots are meant, and what each of them costs.
local function parse_costs(text, size)
  local costs, of_one = {}, {}
  for index = 1, size do of_one[index] = 1 end
  for index = 1, tonumber(text) or 0 do costs[index] = of_one end
  for count, numbers in string.gmatch(text, '(%d+)x([%d,]+)') do
    local of_each = {}
    for units in string.gmatch(numbers, '%d+') do of_each[#of_each + 1] = tonumber(units) end
    for _ = 1, tonumber(count) do costs[#costs + 1] = of_each end
  end
  return #costs, costs
end
