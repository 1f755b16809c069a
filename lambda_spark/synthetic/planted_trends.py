"""Chooses the planted trends and planted pairs of the made-up store.

The jobs that compute trends and similar products should find them again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lambda_spark.synthetic.catalogue import Catalogue
from lambda_spark.synthetic.model import Floats, Ints, StoreSettings, Stream

Of = Literal["product", "category", "brand"]
What = Literal["rising", "waning", "new", "vanished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTrend:
    """A planned change of the demand for some products of the made-up store, which begins on a Monday."""

    of: Of
    key: int | str
    """The product id, category code or brand whose products have the trend."""
    what: What
    week: int
    """Index of the week in which the trend begins."""
    strength: float | None
    """Factor by which demand changes. None for new products, which have no demand before the trend."""
    members: Ints
    """Indices in the catalogue of the products whose demand changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedPair:
    """Two products, given by their indices, that visitors often view together. Some pairs are also bought together."""

    a: int
    b: int
    bought: bool
    """Whether visitors often buy the two products together, and do not only view them together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plants:
    """All planted trends and planted pairs of a store. Each product takes part in at most one of them."""

    trends: list[PlantedTrend]
    pairs: list[PlantedPair]


# Each entry describes one planted trend by three values. They are its kind, the factor by which demand changes, and how
# many weeks before the last complete week it begins. The first entry goes to the chosen product with the most demand,
# the second entry to the next product, and so on. Waning trends come first, because they need demand to lose. Also,
# small counts vary much by chance, which would hide a waning trend.
PRODUCT_PLANTS: tuple[tuple[What, float | None, int], ...] = (
    ("waning", 0.15, 0), ("vanished", 0.0, 0), ("waning", 0.1, 1), ("waning", 0.1, 0), ("vanished", 0.0, 2),
    ("waning", 0.05, 2), ("new", None, 0), ("new", None, 1), ("rising", 4.0, 0), ("rising", 5.0, 2),
    ("rising", 5.0, 0), ("rising", 6.0, 1), ("rising", 6.0, 0), ("rising", 8.0, 0), ("rising", 8.0, 0),
)  # fmt: skip
CATEGORY_PLANTS: tuple[tuple[What, float, int], ...] = (
    ("waning", 0.25, 0), ("rising", 3.0, 0), ("waning", 0.25, 2), ("rising", 3.5, 1),
)  # fmt: skip
BRAND_PLANTS: tuple[tuple[What, float, int], ...] = (("waning", 0.25, 0), ("rising", 3.5, 0))
VIEWED_PAIRS, BOUGHT_PAIRS = 6, 5


def plants(settings: StoreSettings, goods: Catalogue) -> Plants:
    """Choose the planted trends and planted pairs.

    The chosen products have enough demand for their trend or pair to be visible. Each product takes part in at most one
    trend or pair.

    Args:
        settings: Settings of the store.
        goods: The store's catalogue.

    Returns:
        The planted trends and planted pairs.
    """
    rng = settings.random(Stream.PLANTS)
    free = (goods.arrives == 0) & (goods.leaves == settings.days)
    trends: list[PlantedTrend] = []

    def plant(of: Of, key: int | str, what: What, strength: float | None, back: int, members: Ints) -> None:
        # Begin no trend in the store's first week, because no earlier week exists to compare with. Without this limit,
        # a store of three weeks would have trends in its first week.
        week = max(1, settings.last_complete_week - back)
        trends.append(PlantedTrend(of=of, key=key, what=what, week=week, strength=strength, members=members))
        free[members] = False

    # Plant category trends by category code, because several categories may share a code. Leave out the first two
    # codes, which belong to the most visited categories.
    of_code = defaultdict(list)
    for index, code in enumerate(goods.category_code):
        if code is not None:
            of_code[code].append(index)
    codes = rng.permutation(list(of_code)[2:7]).tolist()
    for (what, factor, back), code in zip(CATEGORY_PLANTS, codes, strict=False):
        plant("category", code, what, factor, back, np.flatnonzero(np.isin(goods.category, of_code[code])))

    # Plant brand trends in the brands with the most demand, except the first. A product is free if it has no trend yet
    # and is on sale on all days. Leave out brands with more than a tenth of their demand in products that are not free.
    demand = np.bincount(goods.brand + 1, goods.weight, len(goods.brands) + 1)[1:]
    is_affected = np.bincount(goods.brand + 1, goods.weight * ~free, len(goods.brands) + 1)[1:] > 0.1 * demand
    strongest = np.argsort(np.where(is_affected, 0, -demand), kind="stable")[1:].tolist()
    for (what, factor, back), brand in zip(BRAND_PLANTS, strongest, strict=False):
        plant("brand", goods.brands[brand], what, factor, back, np.flatnonzero((goods.brand == brand) & free))

    # Plant product trends in the free products with the most demand, except the first three. Then plant pairs among the
    # free products that come next by demand.
    ranked = np.flatnonzero(free)[np.argsort(-goods.weight[free], kind="stable")][3:]
    changing = _some(ranked, len(PRODUCT_PLANTS), max(5, len(ranked) // 200), rng)
    for (what, strength, back), product in zip(PRODUCT_PLANTS, changing.tolist(), strict=True):
        plant("product", int(goods.product_id[product]), what, strength, back, np.array([product]))
    ranked = ranked[np.flatnonzero(ranked == changing[-1])[0] + 1 :]
    paired = _some(ranked, 2 * (VIEWED_PAIRS + BOUGHT_PAIRS), max(8, len(ranked) // 100), rng).tolist()
    pairs = [
        PlantedPair(a=a, b=b, bought=number < BOUGHT_PAIRS)
        for number, (a, b) in enumerate(zip(paired[0::2], paired[1::2], strict=True))
    ]
    return Plants(trends=trends, pairs=pairs)


def _some(ranked: Ints, count: int, spare: int, rng: np.random.Generator) -> Ints:
    """Choose `count` products at random from the first `count + spare` of a ranking, and keep the ranking's order."""
    return ranked[np.sort(rng.permutation(count + spare)[:count])]


def weights_on(day: int, goods: Catalogue, planted: Plants) -> Floats:
    """Compute the demand for every product of the store on one day.

    A product has demand only while it is on sale. Planted trends multiply the demand for their products by a factor.

    Args:
        day: Index of the day.
        goods: The store's catalogue.
        planted: The planted trends.

    Returns:
        A weight for each product. The weights add up to 1 if all products are on sale and no trend is planted.
    """
    weight = np.where((goods.arrives <= day) & (day < goods.leaves), goods.weight, 0.0)
    for trend in planted.trends:
        begun = day // 7 >= trend.week
        if trend.strength is None:
            weight[trend.members] *= begun
        elif begun:
            weight[trend.members] *= trend.strength
    return weight
