"""Settings of the made-up store, and the chunks of time (days or parts of a day) in which its events are made.

Each chunk has its own random numbers. Their seed consists of the store's seed, the purpose of the numbers and the
chunk's index. So the sessions of a chunk do not depend on the chunks before. The settings alone decide the chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WEEKDAYS = (0.97, 0.96, 0.97, 0.99, 1.05, 1.06, 1.02)
"""Relative traffic of the store on each weekday, from Monday to Sunday."""

SALE = 3.0
"""Factor by which a sale multiplies the store's traffic on the day of the sale."""
CHUNK_EVENTS = 400_000
"""Largest number of events in a chunk. A day with more events is split into several chunks, to limit memory use."""
ONE_OFFS = 0.6
"""Share of the store's users who visit only once."""


class Stream(IntEnum):
    """Purposes for which random numbers are drawn.

    Each purpose has its own random numbers. So a change in how many numbers one purpose draws does not affect the
    others.
    """

    CATALOGUE, VISITORS, PLANTS, PRICES, EVENTS, DELIVERY, BROKEN = range(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Settings of the made-up store. The same settings always give the same store."""

    events: int = 28_000
    """Exact number of distinct valid events. Repeats and broken lines come on top of this number."""
    seed: int = 7
    """Seed of all random numbers. Another seed gives another store of the same kind."""
    days: int = 45
    """Days of history. 45 is six weeks and three days, so that the last 7-day bucket is incomplete."""
    start: date = date(2019, 9, 30)
    """The first day. It is a Monday, because 7-day buckets begin on Mondays."""
    users: int | None = None
    """Number of users. The default is in proportion to the events, and 5 million events have 197 thousand users."""
    products: int | None = None
    """Number of products. By default, 5 million events have 52 thousand products.

    The default number of products grows more slowly than the number of events.
    """
    weekly_growth: float = 0.02
    """Relative growth of the store's traffic from one week to the next. For example, 0.02 is two percent."""
    sale_day: int | None = None
    """Index of the day on which the store has a sale. None if there is no sale."""
    late_share: float = 0.004
    """Share of events that are delivered at least a week late.

    Events of the store's last days are never late, because no later file follows.
    """
    repeat_share: float = 0.006
    """Share of events that are delivered twice.

    Half of the copies come within 90 seconds. The other half come at least a week later.
    """
    broken_share: float = 0.001
    """Number of unreadable lines that are added to CSV files, as a share of the number of events."""

    def __post_init__(self) -> None:
        """Check that a store can be made from these settings.

        Raises:
            ValueError: A setting is out of its range. The message names the range.
        """
        least = {"events": 1000, "seed": 0, "days": 21, "users": 20, "products": 200, "sale_day": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, not {value!r}")
            if value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, not {value}")
        if self.days > 1000:
            raise ValueError(f"days must be at most 1000, not {self.days}")
        if self.events < 5 * self.days:
            raise ValueError(f"events must be at least five a day ({5 * self.days}), not {self.events}")
        if self.sale_day is not None and self.sale_day >= self.days:
            raise ValueError(f"sale_day must be one of the {self.days} days, from 0, not {self.sale_day}")
        if self.start.weekday() != 0:
            raise ValueError(f"start must be a Monday, not {self.start:%A, %Y-%m-%d}: 7-day buckets begin on Mondays")
        for name in ("late_share", "repeat_share", "broken_share"):
            if not 0 <= getattr(self, name) <= 0.2:
                raise ValueError(f"{name} must lie between 0 and 0.2, not {getattr(self, name)}")
        if not -0.2 <= self.weekly_growth <= 0.2:
            raise ValueError(f"weekly_growth must lie between -0.2 and 0.2, not {self.weekly_growth}")
        if self.user_count * 5 > self.events:
            raise ValueError(f"users must be at most a fifth of events ({self.events // 5}), not {self.user_count}")
        if self.product_count * 4 > self.events:
            raise ValueError(f"products must be at most a quarter of events, not {self.product_count}")

    @property
    def user_count(self) -> int:
        """Number of users, from the setting `users` or else in proportion to the number of events."""
        return self.users if self.users is not None else max(20, round(self.events * 0.0406))

    @property
    def product_count(self) -> int:
        """Number of products, from the setting `products` or else from the number of events.

        A store with ten times the events has eight times the products.
        """
        return self.products if self.products is not None else max(200, round(52_000 * (self.events / 5e6) ** 0.9))

    @property
    def last_complete_week(self) -> int:
        """Index of the last week for which the store has events on all seven days."""
        return self.days // 7 - 1

    def day(self, index: int) -> date:
        """Return the date of the day with the given index. The store's first day has the index 0."""
        return self.start + timedelta(days=index)

    def random(self, stream: Stream, chunk: int = 0) -> np.random.Generator:
        """Return the random number generator for one purpose in one chunk (a day or part of a day)."""
        return np.random.default_rng([self.seed, stream, chunk])


def shares(total: int, weights: npt.NDArray[np.floating]) -> Ints:
    """Split a whole number into whole numbers that are in proportion to weights.

    Args:
        total: The number to split.
        weights: The weights, not all 0.

    Returns:
        A whole number for each weight. The numbers add up to `total`.
    """
    bounds = np.rint(np.cumsum(weights) / np.sum(weights) * total).astype(np.int64)
    parts: Ints = np.diff(bounds, prepend=0)
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A day, or a part of a very busy day, for which the generator makes all sessions at once."""

    index: int
    day: int
    stretch: tuple[float, float]
    """Begin and end of the chunk, as shares of the day's traffic. A chunk of a whole day has (0, 1)."""
    events: int
    one_offs: tuple[int, int]
    """Indices of the users who visit the store only once, in this chunk: the first, and the one after the last."""


def chunks(settings: StoreSettings) -> list[Chunk]:
    """Divide the days of the store into chunks (days or parts of a day), in the order of time."""
    day = np.arange(settings.days)
    traffic = np.array(WEEKDAYS)[day % 7] * (1 + settings.weekly_growth) ** (day / 7)
    by_day = shares(settings.events, traffic * np.where(day == settings.sale_day, SALE, 1.0))
    plan = [
        (int(d), part / parts, (part + 1) / parts, int(size))
        for d, parts in zip(day, -(-by_day // CHUNK_EVENTS), strict=True)
        for part, size in enumerate(shares(int(by_day[d]), np.ones(parts)))
    ]
    one_offs = int(ONE_OFFS * settings.user_count)
    ends = np.cumsum(shares(one_offs, np.array([size for *_, size in plan], float))) + settings.user_count - one_offs
    begins = [settings.user_count - one_offs, *ends[:-1].tolist()]
    return [
        Chunk(index=index, day=d, stretch=(begin, end), events=size, one_offs=(begins[index], int(ends[index])))
        for index, (d, begin, end, size) in enumerate(plan)
    ]
