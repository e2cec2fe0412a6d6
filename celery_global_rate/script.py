"""The Lua scripts and their calls: what goes in, what comes out, and the keys of a bucket."""

from __future__ import annotations

import hashlib
from importlib import resources

from .bucket import HORIZON_S, PATIENCE_S
from .limit import Limit
from .reservation import Reservation


class Script:
    """One verb in Lua, with the arithmetic that all verbs share before it.

    Attributes:
        source: the text that Redis runs.
        sha: its SHA-1, by which Redis knows it after the first run.
    """

    def __init__(self, verb: str) -> None:
        lua = resources.files(__package__).joinpath("lua")
        self.source = "\n".join(lua.joinpath(name).read_text("utf-8") for name in ("slots.lua", f"{verb}.lua"))
        self.sha = hashlib.sha1(self.source.encode()).hexdigest()


RESERVE = Script("reserve")
GIVE_BACK = Script("give_back")


def bucket_key(prefix: str, name: str) -> str:
    """The key of a bucket. The prefix is a hash tag, so that all keys of a prefix live in one slot of a Cluster."""
    return f"{{{prefix}}}:bucket:{name}"


def waiting_key(prefix: str, name: str) -> str:
    """The key of the workers that wait on a bucket."""
    return f"{{{prefix}}}:waiting:{name}"


def reserve_call(prefix: str, name: str, limit: Limit, wanted: int, worker: str) -> list[str | int]:
    """Keys and arguments of reserve.lua, after the script itself."""
    interval = limit.interval_us, limit.interval_ps
    horizon_us, patience_us = int(HORIZON_S * 1e6), int(PATIENCE_S * 1e6)
    keys = bucket_key(prefix, name), waiting_key(prefix, name)
    return [len(keys), *keys, *interval, limit.burst, wanted, horizon_us, patience_us, worker]


def give_back_call(prefix: str, name: str, reservation: Reservation) -> list[str | int]:
    """Keys and arguments of give_back.lua, after the script itself."""
    interval = reservation.interval_us, reservation.interval_ps
    return [1, bucket_key(prefix, name), *interval, reservation.left, reservation.seq]
