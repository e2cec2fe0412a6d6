"""A pause that an API has asked for, on the real scripts: no slot before it is over, of whatever limit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis
from celery.schedules import crontab

from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.storage.scripts import bucket_key

from .lanes import Lanes, live_all
from .mutate import BACK_OFF_MUTANTS, Mutant, complaint, originals, sentences, sources
from .replay import CHANNEL, HORIZON_US, NOW, PREFIX, slots

SECOND, MS = 1_000_000, 1_000
MINUTE = 60 * SECOND
PLAIN = Bucket("plain", OWN, Limit(10 * MS, burst=5))
CROSSED = Bucket("crossed", "smooth", Limit(10 * MS, burst=5), is_crossed=True)
FIXED = Bucket("fixed", "fixed", Limit.in_windows("100/h"))
SLIDING = Bucket("sliding", "sliding", Limit.in_any("100/m"))
REFILLED = Bucket("refilled", "crontab", Limit.refilled(crontab(), 100, 100, "UTC"))
KINDS = (CROSSED, FIXED, SLIDING, REFILLED)


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    """Full buckets."""
    return Lanes(redis_client)


def start(lanes: Lanes, now_us: int, *lane: Bucket, wanted: int = 1) -> list[int]:
    """Starts that are granted, and where there is none the next one that will be."""
    answer = lanes.reserve(now_us, lane, wanted)
    return answer.starts_us or [-answer.again_us]


def test_a_full_bucket_has_no_slot_before_it_is_over(lanes: Lanes) -> None:
    for bucket in KINDS:
        assert lanes.back_off(NOW, SECOND, bucket) == (NOW + SECOND, True)
        assert start(lanes, NOW, bucket) == [-(NOW + SECOND)], bucket.name
        assert start(lanes, NOW + SECOND - HORIZON_US - 1, bucket) == [-(NOW + SECOND)], bucket.name
        assert start(lanes, NOW + SECOND - HORIZON_US, bucket) == [NOW + SECOND], bucket.name
    lanes.back_off(NOW, SECOND, PLAIN)
    assert lanes.reserve_plain(NOW, PLAIN).first_us == NOW + SECOND
    assert lanes.reserve_plain(NOW, PLAIN).count == 0
    assert slots(lanes.reserve_plain(NOW + SECOND - HORIZON_US, PLAIN)) == [NOW + SECOND]


def test_a_bucket_in_use_has_none_either(lanes: Lanes) -> None:
    for bucket in KINDS:
        assert start(lanes, NOW, bucket) == [NOW]
        lanes.back_off(NOW, SECOND, bucket)
        assert start(lanes, NOW + 1, bucket) == [-(NOW + SECOND)], bucket.name
        assert start(lanes, NOW + SECOND, bucket) == [NOW + SECOND], bucket.name
    assert lanes.reserve_plain(NOW, PLAIN).count == 1
    lanes.back_off(NOW, SECOND, PLAIN)
    assert lanes.reserve_plain(NOW + 1, PLAIN).first_us == NOW + SECOND


def test_nothing_is_saved_until_it_is_over(lanes: Lanes) -> None:
    """Slots are an interval apart from its end on, without the burst of five that a rest would have saved."""
    for bucket in (PLAIN, CROSSED):
        lanes.back_off(NOW, SECOND, bucket)
    expected = [NOW + SECOND + k * 10 * MS for k in range(11)]

    assert start(lanes, NOW + SECOND, CROSSED, wanted=20) == expected
    assert slots(lanes.reserve_plain(NOW + SECOND, PLAIN, 20)) == expected
    later = NOW + MINUTE
    assert start(lanes, later, CROSSED, wanted=5) == [later] * 5, "the burst is back, a minute after"


def test_a_lane_waits_for_the_last_of_its_limits(lanes: Lanes) -> None:
    lanes.back_off(NOW, SECOND, FIXED)
    lanes.back_off(NOW, 2 * SECOND, SLIDING)

    assert start(lanes, NOW, CROSSED, FIXED, SLIDING, REFILLED) == [-(NOW + 2 * SECOND)]
    assert start(lanes, NOW, CROSSED) == [NOW], "a limit that does not back off is free for others"


def test_all_limits_of_a_name_back_off(lanes: Lanes) -> None:
    slow, fast = (Bucket("api", window, Limit(us)) for window, us in (("smooth", SECOND), ("smooth2", MS)))
    lanes.back_off(NOW, SECOND, slow, fast)

    assert [start(lanes, NOW, bucket) for bucket in (slow, fast)] == [[-(NOW + SECOND)]] * 2


def test_the_longest_counts_whichever_comes_first(lanes: Lanes) -> None:
    for bucket, lengths in ((FIXED, (2, 5)), (CROSSED, (5, 2))):
        ends = [lanes.back_off(NOW + k, length * SECOND, bucket) for k, length in enumerate(lengths)]
        last = NOW + max(lengths) * SECOND + lengths.index(5)

        assert ends[1] == (last, lengths == (2, 5))
        assert start(lanes, NOW + 3, bucket) == [-last]


def test_a_limit_that_backs_off_for_less_long_is_brought_to_the_same_end(lanes: Lanes) -> None:
    """One has lost its state, or is new in the configuration."""
    slow, fast = (Bucket("api", window, Limit(us)) for window, us in (("smooth", SECOND), ("smooth2", MS)))
    lanes.back_off(NOW, 5 * SECOND, slow)

    assert lanes.back_off(NOW + 1, SECOND, slow, fast) == (NOW + 5 * SECOND, True)
    assert start(lanes, NOW + 2, fast) == [-(NOW + 5 * SECOND)]
    assert lanes.back_off(NOW + 2, SECOND, slow, fast) == (NOW + 5 * SECOND, False)


def test_on_a_clock_that_steps_back_it_lasts_no_longer_than_it_was_to(lanes: Lanes) -> None:
    lanes.back_off(NOW, SECOND, CROSSED)
    lanes.back_off(NOW + 1, SECOND // 2, CROSSED)
    back = NOW - 60 * MINUTE

    assert start(lanes, back, CROSSED) == [-(back + SECOND)]
    assert lanes.back_off(back, 2, CROSSED) == (back + SECOND, False)
    assert lanes.back_off(back, SECOND + 1, CROSSED) == (back + SECOND + 1, True)
    assert start(lanes, back, CROSSED) == [-(back + SECOND + 1)]


def test_a_later_floor_stays(lanes: Lanes) -> None:
    """An operator's pause, in the override that both know."""
    override = f"1:a:{NOW + 3 * SECOND}:{{}}"
    lanes.client.hset("{" + PREFIX + "}:records", "plain", override)
    lanes.back_off(NOW, SECOND, PLAIN)

    assert lanes.reserve_plain(NOW, PLAIN, override=override).first_us == NOW + 3 * SECOND
    lanes.back_off(NOW, 4 * SECOND, PLAIN)
    assert lanes.reserve_plain(NOW, PLAIN, override=override).first_us == NOW + 4 * SECOND
    assert lanes.reserve_plain(NOW + 4 * SECOND, PLAIN, override=override).count == 1


def test_it_outlives_its_state(lanes: Lanes) -> None:
    """The state lives until it is over, and a minute; one that lives longer for another reason goes on to."""
    for bucket in (CROSSED, FIXED):
        lanes.back_off(NOW, 3 * MINUTE, bucket)
        assert 239_000 < lanes.client.pttl(bucket_key(PREFIX, bucket.name, bucket.window)) <= 240_000
    slow = replace(CROSSED, name="slow", limit=Limit(90 * MINUTE))
    start(lanes, NOW, slow)
    lanes.back_off(NOW + 1, 4 * MINUTE, slow)
    assert lanes.client.pttl(bucket_key(PREFIX, slow.name, slow.window)) > 80 * 60 * 1000


def test_whoever_listens_is_told_when_it_ends_later(lanes: Lanes) -> None:
    with lanes.client.pubsub() as listener:
        listener.subscribe(CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        for at_us, length_us in ((0, 10), (1, 5), (2, 8), (3, 8)):
            lanes.back_off(NOW + at_us, length_us, FIXED, note=f'["{at_us}"]')
        lanes.client.publish(CHANNEL, "the end")
        heard = []
        while (message := listener.get_message(timeout=5)["data"]) != "the end":
            heard.append(message)

    assert heard == [f'off\n{NOW + 10} 10\n["0"]', f'off\n{NOW + 11} 8\n["3"]']


def test_it_can_be_ended_and_nothing_is_saved_then_either(lanes: Lanes) -> None:
    """All workers are told, once. Where nothing backs off, nothing is written and nobody is told."""
    lanes.back_off(NOW, 60 * MINUTE, CROSSED)
    lanes.back_off(NOW, 60 * MINUTE, FIXED)
    with lanes.client.pubsub() as listener:
        listener.subscribe(CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        end = NOW + SECOND
        assert lanes.back_off(end, 0, CROSSED, note="why") == (end, True)
        assert lanes.back_off(end + 1, 0, CROSSED) == (end + 1, False)
        assert lanes.back_off(end + 1, 0, SLIDING) == (end + 1, False)
        lanes.client.publish(CHANNEL, "the end")
        heard = []
        while (message := listener.get_message(timeout=5)["data"]) != "the end":
            heard.append(message)

    assert heard == [f"off\n{end} 0\nwhy"]
    assert lanes.fields(SLIDING) == [{}]
    assert start(lanes, end, CROSSED, wanted=3) == [end, end + 10 * MS, end + 20 * MS]
    assert start(lanes, end, FIXED) == [-(NOW + 60 * MINUTE)], "that of another bucket goes on"
    assert lanes.back_off(end + 2, SECOND, CROSSED) == (end + 2 + SECOND, True)


def test_a_slot_that_comes_back_is_not_had_before_it_is_over(lanes: Lanes) -> None:
    draw = random.Random(19)
    for bucket in KINDS:
        answer = lanes.reserve(NOW, (bucket,), 3)
        lanes.back_off(NOW + 1, SECOND, bucket)
        answer.used = draw.randrange(3)
        lanes.give_back((bucket,), answer, NOW + 2)
        assert start(lanes, NOW + 3, bucket) == [-(NOW + 1 + SECOND)], bucket.name


def test_no_window_holds_more_than_promised_and_nothing_starts_before_its_end(lanes: Lanes) -> None:
    starts, _ = live_all(lanes, range(20), fixed=0.3, sliding=0.3, costs=0.3, backs_off=3)

    assert starts > 300


@pytest.mark.long
def test_the_same_in_thousands_of_lives(lanes: Lanes) -> None:
    starts, _ = live_all(lanes, range(20, 3020), fixed=0.3, sliding=0.3, costs=0.3, backs_off=3)

    assert starts > 50_000


# mutants


SENTENCES: list[Callable[[Lanes], None]] = sentences(globals())


def test_the_scripts_as_they_are_pass(lanes: Lanes) -> None:
    assert len(SENTENCES) > 10
    assert complaint(SENTENCES, lanes) is None


@pytest.mark.parametrize("mutant", BACK_OFF_MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(SENTENCES, Lanes(redis_client, sources(mutant))), f"no test notices: {mutant.why}"
