"""Records in the scripts, on a real server, one sentence per test. The mutants must fail one of those, too."""

from __future__ import annotations

import json

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import RESUME, Kept, Override, parse_rates, pause, reset, set_limits
from celery_global_rate.storage.scripts import era_key, history_key, overrides_key

from .replay import CHANNEL, HORIZON_US, NAME, NOW, PREFIX, Bucket, slot, slots

SECOND = 1_000_000
PER_S, PER_10_MS = Limit(SECOND), Limit(10_000)
FOREVER_US = 9_000_000_000_000_000


def limited(rate: str) -> dict[str, object]:
    return set_limits(*parse_rates(rate, [Kept()]), (PER_S,))


def text(version: int, id: str = "x", floor_us: int = 0) -> str:
    content = {"what": "set", "when": "1", "limit": {"rate": "none", "when": "1"}}
    return f"{version}:{id}:{floor_us}:{json.dumps(content)}"


def stored(bucket: Bucket) -> str | None:
    return bucket.client.hget(overrides_key(PREFIX), NAME)  # type: ignore[return-value]  # its answers are decoded


# set


def test_a_change_becomes_a_record_with_all_that_was_said(bucket: Bucket) -> None:
    is_new, written = bucket.set(NOW, set_limits((Limit(50_000, 7, 3),), "20/s", (PER_S,), NOW + SECOND), "id1")
    override = Override.parse(written)
    limit_override = override.limit_override

    assert is_new
    assert stored(bucket) == written
    assert (override.version, override.id, override.floor_us, override.what) == (NOW, "id1", 0, "set")
    assert (override.origin.by, override.origin.source, override.origin.reason) == ("me", "test", "why")
    assert override.origin.when_us == NOW
    assert limit_override is not None
    assert (limit_override.limits, limit_override.rate, limit_override.until_us) == (
        (Limit(50_000, 7, 3),),
        "20/s",
        NOW + SECOND,
    )
    assert (limit_override.declared, limit_override.replaced, limit_override.origin) == (
        "1/s",
        "declared",
        override.origin,
    )
    assert override.pause is None


def test_a_record_of_fixed_windows_has_their_calendars(bucket: Bucket) -> None:
    limits = (PER_S, Limit.in_windows("9/d", None, "America/Los_Angeles"), Limit.in_windows("99/month", "4d"))
    _, written = bucket.set(NOW, set_limits(limits, "as set", limits), "id1")
    limit_override = Override.parse(written).limit_override

    assert limit_override is not None
    assert limit_override.limits == limits
    assert limit_override.fits(limits)


def test_the_version_is_the_clock_and_always_higher_than_before(bucket: Bucket) -> None:
    versions = [
        Override.parse(bucket.set(now, limited(f"{number}/s"), str(number))[1]).version
        for number, now in enumerate((NOW, NOW, NOW - SECOND, NOW + SECOND), 1)
    ]

    assert versions == [NOW, NOW + 1, NOW + 2, NOW + SECOND]


def test_a_record_tells_what_it_replaced(bucket: Bucket) -> None:
    bucket.set(NOW, limited("2/s"), "a")
    second = Override.parse(bucket.set(NOW + 1, limited("none"), "b")[1])
    third = Override.parse(bucket.set(NOW + 2, reset((PER_S,)), "c")[1])

    assert second.limit_override is not None
    assert third.limit_override is not None
    assert (second.limit_override.replaced, second.limit_override.limits) == ("2/s", ())
    assert (third.limit_override.replaced, third.limit_override.rate) == ("none", "declared")
    assert third.limits_at(NOW, (PER_10_MS,)) == (PER_10_MS,)
    assert second.limits_at(NOW, (PER_10_MS,)) == ()


def test_an_order_that_is_over_was_not_in_force_before(bucket: Bucket) -> None:
    replaced = []
    for now in (NOW + SECOND - 1, NOW + SECOND):
        bucket.client.flushdb()
        bucket.set(NOW, set_limits((Limit(50_000),), "20/s", (PER_S,), NOW + SECOND), "a")
        limit_override = Override.parse(bucket.set(now, limited("3/s"), "b")[1]).limit_override
        assert limit_override is not None
        replaced.append(limit_override.replaced)

    assert replaced == ["20/s", "declared"]


def test_one_order_that_many_hear_is_written_once(bucket: Bucket) -> None:
    _, first = bucket.set(NOW, limited("2/s"), "a")
    again = bucket.set(NOW + 1, limited("2/s"), "a")
    _, second = bucket.set(NOW + 2, limited("3/s"), "b")
    late = bucket.set(NOW + 3, limited("2/s"), "a")

    assert again == (False, first)
    assert late == (False, second)
    assert stored(bucket) == second


def test_an_order_is_known_by_the_last_twenty_changes(bucket: Bucket) -> None:
    for number in range(25):
        bucket.set(NOW + number, limited(f"{number + 1}/s"), f"id{number}")
    history = [Override.parse(entry) for entry in bucket.client.lrange(history_key(PREFIX, NAME), 0, -1)]

    assert [override.id for override in history] == [f"id{number}" for number in range(24, 4, -1)]
    assert not bucket.set(NOW + 30, limited("1/s"), "id5")[0]
    assert bucket.set(NOW + 30, limited("1/s"), "id4")[0]


def test_the_same_limit_again_is_no_change(bucket: Bucket) -> None:
    _, first = bucket.set(NOW, limited("2/s"), "a")

    assert bucket.set(NOW + 1, limited("2/s"), "b") == (False, first)
    assert bucket.client.llen(history_key(PREFIX, NAME)) == 1
    assert bucket.set(NOW + 1, limited("2/s") | {"reason": "another"}, "b")[0]
    assert bucket.set(NOW + 2, set_limits(*parse_rates("2/s", [Kept()]), (PER_10_MS,)) | {"reason": "another"}, "c")[0]
    assert bucket.set(
        NOW + 3, set_limits(*parse_rates("2/s", [Kept()]), (PER_10_MS,), NOW + SECOND) | {"reason": "another"}, "d"
    )[0]
    assert bucket.set(NOW + 4, limited("3/s") | {"reason": "another"}, "e")[0]


def test_an_order_that_is_known_says_so_when_the_record_is_lost(bucket: Bucket) -> None:
    bucket.set(NOW, limited("2/s"), "a")
    bucket.client.delete(overrides_key(PREFIX))

    assert bucket.set(NOW + 1, limited("2/s"), "a") == (False, "")


def test_an_order_that_may_be_late_undoes_nothing_that_came_since(bucket: Bucket) -> None:
    _, first = bucket.set(NOW, limited("2/s"), "a")

    assert bucket.set(NOW + 6 * SECOND, limited("3/s"), "b", 7 * SECOND) == (False, first)
    assert bucket.set(NOW + 6 * SECOND, limited("3/s"), "b", 6 * SECOND)[0]


def test_an_order_that_is_not_late_is_written_whatever_the_clock_did(bucket: Bucket) -> None:
    bucket.set(NOW, limited("2/s"), "a")

    assert bucket.set(NOW - SECOND, limited("3/s"), "b")[0]


def test_what_is_no_record_is_overwritten(bucket: Bucket) -> None:
    for rubbish in ("rubbish", "5:a:0:", "5:a:0:{", "5:a:0:[]", 'x:a:0:{"when": "1"}', '5:a:0:{"what": "set"}'):
        bucket.client.flushdb()
        bucket.client.hset(overrides_key(PREFIX), NAME, rubbish)

        assert bucket.set(NOW, limited("2/s"), "a")[0], rubbish
        assert Override.parse(stored(bucket) or "").version == NOW


def test_who_knows_a_record_replaces_what_is_none(bucket: Bucket) -> None:
    bucket.client.hset(overrides_key(PREFIX), NAME, "rubbish")

    assert bucket.reserve(NOW, PER_10_MS).override == "rubbish"
    assert bucket.reserve(NOW, PER_10_MS, override=text(NOW)).count == 1
    assert stored(bucket) == text(NOW)


def test_a_pause_and_a_limit_do_not_touch_each_other(bucket: Bucket) -> None:
    bucket.set(NOW, limited("2/s"), "a")
    paused = Override.parse(bucket.set(NOW + 1, pause(NOW + SECOND), "b")[1])
    changed = Override.parse(bucket.set(NOW + 2, limited("3/s"), "c")[1])
    resumed = Override.parse(bucket.set(NOW + 3, RESUME, "d")[1])

    assert paused.limit_override is not None
    assert paused.pause is not None
    assert (paused.limit_override.rate, paused.limit_override.origin.when_us) == ("2/s", NOW)
    assert paused.floor_us == paused.pause.until_us == NOW + SECOND
    assert paused.pause.origin.when_us == NOW + 1
    assert (paused.pause.origin.by, paused.pause.origin.source, paused.pause.origin.reason) == ("me", "test", "why")
    assert (changed.pause, changed.floor_us) == (paused.pause, NOW + SECOND)
    assert changed.limit_override is not None
    assert (changed.limit_override.rate, changed.limit_override.replaced) == ("3/s", "2/s")
    assert (resumed.pause, resumed.floor_us, resumed.limit_override) == (None, NOW + 3, changed.limit_override)


def test_a_pause_without_an_end_has_the_last_floor(bucket: Bucket) -> None:
    override = Override.parse(bucket.set(NOW, pause(), "a")[1])

    assert override.floor_us == FOREVER_US
    assert override.pause is not None
    assert override.pause.until_us is None


def test_a_change_is_told_to_those_who_listen(bucket: Bucket) -> None:
    with bucket.client.pubsub() as listener:
        listener.subscribe(CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        _, override = bucket.set(NOW, limited("2/s"), "a")

        assert listener.get_message(timeout=5)["data"] == f"{override}\n{NAME}"


def test_a_change_is_a_change_of_the_era(bucket: Bucket) -> None:
    bucket.set(NOW, limited("2/s"), "a")
    first = bucket.client.hgetall(era_key(PREFIX))
    bucket.set(NOW, limited("3/s"), "b")
    bucket.set(NOW, limited("3/s"), "b")

    assert first == {"id": "a", "changes": "1"}
    assert bucket.client.hgetall(era_key(PREFIX)) == {"id": "a", "changes": "2"}


def test_the_clock_of_the_server_dates_a_record(bucket: Bucket) -> None:
    seconds, _ = bucket.client.time()
    override = Override.parse(bucket.set(None, limited("2/s"), "a")[1])

    assert seconds * SECOND <= override.version <= (seconds + 60) * SECOND


# reserve


def test_who_does_not_know_the_record_gets_it_and_no_slot(bucket: Bucket) -> None:
    _, override = bucket.set(NOW, limited("2/s"), "a")
    refused = bucket.reserve(NOW + 1, PER_10_MS, 3)

    assert (refused.count, refused.override) == (0, override)
    assert bucket.fields == {}
    assert bucket.client.zcard(bucket.waiting_key) == 0
    granted = bucket.reserve(NOW + 1, PER_10_MS, 3, override=override)
    assert (granted.count, granted.override) == (3, "")


def test_the_higher_record_counts_and_of_one_version_the_higher_id(bucket: Bucket) -> None:
    for id, expected in (("w", text(NOW, "x")), ("y", "")):
        bucket.client.flushdb()
        bucket.keep({NAME: text(NOW, "x")})

        assert bucket.reserve(NOW, PER_10_MS, override=text(NOW, id)).override == expected
        assert stored(bucket) == (expected or text(NOW, id))


def test_a_version_is_a_number(bucket: Bucket) -> None:
    bucket.keep({NAME: text(999, "x")})

    assert bucket.reserve(NOW, PER_10_MS, override=text(1000, "a")).override == ""


def test_who_knows_a_record_that_redis_has_lost_brings_it_back(bucket: Bucket) -> None:
    _, override = bucket.set(NOW, limited("2/s"), "a")
    bucket.client.flushdb()
    reservation = bucket.reserve(NOW + 1, PER_10_MS, override=override)

    assert (reservation.count, reservation.override) == (1, "")
    assert stored(bucket) == override
    assert bucket.client.hgetall(era_key(PREFIX)) == {"changes": "1"}


def test_a_record_that_is_known_on_both_sides_is_no_change(bucket: Bucket) -> None:
    _, override = bucket.set(NOW, limited("2/s"), "a")
    bucket.reserve(NOW + 1, PER_10_MS, override=override)

    assert bucket.client.hget(era_key(PREFIX), "changes") == "1"


def test_before_the_floor_there_is_no_slot_and_none_is_saved(bucket: Bucket) -> None:
    limit = Limit(10_000, burst=50)
    _, override = bucket.set(NOW, pause(NOW + SECOND), "a")
    refused = bucket.reserve(NOW, limit, 10, override=override)
    edge = bucket.reserve(NOW + SECOND - HORIZON_US, limit, 10, override=override)
    after = bucket.reserve(NOW + SECOND + 200_000, limit, 100, override=override)

    assert (refused.count, refused.first_us, refused.first_ps) == (0, NOW + SECOND, 0)
    assert slots(edge) == [NOW + SECOND]
    assert slots(after)[0] == NOW + SECOND + 10_000
    assert after.count == 30


def test_a_floor_saves_nothing_for_a_bucket_that_was_never_used(bucket: Bucket) -> None:
    limit = Limit(10_000, burst=50)
    bucket.set(NOW, pause(), "a")
    _, override = bucket.set(NOW + SECOND, RESUME, "b")

    assert slots(bucket.reserve(NOW + SECOND, limit, 1, override=override)) == [NOW + SECOND]
    assert bucket.reserve(NOW + SECOND + 1, limit, 100, override=override).count == 10


def test_of_a_floor_and_an_outage_the_later_counts(bucket: Bucket) -> None:
    """A burst of 5, a pause that is over for 30 ms, and a caller that has had an answer for 20 ms, or for 40 ms."""
    limit = Limit(10_000, burst=5)
    floor = text(1, floor_us=NOW - 30_000)

    assert slot(bucket.reserve(NOW, limit, override=floor, awake_us=20_000)) == NOW - 20_000
    bucket.lose()
    assert slot(bucket.reserve(NOW, limit, override=floor, awake_us=40_000)) == NOW - 30_000


def test_a_floor_does_not_bring_a_slot_forward(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)
    bucket.set(NOW, pause(), "a")
    _, override = bucket.set(NOW + 500_000, RESUME, "b")

    assert bucket.reserve(NOW + 500_000, PER_S, override=override).first_us == NOW + SECOND


def test_a_pause_does_not_keep_a_bucket_for_ever(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)
    before = bucket.ttl_ms
    _, override = bucket.set(NOW, pause(), "a")
    bucket.reserve(NOW + 1, PER_S, override=override)

    assert before - 10_000 < bucket.ttl_ms <= before


def test_a_worker_waits_in_a_pause_as_in_any_other_wait(bucket: Bucket) -> None:
    _, override = bucket.set(NOW, pause(), "a")
    waiting = [bucket.reserve(NOW, PER_S, worker=worker, override=override).waiting for worker in ("one", "two")]

    assert waiting == [1, 2]


def test_the_slots_that_were_given_out_are_counted(bucket: Bucket) -> None:
    first = bucket.reserve(NOW, PER_10_MS, 4)
    second = bucket.reserve(NOW, PER_10_MS, 3)
    given = bucket.fields["given"]
    second.used = 1
    bucket.give_back(NOW, second)

    assert (first.count, second.count) == (4, 3)
    assert (given, bucket.fields["given"]) == ("7", "5")


# keep


def test_all_records_come_back_with_the_era(bucket: Bucket) -> None:
    _, override = bucket.set(NOW, limited("2/s"), "a")

    assert bucket.keep({}) == ("a", 1, {NAME: override})


def test_an_empty_server_begins_an_era_and_takes_what_workers_know(bucket: Bucket) -> None:
    known = {NAME: text(NOW), "other": text(NOW + 1)}

    assert bucket.keep(known, "e") == ("e", 2, known)
    assert bucket.keep(known, "f") == ("e", 2, known)


def test_a_server_without_records_has_no_era_and_keeps_nothing(bucket: Bucket) -> None:
    assert bucket.keep({}, "e") == (None, 0, {})
    assert bucket.client.keys() == []


def test_of_what_both_sides_know_the_higher_record_stays(bucket: Bucket) -> None:
    bucket.keep({"one": text(NOW), "two": text(NOW + 2)})

    assert bucket.keep({"one": text(NOW + 1), "two": text(NOW + 1)})[2] == {"one": text(NOW + 1), "two": text(NOW + 2)}
