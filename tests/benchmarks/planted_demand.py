"""Views per day of made-up stores in which every trend is known: for measuring how well trends are found.

The events are those of the store generator, sessions and regulars and all, so counts vary as much as there. Into a
store that grows, has weekdays, a sale day, arrivals, departures and an unfinished last week, trends of known strength
are planted from every Monday but the first on. The truth is what happened to the weights behind the events.
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

Kind = tuple[What, float | None, int]
RISE = ("rising", "new")
PER_WEEK = 10
"""Products that begin to rise, and to wane, on a Monday."""
STEADY = 1.1
"""What changed by a smaller factor than this, up or down, is steady: nearly all products did not change at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedDemand:
    """One store. Products, categories and brands are numbered."""

    first_day: np.datetime64
    traffic: Ints
    """Views by day, of whatever product."""
    views: dict[Of, Ints]
    """Views by day and key; those of products without a brand are in `traffic` only."""
    weights: dict[Of, Floats]
    """What drives the views, by day and key: constant where nothing happens, whatever the traffic."""
    planted: dict[Of, list[tuple[int, int, int]]]
    """(week, key, 1 for rising or -1 for waning)."""

    @property
    def days(self) -> int:
        """Days of history."""
        return len(self.traffic)


def trend_store(seed: int) -> StoreSettings:
    """A store of 3,000 products and half a million events; the sale is on the Thursday of its fourth week."""
    return StoreSettings(seed=seed, events=500_000, products=3_000, sale_day=24)


def planted_demand(settings: StoreSettings) -> PlantedDemand:
    """Make a store's views."""
    goods = catalogue(settings)
    plants = plant_trends(settings, goods)
    plan = chunks(settings)
    who = visitors(settings, goods, plan)
    views = np.zeros((settings.days, settings.product_count), np.int64)
    weights = np.stack([weights_on(day, goods, plants) for day in range(settings.days)])
    for chunk in plan:
        day = day_of(chunk.day, settings, goods, plants, who)
        made = sessions(chunk, day, goods, plants, who, settings.random(Stream.EVENTS, chunk.index))
        views[chunk.day] += np.bincount(made.product[made.kind == VIEW], minlength=settings.product_count)
    groups: dict[Of, Ints] = {
        "product": np.arange(settings.product_count), "category": goods.category, "brand": goods.brand
    }  # fmt: skip
    return PlantedDemand(
        first_day=np.datetime64(settings.start),
        traffic=views.sum(axis=1),
        views={of: _by_group(views, group) for of, group in groups.items()},
        weights={of: _by_group(weights, group) for of, group in groups.items()},
        planted={
            of: [
                (trend.week, int(trend.key), 1 if trend.what in RISE else -1)
                for trend in plants.trends
                if trend.of == of
            ]
            for of in get_args(Of)
        },
    )


def plant_trends(settings: StoreSettings, goods: Catalogue) -> Plants:
    """From every Monday but the first: PER_WEEK products of the head of the store rise and as many wane, and so do one
    category (in even weeks) or brand (in odd ones) each way, as strongly as the generator plants them. Nothing takes
    part in two plants; keys are numbers."""
    rng = settings.random(Stream.PLANTS)
    weeks = range(1, -(-settings.days // 7))
    free = (goods.arrives == 0) & (goods.leaves == settings.days)
    trends: list[PlantedTrend] = []

    def plant(of: Of, key: int, week: int, kind: Kind, members: Ints) -> None:
        what, strength, _ = kind
        trends.append(PlantedTrend(of=of, key=key, what=what, week=week, strength=strength, members=members))
        free[members] = False

    # Not the very first ones: whatever moves those moves the whole store.
    categories = iter(rng.permutation(np.argsort(-goods.usual)[8:30]).tolist())
    brand_weight = np.bincount(goods.brand + 1, goods.weight)[1:]
    brands = iter(rng.permutation(np.argsort(-brand_weight)[8:30]).tolist())
    for week in weeks:
        for is_rise in (True, False):
            if week % 2 == 0:
                key = next(categories)
                kind = _kinds(CATEGORY_PLANTS, is_rise)[week // 2 % 2]
                plant("category", key, week, kind, np.flatnonzero((goods.category == key) & free))
            else:
                key = next(brands)
                plant("brand", key, week, _kinds(BRAND_PLANTS, is_rise)[0], np.flatnonzero((goods.brand == key) & free))
    head = np.flatnonzero(free)[np.argsort(-goods.weight[free], kind="stable")][3:]
    wanted = 2 * PER_WEEK * len(weeks)
    products = iter(rng.permutation(head[: wanted + wanted // 3]).tolist())
    for week in weeks:
        for is_rise in (True, False):
            kinds = _kinds(PRODUCT_PLANTS, is_rise)
            for number in range(PER_WEEK):
                key = next(products)
                plant("product", key, week, kinds[number % len(kinds)], np.array([key]))
    return Plants(trends=trends, pairs=[])


def _kinds(plants: Sequence[Kind], is_rise: bool) -> list[Kind]:
    return [kind for kind in plants if (kind[0] in RISE) == is_rise]


def true_changes(demand: PlantedDemand, of: Of, before: Iterable[int], now: Iterable[int]) -> Ints:
    """1 for each key whose weight rose from some days to others by more than STEADY, -1 where it fell so, else 0."""

    def mean(days: list[int]) -> Floats:
        traffic = demand.traffic[days]
        weight: Floats = traffic @ demand.weights[of][days] / traffic.sum()
        return weight

    old, new = mean(list(before)), mean(list(now))
    return (new > STEADY * old).astype(np.int64) - (old > STEADY * new)


def _by_group(days: npt.NDArray[Number], group: Ints) -> npt.NDArray[Number]:
    """The columns of a matrix summed by group; columns of the group -1 are left out."""
    members = np.flatnonzero(group >= 0)
    order = members[np.argsort(group[members], kind="stable")]
    present, begins = np.unique(group[order], return_index=True)
    summed = np.zeros((len(days), int(group.max()) + 1), days.dtype)
    summed[:, present] = np.add.reduceat(days[:, order], begins, axis=1)
    return summed
