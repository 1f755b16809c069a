"""What is planted in the store, the truth that trends and similarity are measured by."""

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
    """From the Monday of a week on, demand for some products is another than before."""

    of: Of
    key: int | str
    """The product id, category code or brand."""
    what: What
    week: int
    strength: float | None
    """The factor on demand; null for what is new."""
    members: Ints
    """The products, by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedPair:
    """Two products, by index, that belong together."""

    a: int
    b: int
    bought: bool
    """Bought together as well as viewed together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plants:
    """All that is planted. No product takes part in two plants."""

    trends: list[PlantedTrend]
    pairs: list[PlantedPair]


# What is planted: the kind, the factor on demand, and how many weeks before the last complete one it begins. Products
# take these from the most demanded on: what wanes needs something to lose, and chance is great where counts are small.
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
    """Choose what is planted among products with enough demand to show it, and apart from one another."""
    rng = settings.random(Stream.PLANTS)
    free = (goods.arrives == 0) & (goods.leaves == settings.days)
    trends: list[PlantedTrend] = []

    def plant(of: Of, key: int | str, what: What, strength: float | None, back: int, members: Ints) -> None:
        # In a store of three weeks, "two weeks before" would be the first, which has nothing before it.
        week = max(1, settings.last_complete_week - back)
        trends.append(PlantedTrend(of=of, key=key, what=what, week=week, strength=strength, members=members))
        free[members] = False

    # Categories by code (several may share one), from the head of the store but for its very first.
    of_code = defaultdict(list)
    for index, code in enumerate(goods.category_code):
        if code is not None:
            of_code[code].append(index)
    codes = rng.permutation(list(of_code)[2:7]).tolist()
    for (what, factor, back), code in zip(CATEGORY_PLANTS, codes, strict=False):
        plant("category", code, what, factor, back, np.flatnonzero(np.isin(goods.category, of_code[code])))

    # Brands that hardly sell in a planted category: the strongest after the first.
    demand = np.bincount(goods.brand + 1, goods.weight, len(goods.brands) + 1)[1:]
    mingled = np.bincount(goods.brand + 1, goods.weight * ~free, len(goods.brands) + 1)[1:] > 0.1 * demand
    strongest = np.argsort(np.where(mingled, 0, -demand), kind="stable")[1:].tolist()
    for (what, factor, back), brand in zip(BRAND_PLANTS, strongest, strict=False):
        plant("brand", goods.brands[brand], what, factor, back, np.flatnonzero((goods.brand == brand) & free))

    # Products from the head of what is free, but for the strongest few; then pairs from those next in demand.
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
    """So many from the first, in their order, leaving out a few."""
    return ranked[np.sort(rng.permutation(count + spare)[:count])]


def weights_on(day: int, goods: Catalogue, planted: Plants) -> Floats:
    """The demand for every product on one day: none before it arrives and after it leaves, and the planted factors."""
    weight = np.where((goods.arrives <= day) & (day < goods.leaves), goods.weight, 0.0)
    for trend in planted.trends:
        begun = day // 7 >= trend.week
        if trend.strength is None:
            weight[trend.members] *= begun
        elif begun:
            weight[trend.members] *= trend.strength
    return weight
