"""What a Redis reports about itself, and what an operator should know about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

OLDEST = (6, 2)
KEEPS_ALL = "noeviction"


@dataclass(frozen=True)
class Server:
    """A Redis or Valkey, as it describes itself. What it does not report is empty.

    Attributes:
        software: its name and version.
        level: the Redis version, of a Valkey the one it is compatible with: major and minor.
        role: `master` or `replica`.
        eviction: its `maxmemory-policy`.
        run_id: differs between any two servers, and changes when one restarts.
        is_loading: whether it still reads its data and answers nothing else.
    """

    software: str = ""
    level: tuple[int, ...] = ()
    role: str = ""
    eviction: str = ""
    run_id: str = ""
    is_loading: bool = False

    @classmethod
    def parse(cls, reply: object) -> Server:
        """Read the reply to `INFO`. An error, such as that of an ACL, leaves everything unknown."""
        if isinstance(reply, bytes):
            reply = reply.decode(errors="replace")
        lines = reply.split("\r\n") if isinstance(reply, str) else []
        facts = {key: value for key, _, value in (line.partition(":") for line in lines)}
        redis, valkey = facts.get("redis_version", ""), facts.get("valkey_version")
        numbers = re.match(r"(\d+)\.(\d+)", redis)
        role = facts.get("role", "")
        return cls(
            software=f"Valkey {valkey}" if valkey else redis and f"Redis {redis}",
            level=tuple(map(int, numbers.groups())) if numbers else (),
            role="replica" if role == "slave" else role,
            eviction=facts.get("maxmemory_policy", ""),
            run_id=facts.get("run_id", ""),
            is_loading=facts.get("loading", "0") != "0",
        )

    @property
    def warnings(self) -> list[str]:
        """What is wrong with it, each as the rest of a sentence that begins with the server."""
        found = []
        if self.is_loading:
            found.append("is loading its data and keeps no limits until that is done")
        if self.role == "replica":
            found.append("is a replica, which takes no writes: name its master instead")
        if self.eviction not in ("", KEEPS_ALL):
            found.append(
                f"may evict keys (maxmemory-policy {self.eviction}), and an evicted key is a full bucket: "
                f"set maxmemory-policy {KEEPS_ALL}"
            )
        if self.level and self.level < OLDEST:
            found.append(f"is too old ({self.software}): use Redis {'.'.join(map(str, OLDEST))} or newer, or Valkey")
        return found

    @property
    def keeps_limits(self) -> bool:
        """Whether it can do so at all, as far as it reports."""
        return self.role != "replica" and not self.is_loading

    def __str__(self) -> str:
        return ", ".join(
            [
                self.software or "version unknown",
                self.role or "role unknown",
                self.eviction or "eviction policy unknown",
            ]
        )
