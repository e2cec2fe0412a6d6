"""What may go wrong in a run: with the Redis of the limits, what it knows and the way to it, and with workers."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from testbed.sentinels import SERVICE, Sentinels
from testbed.server import Redis

from ..cluster.events import EVENTS, Event, Fleet, Place

#: For how long a Redis is slow, or takes no writes, in seconds: longer than workers wait before they call it an outage.
AWAY_S = 1.5
#: For how long it does not answer at all, and no Sentinel gives it up, in seconds.
MOMENT_S = 0.3
#: How much later a slow one answers, at the most, in milliseconds: less than the horizon.
SLOW_MS = 60
#: For how long a worker stands still, in seconds.
STOPPED_S = 2.0


@dataclass(frozen=True)
class Fault(Event):
    """An event, and what it may cost.

    Attributes:
        forgets: what was reserved may be forgotten with it: `b + H/T` starts more.
        is_outage: workers may be without their Redis for a second and longer.
        recovery_s: how long after it tasks may take to start at their rate, in seconds.
    """

    forgets: bool = False
    is_outage: bool = False
    recovery_s: float = 1.5


def of_master(happen: Callable[[Sentinels, Redis], object], forgets: bool = False, is_outage: bool = False) -> Fault:
    """Something that happens to the master, and is over when one takes writes; afterwards it gets its replica again."""

    def sentinels_of(fleet: Fleet) -> Sentinels:
        assert isinstance(fleet.limiter, Sentinels)
        return fleet.limiter

    def to(fleet: Fleet, place: Place) -> None:
        sentinels = sentinels_of(fleet)
        happen(sentinels, sentinels.wait_for_master())
        sentinels.wait_for_master()

    def mend(fleet: Fleet) -> None:
        sentinels_of(fleet).mend()

    return Fault(to, strikes_all=True, mend=mend, forgets=forgets, is_outage=is_outage)


def killed(sentinels: Sentinels, master: Redis) -> None:
    master.stop()
    sentinels.wait_for_master(master)


def hung(sentinels: Sentinels, master: Redis) -> None:
    master.suspend()
    sentinels.wait_for_master(master)


def hung_for_a_moment(sentinels: Sentinels, master: Redis) -> None:
    master.suspend()
    time.sleep(MOMENT_S)
    master.resume()


def failed_over(sentinels: Sentinels, master: Redis) -> None:
    with sentinels.sentinel() as client:
        client.sentinel_failover(SERVICE)
    sentinels.wait_for_master(master)


def slow(sentinels: Sentinels, master: Redis) -> None:
    end = time.monotonic() + AWAY_S
    while time.monotonic() < end:
        master.client().client_pause(SLOW_MS)
        time.sleep(2 * SLOW_MS / 1000)


def refusing(option: str, refuses: int, takes: int) -> Callable[[Sentinels, Redis], None]:
    """A master whose configuration has it refuse writes."""

    def happen(sentinels: Sentinels, master: Redis) -> None:
        master.client().config_set(option, refuses)
        time.sleep(AWAY_S)
        master.client().config_set(option, takes)

    return happen


def bucket_deleted(sentinels: Sentinels, master: Redis) -> None:
    """One limit loses its state; those of the same lanes keep theirs."""
    client = master.client()
    keys = [key for pattern in ("*:bucket:*", "*:limit:*") for key in client.scan_iter(pattern)]
    if keys:
        client.delete(random.choice(keys))


def worker_killed(fleet: Fleet, place: Place) -> None:
    fleet.end(place, lambda: fleet.cluster.kill(place.worker))


def worker_stopped(fleet: Fleet, place: Place) -> None:
    fleet.cluster.signal(place.worker, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    fleet.cluster.signal(place.worker, signal.SIGCONT)


def lifecycle(name: str) -> Fault:
    """One of the events that each happen by themselves elsewhere. Celery waits 2 s before it connects again."""
    event = EVENTS[name]
    if not event.strikes_all:
        return Fault(event.happen, event.parts)
    return Fault(event.happen, event.parts, strikes_all=True, mend=Fleet.settle, recovery_s=4.0)


#: Each as often as any other.
FAULTS = {
    "master killed": of_master(killed, forgets=True, is_outage=True),
    "master hung": of_master(hung, forgets=True, is_outage=True),
    "master hung for a moment": of_master(hung_for_a_moment),
    "master restarted empty": of_master(lambda sentinels, master: master.restart(), forgets=True, is_outage=True),
    "failover ordered": of_master(failed_over, forgets=True, is_outage=True),
    "FLUSHALL": of_master(lambda sentinels, master: master.client().flushall(), forgets=True),
    "bucket deleted": of_master(bucket_deleted, forgets=True),
    "SCRIPT FLUSH": of_master(lambda sentinels, master: master.client().script_flush()),
    "connections cut": of_master(lambda sentinels, master: master.client().client_kill_filter(_type="normal")),
    "slow": of_master(slow),
    "out of memory": of_master(refusing("maxmemory", 1, 0), is_outage=True),
    "too few replicas": of_master(refusing("min-replicas-to-write", 2, 0), is_outage=True),
    "worker killed": Fault(worker_killed, parts=True),
    "worker stopped": Fault(worker_stopped),
    "worker TERM": lifecycle("TERM"),
    "worker QUIT": lifecycle("QUIT"),
    "broker connection cut": lifecycle("connection cut"),
    "broker restarted": lifecycle("broker restarted"),
}
