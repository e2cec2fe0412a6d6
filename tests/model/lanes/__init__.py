"""Lanes that cross, as a small machine: limits in Redis, some of which several lanes pass, and those who ask for slots.

Time goes in ticks, as in the model of one bucket. `limits.py` is what `holes.lua`, `reserve_lane.lua` and
`give_back_lane.lua` do; `machine.py` lists all that may happen, `judge.py` what must be true.

**Modelled.** Anybody asks for slots of a lane, at any moment, for one or for all that its tasks can use; all limits of
the lane book, or none. A slot is used by a task of its lane from its start until its end, which may come before the end
of the grace; or it is missed; or what is left of a reservation is sent back, and arrives at any moment within some
ticks, after anything else. Limits lose their state, one or all. A limit changes. Redis' clock is stepped.

**Left out.** What the model of one bucket has: the time that a call takes, the worker's view of the clock, outages,
overrides that callers do not know. The fair share, and more ranges of holes than are kept.

One thing is known and not in the tests: serials are of Redis' clock. If a limit has lost its state and the clock steps
back as well, before a give-back of a slot from before arrives, that slot may be taken back: one start more.

The grace is some ticks only, so that the share of it by which a slot may be older than its start, `age`, is another
one than in the script: the tests that compare both give the script this one.
"""
