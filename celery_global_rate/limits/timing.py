"""The times that the protocol is made of; all in seconds."""

from __future__ import annotations

#: H: how far ahead slots are reserved.
HORIZON_S = 0.1
#: G: nothing is granted in the end of a fixed window, and slots may be used until half of it is left (fixed.lua).
GUARD_S = 0.05
#: Nobody sleeps longer on a bucket than this, whatever its rate.
LONGEST_SLEEP_S = 5.0
#: An answer that takes longer is given up.
REPLY_TIMEOUT_S = 0.25
#: Without slots for this long a connection is given up, and an outage counts.
SILENCE_S = 1.0
