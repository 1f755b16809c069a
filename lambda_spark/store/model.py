"""A small but lifelike online store: its catalogue, its visitors, what is planted in it, and its events.

Demand has one source: every product has a weight on every day, and every choice below (which regular visits, in which
category a session starts, which product comes next) is made in proportion to these weights. A planted trend is a factor
on weights from one Monday on, so demand changes by that very factor, compared with all that is not planted, but for
chance. Chance is greater than for independent events: sessions see a thing several times, and some users come often.

    catalogue (categories ⊃ families ⊃ products, Zipf)  ─┐
    plants (factors on weights, partners)               ─┼─► events: visitors, sessions, delivery
    chunks (days, or parts of very busy days)           ─┘

Random numbers come from streams seeded by (seed, stream, chunk), so a chunk's sessions are the same whatever was made
before them, and the cut into chunks depends on the settings alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Of = Literal["product", "category", "brand"]
What = Literal["rising", "waning", "new", "vanished"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# What the store sells and a typical price, from the most to the least visited.
CATEGORIES: dict[str, int] = {
    "electronics.smartphone": 320, "computers.notebook": 610, "electronics.audio.headphone": 70,
    "electronics.video.tv": 380, "appliances.environment.vacuum": 130, "electronics.clocks": 190,
    "appliances.kitchen.washer": 310, "apparel.shoes": 75, "appliances.kitchen.refrigerators": 420,
    "electronics.tablet": 210, "furniture.bedroom.bed": 260, "auto.accessories.player": 85,
    "kids.toys": 25, "furniture.living_room.sofa": 450, "computers.desktop": 540,
    "apparel.shoes.keds": 60, "appliances.kitchen.microwave": 90, "sport.bicycle": 240,
    "accessories.bag": 55, "appliances.personal.hair_cutter": 30, "construction.tools.drill": 85,
    "electronics.telephone": 35, "kids.carriage": 190, "appliances.iron": 40,
    "appliances.kitchen.blender": 55, "computers.peripherals.printer": 160, "auto.accessories.videoregister": 110,
    "furniture.living_room.cabinet": 170, "apparel.jacket": 65, "computers.peripherals.mouse": 25,
    "appliances.kitchen.kettle": 35, "electronics.camera.photo": 480, "appliances.environment.air_heater": 45,
    "computers.components.videocards": 340, "furniture.kitchen.table": 120, "apparel.dress": 40,
    "appliances.kitchen.hood": 95, "computers.peripherals.monitor": 220, "sport.trainer": 330,
    "appliances.kitchen.oven": 290, "auto.accessories.alarm": 115, "apparel.jeans": 50,
    "electronics.audio.subwoofer": 130, "construction.tools.saw": 140, "kids.skates": 45,
    "appliances.sewing_machine": 180, "furniture.bedroom.blanket": 35, "computers.peripherals.keyboard": 40,
    "apparel.tshirt": 20, "appliances.kitchen.coffee_machine": 270, "accessories.umbrella": 20,
    "electronics.audio.acoustic": 95, "stationery.cartrige": 30, "apparel.costume": 110,
    "computers.components.memory": 60, "appliances.environment.air_conditioner": 310, "sport.ski": 200,
    "furniture.bathroom.bath": 230, "kids.swing": 70, "appliances.kitchen.mixer": 45,
    "apparel.shoes.sandals": 35, "construction.components.faucet": 65, "auto.accessories.compressor": 40,
    "computers.components.cpu": 230, "appliances.kitchen.dishwasher": 400, "accessories.wallet": 35,
    "electronics.video.projector": 360, "apparel.underwear": 15, "appliances.personal.massager": 60,
    "country_yard.lawn_mower": 210, "sport.snowboard": 250, "medicine.tools.tonometer": 40,
}  # fmt: skip

WEEKDAYS = (0.97, 0.96, 0.97, 0.99, 1.05, 1.06, 1.02)
"""Relative traffic from Monday to Sunday."""

SALE = 3.0
"""Traffic on the day of a sale, relative to what the day would have had."""
CHUNK_EVENTS = 400_000
"""A day with more events than this is made in parts, so that memory stays bounded however big the store."""
ONE_OFFS = 0.6
"""Share of the users who come once and never again."""


class Stream(IntEnum):
    """What a stream of random numbers is for: separate streams keep one part's draws from moving another's."""

    CATALOGUE, VISITORS, PLANTS, PRICES, EVENTS, DELIVERY, BROKEN = range(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What kind of store. The same settings give the same store."""

    events: int = 28_000
    """Distinct valid events: exactly as many are made; repeats and broken lines come on top."""
    seed: int = 7
    """Names one store among all alike."""
    days: int = 45
    """Days of history. 45 is six weeks and three days, so that the last 7-day bucket is not over yet."""
    start: date = date(2019, 9, 30)
    """The first day: a Monday, as 7-day buckets begin on Mondays."""
    users: int | None = None
    """Users; by default in proportion to the events, so that 197 thousand come to be seen in 5 million."""
    products: int | None = None
    """Products; by default 52 thousand for 5 million events, growing more slowly than the events do."""
    weekly_growth: float = 0.02
    """By how much traffic grows from week to week."""
    sale_day: int | None = None
    """The day of a sale, by its index; by default there is none."""
    late_share: float = 0.004
    """Share of events that are delivered at least a week late. (None can be late in the last days: nothing follows.)"""
    repeat_share: float = 0.006
    """Share of events that are delivered twice, half of them at once and half of them a week or more later."""
    broken_share: float = 0.001
    """Lines that cannot be read, as a share of the events. CSV only."""

    def __post_init__(self) -> None:
        """Refuse settings that make no store, with a line that says what is possible."""
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
        """Users, in proportion to the events unless they are given."""
        return self.users if self.users is not None else max(20, round(self.events * 0.0406))

    @property
    def product_count(self) -> int:
        """Products; by default a store with ten times the events has eight times the products."""
        return self.products if self.products is not None else max(200, round(52_000 * (self.events / 5e6) ** 0.9))

    @property
    def last_complete_week(self) -> int:
        """The index of the last whole week."""
        return self.days // 7 - 1

    def day(self, index: int) -> date:
        """The date of a day by its index."""
        return self.start + timedelta(days=index)

    def random(self, stream: Stream, chunk: int = 0) -> np.random.Generator:
        """The random numbers for one purpose and one chunk."""
        return np.random.default_rng([self.seed, stream, chunk])


# --- How much of what -------------------------------------------------------------------------------------------------


def shares(total: int, weights: npt.NDArray[np.floating]) -> Ints:
    """Split a whole number in proportion to weights into whole numbers that add up to it."""
    bounds = np.rint(np.cumsum(weights) / np.sum(weights) * total).astype(np.int64)
    parts: Ints = np.diff(bounds, prepend=0)
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What is made at once: the sessions that begin in one stretch of one day."""

    index: int
    day: int
    stretch: tuple[float, float]
    """Where in the day, as shares of its traffic: (0, 1) is the whole day."""
    events: int
    one_offs: tuple[int, int]
    """The users, by index, who come once: in this chunk."""


def chunks(settings: StoreSettings) -> list[Chunk]:
    """The store cut into chunks, in order of time. Depends on the settings alone."""
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


# --- The catalogue ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Products laid out by category and family, so that each of these is a range of indices."""

    product_id: Ints
    category: Ints
    """Index of the product's category."""
    category_range: Ints
    """Two rows: begin and end of the product's category."""
    family_range: Ints
    """Two rows: begin and end of the product's family, some eight products that are looked at together."""
    weight: Floats
    """Demand when nothing happens; adds up to 1."""
    usual: Floats
    """The same by category."""
    brand: Ints
    """Index into brands; -1 is none."""
    cents: Ints
    arrives: Ints
    """First day on sale."""
    leaves: Ints
    """First day no longer on sale."""
    category_id: Ints
    category_code: list[str | None]
    brands: list[str]


def ranges(key: Ints) -> Ints:
    """For each element of a grouped array, begin and end of its group, as two rows."""
    _, begin, group, size = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return np.stack([begin[group], (begin + size)[group]])


def catalogue(settings: StoreSettings) -> Catalogue:
    """Make up what the store sells. Popularity follows Zipf's law among categories and within each of them."""
    rng = settings.random(Stream.CATALOGUE)
    n = settings.product_count
    n_categories = min(max(12, round(1.9 * math.sqrt(n))), 600)
    demand = (np.arange(n_categories) + 1.0) ** -0.9
    sizes = 4 + shares(n - 4 * n_categories, demand**0.6)
    category = np.repeat(np.arange(n_categories), sizes)
    category_range = ranges(category)
    position = np.arange(n) - category_range[0]
    # Every family gets its part of popular and of rare products: ranks f, f + families, f + 2 * families, ...
    families = np.maximum(sizes // 8, 1)[category]
    order = np.lexsort((position, position % families, category))
    rank = position[order]
    family_range = ranges(category * n + rank % families)
    weight = 1.0 / (rank + 1.0)
    usual = demand / demand.sum()
    weight *= (usual / np.bincount(category, weight))[category]

    # Identifiers in the magnitudes of REES46: each category has its own block, popular products anywhere in it.
    block = max(100_000, 2 * int(sizes.max()))
    spread = np.lexsort((rng.random(n), category)) - category_range[0]
    step = np.maximum(1, np.minimum(40, block // sizes))[category]
    product_id = 1_000_000 + rng.permutation(n_categories)[category] * block + spread * step + rng.integers(0, step)
    category_id = 2_053_013_552_000_000_000 + np.cumsum(rng.integers(10**6, 6 * 10**7, n_categories))

    # A third of the demand has no category code; where categories outnumber the codes, some share one.
    codes = list(CATEGORIES)
    coded = [None if index % 5 in (2, 4) else index for index in range(n_categories)]
    numbers = {index: number for number, index in enumerate(index for index in coded if index is not None)}
    category_code = [None if index is None else codes[numbers[index] % len(codes)] for index in coded]
    typical = np.array([CATEGORIES[code] if code else 20 + 180 * rng.random() ** 2 for code in category_code])
    cents = np.rint(100 * typical[category] * np.exp(0.5 * rng.standard_normal(n))).astype(np.int64)
    cents[(rng.random(n) < 0.004) & (rank > 9)] = 0  # the real store, too, has a few products without a price

    brands = _brand_names(rng, max(24, n_categories * 3 // 2))
    carried = (len(brands) * rng.random((n_categories, 6)) ** 1.5).astype(np.int64)
    brand = carried[category, (6 * rng.random(n) ** 2).astype(np.int64)]
    brand[rng.random(n) < 0.14] = -1

    # The assortment turns over: one product in twelve arrives after the opening, one in twenty leaves.
    arrives = np.where(rng.random(n) < 1 / 12, rng.integers(1, settings.days, n), 0)
    leaves = np.where(rng.random(n) < 1 / 20, rng.integers(settings.days // 2, settings.days, n), settings.days)
    stays = (arrives > 0) & (leaves < settings.days)
    leaves[stays] = settings.days
    return Catalogue(
        product_id=product_id, category=category, category_range=category_range, family_range=family_range,
        weight=weight, usual=usual, brand=brand, cents=cents, arrives=arrives, leaves=leaves, category_id=category_id,
        category_code=category_code, brands=brands,
    )  # fmt: skip


def _brand_names(rng: np.random.Generator, count: int) -> list[str]:
    """Invented brands, all different."""
    begin = [
        "al", "bel", "cor", "dal", "el", "fen", "gor", "hal", "in", "jor", "kel", "lum", "mar",
        "nor", "or", "pel", "ras", "sol", "tor", "ul", "vel", "win", "xan", "yor", "zen",
    ]  # fmt: skip
    middle = ["", "a", "e", "i", "o", "an", "er", "is", "or", "ur"]
    end = [
        "ba", "da", "dex", "ka", "la", "lux", "mo", "na", "net",
        "nix", "ra", "sa", "tek", "ta", "via", "vo", "wa", "zo",
    ]  # fmt: skip
    names = list(dict.fromkeys(a + b + c for a in begin for b in middle for c in end))
    return [names[index] for index in rng.permutation(len(names))[:count]]


# --- The planted truth ------------------------------------------------------------------------------------------------


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
