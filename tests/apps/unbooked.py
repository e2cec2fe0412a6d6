"""Loaded by a worker: the script that reserves slots of a lane forgets to book the last of several limits."""

from __future__ import annotations

import hashlib

from celery_global_rate.storage.scripts import RESERVE_LANE

_BOOKED = "for _, limit in ipairs(limits) do\n    limit.window.store("
_LEFT_OUT = "for index = 1, math.max(1, size - 1) do\n    local limit = limits[index]\n    limit.window.store("

assert RESERVE_LANE.source.count(_BOOKED) == 1, "the Lua was edited: edit this as well"
RESERVE_LANE.source = RESERVE_LANE.source.replace(_BOOKED, _LEFT_OUT)
RESERVE_LANE.sha = hashlib.sha1(RESERVE_LANE.source.encode()).hexdigest()
