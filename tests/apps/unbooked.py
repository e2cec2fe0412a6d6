"""Loaded by a worker: the script that reserves slots of a lane forgets to book the last of several limits."""

from __future__ import annotations

import hashlib

from celery_global_rate.storage.scripts import RESERVE_LANE

_BOOKED = "for _, limit in ipairs(limits) do\n    if limit.units > 0 then\n      limit.window.store("
_LEFT_OUT = _BOOKED.replace("limit.units > 0", "limit.units > 0 and (size == 1 or limit ~= limits[size])")

assert RESERVE_LANE.source.count(_BOOKED) == 1, "the Lua was edited: edit this as well"
RESERVE_LANE.source = RESERVE_LANE.source.replace(_BOOKED, _LEFT_OUT)
RESERVE_LANE.sha = hashlib.sha1(RESERVE_LANE.source.encode()).hexdigest()
