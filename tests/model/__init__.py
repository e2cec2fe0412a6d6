"""The protocol as a small machine: workers, one bucket in Redis, a network, and all that may go wrong.

Time goes in ticks. "Now" is always 0: instants are ticks from now on the Redis clock, and a tick moves them all. The
machine may do anything that `machine.py` lists, in any order, so each path through it is a history of a cluster.

**Modelled.** A worker asks for several slots, with one call under way; Redis answers with slots in a row up to the
horizon (`bucket.py`); call and answer take time; the worker's view of the Redis clock is an interval that each answer
narrows (`worker.py`). A slot is used from its instant on and until the grace is over, and is missed otherwise. What
comes after the timeout is given back, and so is what was reserved under another limit: the unused tail, if the serial
is still that of the booking. Calls carry the version of the override that the limit comes from; the higher one
stays, and a worker that does not know it gets nothing. One that is cut off from Redis for long goes on alone: a task
every `workers` intervals, the first one at any instant within that time. When Redis answers again there is no slot
before that moment. Operators set another limit; workers are killed and replaced; connections are lost with what is on
them; Redis loses its memory; its clock is stepped.

**Left out.** The pool: it may be busy at any moment, so a worker that may start a task may also wait. The fair share:
a worker asks for one slot or for all it can use. When to ask again: at any moment, once in a tick. Drift of clocks,
remainders below a microsecond, pauses (a floor, as the return from an outage is), the count of live workers (each
knows it), and several buckets, which share nothing. A worker waits for the answer to a call that it has given up
before it asks again. Messages of one worker may overtake each other, which they do not on a connection.

`setup.py` lists errors that can be planted, `judge.py` says what must be true, and `explorer.py` goes everywhere.
"""
