"""What limiters for threads and for tasks of asyncio have in common: what they are for, and who gives out the slots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..feedback.longest import DEFAULT_S
from ..limits.duration import US_PER_S
from ..limits.key_values import key_value
from ..limits.rates import NAME, read_rates, window_keys
from ..storage.location import Location
from ..storage.outage_policies import SHARE, read_policy
from ..storage.source import Source, read_options, read_prefix
from .engine import Engine
from .hub import Hub, hub
from .terms import Terms

if TYPE_CHECKING:
    from celery import Celery

Own = TypeVar("Own", bound="BaseLimiter")


class BaseLimiter:
    """What both have in common."""

    def __init__(
        self,
        url: str,
        name: str,
        rate: object,
        *,
        prefix: str,
        redis_options: Mapping[str, Any] | None = None,
        on_outage: str = SHARE,
    ) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"name = {name!r:.80}: use 1 to 64 letters, digits and any of _ . -")
        limits = read_rates(f"bucket {name}", rate, "UTC")
        source = Source("url", url, own="redis_options")
        own = read_options("redis_options", {} if redis_options is None else redis_options)
        location = Location(*source.server(own), read_prefix("prefix", prefix))
        source.try_out(location)
        self._begin(Terms(name, limits, window_keys(limits)), location, read_policy("on_outage", on_outage))

    @classmethod
    def from_app(cls: type[Own], app: Celery, name: str, url: str | None = None) -> Own:
        """The bucket of an application, with all its settings.

        Args:
            app: the application.
            name: of an entry of `global_rate_buckets`, with all its limits and its key; or of a task with a limit of
                its own.
            url: of the Redis, where workers are given it by `--global-rate-url`.

        Raises:
            ValueError: there is no limit of that name. If a setting of the application is invalid, Celery's
                `ImproperlyConfigured` says which.
        """
        from .application import terms_of  # it imports Celery

        limiter = cls.__new__(cls)
        limiter._begin(*terms_of(app, name, url))
        return limiter

    def _begin(self, terms: Terms, location: Location, on_outage: str) -> None:
        self._terms, self._location, self._on_outage = terms, location, on_outage
        self._place: tuple[Hub, Engine] | None = None

    @property
    def name(self) -> str:
        """The name of its bucket."""
        return self._terms.name

    def back_off(self, retry_after: float, key: object = None) -> None:
        """Tell all that share the bucket that its API has asked for a pause, as workers do by themselves.

        It returns at once. Until the pause is over, nobody gets a slot.

        Args:
            retry_after: how long, in seconds: more than 0. An hour is the most.
            key: the value of the bucket's key; None if it has none.

        Raises:
            ValueError: one of them cannot be meant.
        """
        is_number = isinstance(retry_after, (int, float)) and not isinstance(retry_after, bool)
        if not is_number or not 0 < retry_after < math.inf:
            raise ValueError(f"retry_after = {retry_after!r:.80}: use a number of seconds above 0")
        terms, value, *_ = self._asked(key, 1, None)
        length_us = math.ceil(min(retry_after, DEFAULT_S) * US_PER_S)
        self._here()[1].back_off(terms, value, length_us)

    def __repr__(self) -> str:
        limits = " and ".join(map(str, self._terms.limits))
        return f"<{type(self).__name__} {self.name} at {limits}, kept by {self._location.address}>"

    def _here(self) -> tuple[Hub, Engine]:
        """The hub of this process, which may be a child of the one that has made this, and the engine in it."""
        found = hub()
        place = self._place
        if place is None or place[0] is not found:
            place = self._place = found, found.engine(self._location, self._on_outage)
        return place

    def _asked(self, key: object, cost: int, timeout: float | None) -> tuple[Terms, str | None, int, float | None]:
        """What a waiter is made of.

        Raises:
            ValueError: something of it cannot be meant.
        """
        if not isinstance(cost, int) or isinstance(cost, bool) or cost < 1:
            raise ValueError(f"cost = {cost!r:.80}: use a whole number of units from 1 on")
        if cost > self._terms.largest_cost:
            raise ValueError(f"cost = {cost}: {self.name} has at most {self._terms.largest_cost} units for one call")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            raise ValueError(f"timeout = {timeout!r:.80}: use seconds, or None to wait as long as it takes")
        if timeout != timeout:
            raise ValueError("timeout = nan: use seconds, or None to wait as long as it takes")
        if key is not None and not self._terms.has_keys:
            raise ValueError(f"key = {key!r:.80}: {self.name} has no key, so that all share one bucket: leave it out")
        return self._terms, key_value(key), cost, timeout
