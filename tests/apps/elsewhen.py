"""A machine whose wall clock is wrong by `GLOBAL_RATE_WALL_S` seconds, in a module that workers include."""

import os
import time

_right_ns, _ahead_s = time.time_ns, int(os.environ["GLOBAL_RATE_WALL_S"])
time.time_ns = lambda: _right_ns() + _ahead_s * 10**9
time.time = lambda: time.time_ns() / 1e9
