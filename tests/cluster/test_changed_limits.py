"""Limits that operators change while real workers run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import celery
import pytest

from testbed.cluster import Cluster
from testbed.proxy import Proxy
from testbed.scenarios import script_calls
from testbed.server import Redis, root
from testbed.windows import excess, since, used

from ..conftest import Figures, Server
from ..storage.wire import NOISE_S
from .operator import FROM_REDIS_S, IN_FORCE_S, SLACK_S, cluster_on, control, global_rate, kept_overrides


def test_control_rate_limit_in_the_whole_cluster(empty_redis: Server, figures: Figures) -> None:
    """100/s to 20/s with 4 workers under backlog: 20/s in every window that begins 250 ms after the reply.

    Across the change no window holds more than 100/s allow: S stays where it is, and slots in hand are given back.
    """
    with cluster_on(empty_redis, "100/s") as cluster:
        cluster.send("limited", 900)
        cluster.start(4)
        cluster.wait_for(150, 20)
        replies = control(cluster, "20/s")
        replied = time.monotonic()
        time.sleep(4)
        end = time.monotonic()
        releases = cluster.instants("release")
        kept = kept_overrides(empty_redis)["limited"]
    after = since(releases, replied + IN_FORCE_S)
    worst_after = excess(after, 1 / 20, 1, SLACK_S)
    worst = excess(releases, 1 / 100, 1, SLACK_S)
    share = used(after, 1 / 20, replied + IN_FORCE_S, end - 0.2)
    figures(
        f"100/s to 20/s: {share:.4f} of 20/s used from 250 ms after the reply, worst window {worst_after:+.2f}; "
        f"across the change {worst:+.2f} against 100/s; reply {replies[0]}"
    )

    assert len(replies) == 4
    assert {reply["ok"] for reply in replies} == {
        "new rate limit set successfully for the whole cluster: 20/s, before 100/s"
    }
    assert worst_after <= 0
    assert worst <= 0
    assert 0.97 <= share <= 1.03
    assert (kept["limit"]["rate"], kept["limit"]["replaced"], kept["limit"]["declared"]) == (
        "20/s",
        "declared",
        "100/s",
    )


@pytest.mark.parametrize(
    "pool",
    ["prefork", *(pytest.param(pool, marks=pytest.mark.slow) for pool in ("gevent", "eventlet", "solo", "threads"))],
)
def test_held_tasks_follow(empty_redis: Server, figures: Figures, pool: str) -> None:
    """1/h with 50 held, then 100/s, then 0: the next start within 250 ms, then 100/s, then all at once."""
    with cluster_on(empty_redis, "1/h") as cluster:
        cluster.send("limited", 250)
        cluster.start(2, pool=pool)
        cluster.wait_for(1, 10)
        time.sleep(1)
        set_at = time.monotonic()
        control(cluster, "100/s")
        cluster.wait_for(151, 20)
        starts = since(cluster.instants("start"), set_at)
        replies = control(cluster, "0")
        freed = time.monotonic()
        cluster.wait_for(250, 10)
        took_s = cluster.instants("start")[-1] - freed
        rate = 149 / (starts[149] - starts[0])
    figures(
        f"1/h to 100/s: next start after {starts[0] - set_at:.3f} s, then {rate:.1f}/s; 0: all after {took_s:.2f} s"
    )

    assert starts[0] - set_at <= IN_FORCE_S
    assert 95 <= rate <= 105
    assert {reply["ok"] for reply in replies} == {
        "rate limit disabled successfully for the whole cluster: none, before 100/s"
    }
    assert took_s <= 0.5


def test_a_limit_that_is_set_where_no_broadcast_is_heard(empty_redis: Server, figures: Figures) -> None:
    """`global-rate set` reaches workers by Redis alone: they have no remote control. In force within 1.5 s.

    So it does where the news is lost, too: the second time the connection that hears it is cut off before.
    """
    figured = []
    with cluster_on(empty_redis, "1/h", conf={"worker_enable_remote_control": False}) as cluster:
        cluster.send("limited", 600)
        cluster.start(2)
        cluster.wait_for(1, 10)
        time.sleep(1)
        for rate, is_cut in (("20/s", False), ("100/s", True)):
            if is_cut:
                for listener in empty_redis.client(1).client_list(_type="pubsub"):
                    empty_redis.client(1).client_kill_filter(_id=listener["id"])
            global_rate(cluster, "set", "limited", rate, "--reason", "a test")
            set_at = time.monotonic()
            time.sleep(FROM_REDIS_S + 2)
            after = since(cluster.instants("release"), set_at + FROM_REDIS_S)
            figured.append((rate, (len(after) - 1) / (after[-1] - after[0])))
    figures(
        "by `global-rate set` without a broadcast, 1.5 s later: " + ", ".join(f"{r}: {n:.1f}/s" for r, n in figured)
    )

    assert 19 <= figured[0][1] <= 21
    assert 95 <= figured[1][1] <= 105


def test_a_changed_limit_outlives_all_workers(empty_redis: Server, figures: Figures) -> None:
    """Changed, all workers stopped, new ones started, a third joins: 20/s, where the task declares 100/s."""
    with cluster_on(empty_redis, "100/s", loglevel="INFO") as cluster:
        first = cluster.start(2)
        control(cluster, "20/s")
        for name in first:
            cluster.stop(name)
        cluster.send("limited", 400)
        began = time.monotonic()
        cluster.start(2)
        cluster.start(1)
        cluster.wait_for(60, 20)
        time.sleep(2)
        end = time.monotonic()
        releases = since(cluster.instants("release"), began)
        log = cluster.log("w2")
    worst, share = excess(releases, 1 / 20, 1, SLACK_S), used(releases, 1 / 20, end - 2.5, end - 0.2)
    figures(f"20/s after a restart of all workers: {share:.4f} used, worst window {worst:+.2f}")

    assert worst <= 0
    assert 0.97 <= share <= 1.03
    assert "limited is limited to 20/s by control, w" in log


def test_a_worker_that_was_stopped_brings_no_old_limit_back(empty_redis: Server, figures: Figures) -> None:
    """SIGSTOP a worker, set 20/s, set 100/s, SIGCONT: 100/s stays, in one version. It hears of both overrides then."""
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.start(2)
        cluster.send("limited", 2000)
        cluster.wait_for(20, 10)
        cluster.workers["w1"].send_signal(signal.SIGSTOP)
        cluster.app.control.rate_limit("limited", "20/s")
        time.sleep(1)
        cluster.app.control.rate_limit("limited", "100/s")
        time.sleep(6)
        before = kept_overrides(empty_redis)["limited"]
        cluster.workers["w1"].send_signal(signal.SIGCONT)
        resumed = time.monotonic()
        time.sleep(3)
        after = kept_overrides(empty_redis)["limited"]
        share = used(cluster.instants("release"), 1 / 100, resumed + 1, resumed + 2.8)
    figures(f"after SIGCONT: {share:.4f} of 100/s used, version {'the same' if before == after else 'another'}")

    assert before == after
    assert after["limit"]["rate"] == "100/s"
    assert 0.97 <= share <= 1.03


def test_a_reset_outlives_the_loss_of_redis(empty_redis: Server, figures: Figures) -> None:
    """A limit, a reset, FLUSHALL, with one worker stopped since before the reset: the declared limit is in force.

    The stopped worker knows the limit and not the reset; the others know both, and theirs is higher.
    """
    with cluster_on(empty_redis, "50/s", conf={"broker_transport_options": {"visibility_timeout": 3600}}) as cluster:
        cluster.start(2)
        control(cluster, "10/s")
        cluster.workers["w1"].send_signal(signal.SIGSTOP)
        global_rate(cluster, "reset", "limited")
        empty_redis.client(1).flushdb()
        cluster.workers["w1"].send_signal(signal.SIGCONT)
        cluster.send("limited", 400)
        began = time.monotonic()
        time.sleep(4)
        kept = kept_overrides(empty_redis)["limited"]
        share = used(cluster.instants("release"), 1 / 50, began + FROM_REDIS_S, began + 3.8)
    figures(f"limit, reset, FLUSHALL: {share:.4f} of the declared 50/s used")

    assert kept["what"] == "reset"
    assert 0.97 <= share <= 1.03


@pytest.mark.long
def test_the_same_limit_over_and_over(empty_redis: Server, figures: Figures) -> None:
    """Sent ten times a second for 5 s under load: 50/s does not move, and there is one version."""
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.send("limited", 700)
        cluster.start(3)
        cluster.wait_for(50, 10)
        begin = time.monotonic()
        for number in range(50):
            cluster.app.control.rate_limit("limited", "50/s")
            time.sleep(max(0.0, begin + (number + 1) / 10 - time.monotonic()))
        end = time.monotonic()
        time.sleep(0.3)
        history = empty_redis.client(1).llen("{global-rate:v1:lab}:history:limited")
        changes = int(empty_redis.client(1).hget("{global-rate:v1:lab}:era", "changes") or 0)
        releases = cluster.instants("release")
    worst, share = excess(releases, 1 / 50, 1, SLACK_S), used(releases, 1 / 50, begin, end)
    figures(f"50/s sent 50 times: {share:.4f} used, worst window {worst:+.2f}, {changes} changes by 3 workers")

    assert worst <= 0
    assert 0.97 <= share <= 1.03
    assert changes == history == 1


@pytest.mark.long
def test_stock_celery_multiplies_and_forgets(empty_redis: Server, figures: Figures) -> None:
    """The same limit sent 10 times lets more pass; and a worker that starts later has the declared one."""
    with cluster_on(empty_redis, "5/s", extension=False, conf={"worker_prefetch_multiplier": 20}) as cluster:
        cluster.send("limited", 150)
        cluster.start(1)
        cluster.wait_for(5, 10)
        for _ in range(10):
            cluster.app.control.rate_limit("limited", "5/s")
            time.sleep(0.1)
        time.sleep(3)
        multiplied = excess(cluster.instants("release"), 1 / 5, 1, SLACK_S)
        control(cluster, "1/h")
        cluster.start(1)
        began = time.monotonic()
        time.sleep(3)
        forgotten = len(since(cluster.instants("release"), began))
    figures(f"stock: 5/s sent 10 times: {multiplied:+.1f} over the promise; 1/h, then a new worker: {forgotten} in 3 s")

    assert multiplied > 1
    assert forgotten > 5


def test_what_is_invalid_is_refused(empty_redis: Server) -> None:
    """By `control rate_limit` and by `global-rate set`: with the reason, and nothing changes."""
    with cluster_on(empty_redis, "10/s") as cluster:
        cluster.start(1, pool="solo")
        replies = {rate: control(cluster, rate)[0] for rate in ("abc", "-5/s", "nan/s", "inf/s", "10/x")}
        unknown = cluster.app.control.rate_limit("nobody", "1/s", reply=True, timeout=2, limit=1)
        said = {rate: global_rate(cluster, "set", "limited", "--", rate, is_good=False) for rate in replies}
        named = global_rate(cluster, "set", "nobody", "1/s", is_good=False)
        late = global_rate(cluster, "set", "limited", "1/s", "--expires", "soon", is_good=False)
        kept = kept_overrides(empty_redis)

    assert all("error" in reply and rate in reply["error"] for rate, reply in replies.items())
    assert unknown == [{"w0@lab": {"error": "unknown task"}}]
    assert all(repr(rate) in text for rate, text in said.items())
    assert "unknown task nobody: this application has free, late, limited" in named
    assert "'soon' is not a valid duration" in late
    assert kept == {}


def test_pause_and_resume(empty_redis: Server, figures: Figures) -> None:
    """A pause of 3 s: no start in it, none lost, no burst after it; nor for a burst of 20, which is not saved."""
    with cluster_on(empty_redis, "50/s", burst=20) as cluster:
        cluster.start(2)
        cluster.send("limited", 300)
        cluster.wait_for(100, 10)
        global_rate(cluster, "pause", "limited", "--reason", "they asked")
        paused = time.monotonic()
        time.sleep(3)
        resuming = time.monotonic()
        global_rate(cluster, "resume", "limited")
        resumed = time.monotonic()
        cluster.wait_for(300, 20)
        starts = cluster.instants("start")
        shown = json.loads(global_rate(cluster, "history", "limited", "--json"))
    inside, after = since(starts, paused + IN_FORCE_S, resuming), since(starts, resuming)
    figures(f"pause: {len(inside)} starts in 3 s, the first {after[0] - resumed:+.2f} s after `resume` had returned")

    assert inside == []
    assert len(starts) == 300
    assert after[0] <= resumed + FROM_REDIS_S
    assert excess(after, 1 / 50, 1, SLACK_S) <= 0
    assert [(change["what"], change["reason"]) for change in shown] == [("resume", ""), ("pause", "they asked")]


def test_an_order_that_is_heard_late_is_not_obeyed(empty_redis: Server) -> None:
    """A worker is stopped for 7 s; meanwhile another operator pauses the task. The order of before is too late."""
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.start(1, pool="solo")
        cluster.workers["w0"].send_signal(signal.SIGSTOP)
        cluster.app.control.rate_limit("limited", "10/s")
        time.sleep(6)
        global_rate(cluster, "pause", "limited")
        cluster.workers["w0"].send_signal(signal.SIGCONT)
        time.sleep(1)
        late = kept_overrides(empty_redis)["limited"]
        too_late = control(cluster, "20/s")[0]
        time.sleep(6)
        in_time = control(cluster, "30/s")[0]
        kept = kept_overrides(empty_redis)["limited"]

    assert "limit" not in late
    assert "received too late: a newer override exists, and 50/s is in force" in too_late["error"]
    assert "ok" in in_time
    assert (kept["limit"]["rate"], "pause" in kept) == ("30/s", True)


def test_a_pause_of_a_task_without_a_limit(empty_redis: Server) -> None:
    """`free` declares none: it is held all the same, and starts by itself when the pause is over."""
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.start(1)
        global_rate(cluster, "pause", "free", "--expires", "3s")
        paused = time.monotonic()
        time.sleep(IN_FORCE_S)
        cluster.send("free", 20)
        cluster.wait_for(20, 10, task="free")
        first = cluster.instants("start", "free")[0]

    assert paused + 1 < first <= paused + 3 + NOISE_S


def test_an_order_with_an_end(empty_redis: Server) -> None:
    """`--expires 3s`: 5/s, and then the declared 50/s again, without anybody doing anything."""
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.start(1)
        global_rate(cluster, "set", "limited", "5/s", "--expires", "3s")
        set_at = time.monotonic()
        cluster.send("limited", 200)
        time.sleep(5)
        releases = cluster.instants("release")

    assert len(since(releases, set_at, set_at + 2)) <= 5 * (2 + SLACK_S) + 1
    assert len(since(releases, set_at + 3.5, set_at + 4.5)) >= 45


def test_an_order_outlives_an_empty_redis(empty_redis: Server, own_redis: Redis, figures: Figures) -> None:
    """20/s where 100/s is declared; Redis is killed and starts empty. In force within 1.5 s, also for new ones."""
    url, conf = own_redis.url, {"global_rate_on_outage": "hold"}
    with Cluster(f"{empty_redis.url}/0", f"{url}/1", "100/s", conf=conf) as cluster:
        cluster.start(2)
        control(cluster, "20/s")
        cluster.send("limited", 400)
        cluster.wait_for(20, 10)
        own_redis.stop()
        time.sleep(1)
        own_redis.start()
        began = time.monotonic()
        cluster.wait(lambda: own_redis.client(1).hlen("{global-rate:v1:lab}:records") == 1, FROM_REDIS_S)
        back_s = time.monotonic() - began
        cluster.start(1)
        time.sleep(2)
        end = time.monotonic()
        releases = since(cluster.instants("release"), began)
    share, worst = used(releases, 1 / 20, began + FROM_REDIS_S, end - 0.2), excess(releases, 1 / 20, 1, SLACK_S)
    figures(f"Redis restarted empty: the order was back after {back_s:.2f} s; {share:.4f} of 20/s, worst {worst:+.2f}")

    assert 0.95 <= share <= 1.03
    assert worst <= 0.1 / (1 / 20)  # a full bucket, and H/T: docs, guarantees


def test_two_operators_at_the_same_moment(empty_redis: Server, figures: Figures) -> None:
    """A hundred times two different limits at once: one of them wins, and both workers have it."""
    wins = {"30/s": 0, "40/s": 0}
    with cluster_on(empty_redis, "10/s") as cluster:
        cluster.start(2, pool="solo")
        other = Cluster(cluster.broker)
        for _ in range(100):
            barrier = threading.Barrier(2)

            def send(who: Cluster, rate: str, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                who.app.control.rate_limit("limited", rate)

            senders = [threading.Thread(target=send, args=pair) for pair in ((cluster, "30/s"), (other, "40/s"))]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            time.sleep(0.02)
            replies = cluster.app.control.broadcast("rate_limits", reply=True, timeout=2, limit=2)
            found = {answer["limited"]["in_force"] for reply in replies for answer in reply.values()}
            assert found == {kept_overrides(empty_redis)["limited"]["limit"]["rate"]}, found
            wins[found.pop()] += 1
        other.__exit__()
    figures(f"two operators at once, 100 times: one limit everywhere, {wins}")

    assert sum(wins.values()) == 100


def test_what_workers_tell(empty_redis: Server) -> None:
    """`inspect rate_limits`, `inspect rate_held`, `--destination`, `rate_limit_reset`, and a worker that is off."""
    with cluster_on(empty_redis, "1/h") as cluster:
        cluster.start(1, pool="solo")
        cluster.start(1, pool="solo", extension=False)
        cluster.send("limited", 40)
        cluster.wait_for(1, 10)
        time.sleep(1)

        def inspect(command: str) -> dict[str, Any]:
            replies = cluster.app.control.broadcast(command, reply=True, timeout=2, limit=2) or []
            return {name: answer for reply in replies for name, answer in reply.items()}

        held = inspect("rate_held")
        named = cluster.app.control.rate_limit("limited", "2/h", destination=["w0@lab"], reply=True, timeout=2, limit=1)
        limits = inspect("rate_limits")
        reset = cluster.app.control.broadcast(
            "rate_limit_reset", {"task_name": "limited"}, destination=["w0@lab"], reply=True, timeout=2, limit=1
        )
        again = inspect("rate_limits")["w0@lab"]["limited"]
    tasks = held["w0@lab"]["limited"]["tasks"]
    shown = limits["w0@lab"]["limited"]

    assert held["w1@lab"] == limits["w1@lab"] == {"error": "global-rate is off in this worker"}
    assert held["w0@lab"]["limited"]["count"] >= 10
    assert len(tasks) == min(20, held["w0@lab"]["limited"]["count"])
    assert all(0.5 < task["held_s"] < 10 for task in tasks)
    assert 3500 < tasks[0]["expected_s"] <= 3600
    assert 2 * 3500 < tasks[1]["expected_s"] <= 2 * 3600
    assert "for the whole cluster: 2/h" in named[0]["w0@lab"]["ok"]
    assert (shown["declared"], shown["in_force"], shown["source"]) == ("1/h", "2/h", "control rate_limit")
    assert reset[0]["w0@lab"]["ok"].startswith("rate limit reset successfully")
    assert (again["in_force"], again["source"]) == ("1/h", "declared")


def shown(cluster: Cluster) -> str:
    """The rate of `limited` that `inspect registered` and Flower show; empty if they show none."""
    replies = cluster.app.control.inspect(timeout=2, limit=1).registered("rate_limit") or {}
    lines = [str(line) for lines in replies.values() for line in lines if line.split()[0] == "limited"]
    return lines[0].partition("=")[2].rstrip("]") if lines else "no reply"


def test_others_show_the_rate_in_force(empty_redis: Server) -> None:
    """After `control`, `set`, its end, `reset` and a restart, as stock Celery shows a rate after `control`.

    The declared one is not lost by it: overrides name it, and a reset goes back to it.
    """
    with cluster_on(empty_redis, "5/s") as cluster:
        cluster.start(1)
        assert shown(cluster) == "5/s"
        control(cluster, "20/s")
        assert shown(cluster) == "20/s"
        global_rate(cluster, "set", "limited", "30/m", "--expires", "3s")
        cluster.wait(lambda: shown(cluster) == "30/m", 5)
        cluster.wait(lambda: shown(cluster) == "5/s", 8)
        control(cluster, "0")
        assert shown(cluster) == ""
        control(cluster, "40/s")
        cluster.ended.add("w0")
        cluster.stop("w0")
        cluster.start(1)
        cluster.wait(lambda: shown(cluster) == "40/s", 10)
        (reply,) = cluster.app.control.broadcast("rate_limits", reply=True, timeout=2, limit=1)
        (limits,) = reply.values()
        assert (limits["limited"]["declared"], limits["limited"]["in_force"]) == ("5/s", "40/s")
        global_rate(cluster, "reset", "limited")
        cluster.wait(lambda: shown(cluster) == "5/s", 5)
        assert kept_overrides(empty_redis)["limited"]["limit"]["declared"] == "5/s"


def test_show_fits_a_terminal(empty_redis: Server, figures: Figures) -> None:
    """With and without workers: at most 100 columns, whatever names and reasons there are; and the same as JSON."""
    with cluster_on(empty_redis, "50/s", conf={}) as cluster:
        nobody = global_rate(cluster, "show", "-t", "0")
        cluster.start(1)
        cluster.send("limited", 400)
        global_rate(cluster, "set", "limited", "20/s", "--reason", "they called at night " * 10)
        global_rate(cluster, "pause", "late", "--expires", "1h30m")
        text = global_rate(cluster, "show")
        facts = {row["task"]: row for row in json.loads(global_rate(cluster, "show", "--json"))}
        history = global_rate(cluster, "history", "limited")
    figures("\n" + text)

    assert all(len(line) <= 100 for line in (nobody + text).splitlines())
    assert "?" in nobody
    assert [line.split()[0] for line in text.splitlines() if not line.startswith("  ")] == ["TASK", "late", "limited"]
    assert (facts["limited"]["declared"], facts["limited"]["in_force"]) == ("50/s", "20/s")
    assert 15 <= facts["limited"]["rate_per_s"] <= 25
    assert facts["limited"]["held"] > 10
    assert facts["late"]["paused"]["until_us"] > time.time() * 1e6 + 5000e6
    assert "set 20/s" in history


def test_a_record_that_cannot_be_read(empty_redis: Server) -> None:
    """Its tasks are held, one line says so, `show` too, and `reset` mends it; other tasks run."""
    client = empty_redis.client(1)
    client.hset("{global-rate:v1:lab}:records", "limited", '9:a:0:{"what": "of a later version"}')
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.start(1)
        cluster.send("limited", 20)
        cluster.send("late", 5)
        cluster.wait_for(5, 10, task="late")
        time.sleep(1)
        held = len(cluster.instants("start"))
        shown = global_rate(cluster, "show", "-t", "0")
        global_rate(cluster, "reset", "limited")
        cluster.wait_for(20, 10)
        log = cluster.log("w0")

    assert held == 0
    assert "its override cannot be read" in shown
    assert log.count("the override of limited in Redis cannot be read") == 1


def test_commands_are_listed() -> None:
    """`celery inspect` and `celery control` know them without the application's help.

    5.3 has no `--list` and names them in its help, which breaks lines within a name.
    """
    environment = {**os.environ, "PYTHONPATH": str(root()), "PYTHONWARNINGS": "ignore"}
    listed = {
        command: subprocess.run(
            [sys.executable, "-m", "celery", command, "--list" if celery.__version__ >= "5.4" else "--help"],
            env=environment,
            cwd=root(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in ("inspect", "control")
    }

    known = {command: "".join(text.split()) for command, text in listed.items()}

    assert "rate_limits" in known["inspect"]
    assert "rate_held" in known["inspect"]
    assert "rate_limit_reset" in known["control"]


def test_a_deploy_that_changes_what_is_declared_has_no_effect_and_a_worker_says_so(empty_redis: Server) -> None:
    """An operator's 20/s, and then a worker whose task declares 30/s; and an indefinite pause."""
    with cluster_on(empty_redis, "50/s", loglevel="INFO") as cluster:
        global_rate(cluster, "set", "limited", "20/s", "--reason", "they called")
        global_rate(cluster, "pause", "late")
        cluster.setup["rate"] = "30/s"
        cluster.start(1, pool="solo")
        log = cluster.log("w0")

    assert "limited now declares 30/s instead of 50/s, which has no effect: 20/s was set" in log
    assert "ago (they called)" in log
    assert "late is paused indefinitely by " in log
    assert log.count("WARNING/MainProcess] global-rate: ") == 2


def test_two_declared_limits_on_one_bucket(empty_redis: Server, figures: Figures) -> None:
    """A rolling deploy: one worker declares 20/s, the other 60/s. The sum lies between, in every window."""
    with cluster_on(empty_redis, "20/s") as cluster:
        cluster.send("limited", 900)
        cluster.start(1)
        cluster.setup["rate"] = "60/s"
        cluster.start(1)
        cluster.wait_for(60, 10)
        time.sleep(4)
        end = time.monotonic()
        releases = cluster.instants("release")
        rate = len(since(releases, end - 3, end)) / 3
    figures(f"20/s and 60/s on one bucket: {rate:.1f}/s")

    assert excess(releases, 1 / 60, 1, SLACK_S) <= 0
    assert 20 <= rate <= 61


def test_calls_of_an_idle_worker(empty_redis: Server, own_redis: Redis) -> None:
    """A worker with nothing to do looks once in five seconds whether it has missed an override.

    And its heartbeats: 1, 3 and 7 s after its start, and then every ten seconds.
    """
    with Cluster(f"{empty_redis.url}/0", f"{own_redis.url}/1", "20/s") as cluster:
        cluster.start(1, pool="solo")
        time.sleep(1)
        scripts, looks = script_calls(own_redis.client()), looks_of(own_redis)
        time.sleep(6)

        assert script_calls(own_redis.client()) - scripts <= 3
        assert 1 <= looks_of(own_redis) - looks <= 2


def looks_of(server: Redis) -> int:
    """How often workers have looked at the era."""
    stats: dict[str, Any] = server.client().info("commandstats")
    return int(stats["cmdstat_hmget"]["calls"])


def test_no_answer_from_redis(own_redis: Redis, empty_redis: Server) -> None:
    """Commands say so in one line, and end; `control rate_limit` replies so, and the worker lives."""
    with (
        Proxy(own_redis.port) as proxy,
        Cluster(f"{empty_redis.url}/0", f"redis://:secret@127.0.0.1:{proxy.port}/1", "5/s") as cluster,
    ):
        cluster.start(1, pool="solo")
        proxy.cut()
        own_redis.stop()
        text = global_rate(cluster, "set", "limited", "1/s", is_good=False)
        reply = control(cluster, "1/s")[0]

    assert "no answer from the Redis at redis://127.0.0.1" in text
    assert "secret" not in text
    assert reply["error"].startswith("no answer from the Redis at redis://127.0.0.1")
