"""Makes up stores in which every trend is known, to measure how well methods find trends.

The project's store generator makes the events, with sessions and regular visitors. So the counts vary as much as in its
other stores. Each store grows, and its demand varies by weekday. It has a sale day, products that arrive or leave, and
an unfinished last week. Trends of known strength begin on every Monday but the first. The generator draws the events by
weights. A trend counts as true if these weights change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt

from lambda_spark.synthetic.catalogue import Catalogue, catalogue
from lambda_spark.synthetic.model import Floats, Ints, StoreSettings, Stream, chunks
from lambda_spark.synthetic.planted_trends import (
    BRAND_PLANTS,
    CATEGORY_PLANTS,
    PRODUCT_PLANTS,
    Of,
    PlantedTrend,
    Plants,
    What,
    weights_on,
)
from lambda_spark.synthetic.sessions import VIEW, day_of, sessions, visitors

Number = TypeVar("Number", np.int64, np.float64)

TrendKind = tuple[What, float | None, int]
"""A trend in the generator's lists: its kind, the factor on demand, and weeks (ignored in this module)."""
RISING = ("rising", "new")
PRODUCTS_PER_WEEK = 10
"""How many products begin to rise on each Monday. The same number begins to wane."""
STEADY_FACTOR = 1.1
"""A key counts as steady if its weight rose or fell by at most this factor. Most weights do not change at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedDemand:
    """The views of one store and its true trends. A key is the number of a product, category or brand."""

    first_day: np.datetime64
    traffic: Ints
    """The number of views in the whole store on each day."""
    views: dict[Of, Ints]
    """Views by type of key, then by day and key. Products without a brand count in `traffic` but under no brand."""
    weights: dict[Of, Floats]
    """The weights from which views are drawn, by day and key.

    The weights do not depend on the traffic. The weight of a key changes only when something happens to the key."""
    planted: dict[Of, list[tuple[int, int, int]]]
    """The trends built into the store: the week in which each begins, the key, and 1 for rising or -1 for waning."""

    @property
    def days(self) -> int:
        """Days of history."""
        return len(self.traffic)


def trend_store(seed: int) -> StoreSettings:
    """Return a store of 3,000 products and half a million events, with a sale on the Thursday of its fourth week."""
    return StoreSettings(seed=seed, events=500_000, products=3_000, sale_day=24)


def planted_demand(settings: StoreSettings) -> PlantedDemand:
    """Generate a store's events, count its views, and record its true trends."""
    goods = catalogue(settings)
    plants = plant_trends(settings, goods)
    plan = chunks(settings)
    people = visitors(settings, goods, plan)
    views = np.zeros((settings.days, settings.product_count), np.int64)
    weights = np.stack([weights_on(day, goods, plants) for day in range(settings.days)])
    for chunk in plan:
        day = day_of(chunk.day, settings, goods, plants, people)
        events = sessions(chunk, day, goods, plants, people, settings.random(Stream.EVENTS, chunk.index))
        views[chunk.day] += np.bincount(events.product[events.kind == VIEW], minlength=settings.product_count)
    groups: dict[Of, Ints] = {
        "product": np.arange(settings.product_count), "category": goods.category, "brand": goods.brand
    }  # fmt: skip
    return PlantedDemand(
        first_day=np.datetime64(settings.start),
        traffic=views.sum(axis=1),
        views={key_type: _sum_by_group(views, group) for key_type, group in groups.items()},
        weights={key_type: _sum_by_group(weights, group) for key_type, group in groups.items()},
        planted={
            key_type: [
                (trend.week, int(trend.key), 1 if trend.what in RISING else -1)
                for trend in plants.trends
                if trend.of == key_type
            ]
            for key_type in get_args(Of)
        },
    )


def plant_trends(settings: StoreSettings, goods: Catalogue) -> Plants:
    """Choose trends that begin on every Monday but the first, as strong as those in the generator's other stores.

    On each of these Mondays PRODUCTS_PER_WEEK popular products begin to rise and as many begin to wane. In even weeks
    one category also begins to rise and another begins to wane. In odd weeks one brand begins to rise and another
    begins to wane. No product takes part in two trends. The keys are numbers.
    """
    rng = settings.random(Stream.PLANTS)
    weeks = range(1, -(-settings.days // 7))
    free = (goods.arrives == 0) & (goods.leaves == settings.days)
    trends: list[PlantedTrend] = []

    def plant(key_type: Of, key: int, week: int, kind: TrendKind, members: Ints) -> None:
        what, strength, _ = kind
        trends.append(PlantedTrend(of=key_type, key=key, what=what, week=week, strength=strength, members=members))
        free[members] = False

    # Skip the largest categories and brands, because their trends would move the demand of the whole store.
    categories = iter(rng.permutation(np.argsort(-goods.usual)[8:30]).tolist())
    brand_weight = np.bincount(goods.brand + 1, goods.weight)[1:]
    brands = iter(rng.permutation(np.argsort(-brand_weight)[8:30]).tolist())
    for week in weeks:
        for is_rising in (True, False):
            if week % 2 == 0:
                key = next(categories)
                kind = _kinds(CATEGORY_PLANTS, is_rising)[week // 2 % 2]
                plant("category", key, week, kind, np.flatnonzero((goods.category == key) & free))
            else:
                key = next(brands)
                plant(
                    "brand", key, week, _kinds(BRAND_PLANTS, is_rising)[0], np.flatnonzero((goods.brand == key) & free)
                )
    head = np.flatnonzero(free)[np.argsort(-goods.weight[free], kind="stable")][3:]
    count = 2 * PRODUCTS_PER_WEEK * len(weeks)
    products = iter(rng.permutation(head[: count + count // 3]).tolist())
    for week in weeks:
        for is_rising in (True, False):
            kinds = _kinds(PRODUCT_PLANTS, is_rising)
            for number in range(PRODUCTS_PER_WEEK):
                key = next(products)
                plant("product", key, week, kinds[number % len(kinds)], np.array([key]))
    return Plants(trends=trends, pairs=[])


def _kinds(plants: Sequence[TrendKind], is_rising: bool) -> list[TrendKind]:
    return [kind for kind in plants if (kind[0] in RISING) == is_rising]


def true_changes(demand: PlantedDemand, key_type: Of, before: Iterable[int], now: Iterable[int]) -> Ints:
    """Return how the weight of each key truly changed between two spans of days.

    Returns:
        1 for each key whose mean weight rose by more than STEADY_FACTOR, -1 if it fell by more than that, else 0.
    """

    def mean(days: list[int]) -> Floats:
        traffic = demand.traffic[days]
        weight: Floats = traffic @ demand.weights[key_type][days] / traffic.sum()
        return weight

    old, new = mean(list(before)), mean(list(now))
    return (new > STEADY_FACTOR * old).astype(np.int64) - (old > STEADY_FACTOR * new)


def _sum_by_group(days: npt.NDArray[Number], group: Ints) -> npt.NDArray[Number]:
    """Add up the columns of a matrix that belong to the same group, and ignore the columns of group -1."""
    members = np.flatnonzero(group >= 0)
    order = members[np.argsort(group[members], kind="stable")]
    present, begins = np.unique(group[order], return_index=True)
    summed = np.zeros((len(days), int(group.max()) + 1), days.dtype)
    summed[:, present] = np.add.reduceat(days[:, order], begins, axis=1)
    return summed
