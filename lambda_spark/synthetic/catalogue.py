"""Makes up the store's catalogue: categories, families of products that are viewed together, and all products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lambda_spark.synthetic.model import Floats, Ints, StoreSettings, Stream, shares

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
"""Typical price of a product by category code. The codes go from the most to the least visited category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All products of the store, in arrays with one entry per product or per category.

    The products are ordered by category and family. So each category and each family is a range of product indices.
    """

    product_id: Ints
    category: Ints
    """Index of each product's category."""
    category_range: Ints
    """Range of products in each product's category, in two rows with a column for each product.

    The first row holds the index of the category's first product. The second row holds the index after the category's
    last product.
    """
    family_range: Ints
    """Range of products in each product's family, in two rows like those of `category_range`.

    A family is about eight products that are viewed together.
    """
    weight: Floats
    """Share of each product in the store's demand without planted trends. The shares add up to 1."""
    usual: Floats
    """Share of each category in the store's demand without planted trends. The shares add up to 1."""
    brand: Ints
    """Index of each product's brand in the list `brands`. -1 stands for a product without a brand."""
    cents: Ints
    """Regular price of each product in cents. 0 stands for a product without a price."""
    arrives: Ints
    """Index of the first day on which each product is on sale."""
    leaves: Ints
    """Index of the first day on which each product is no longer on sale."""
    category_id: Ints
    category_code: list[str | None]
    brands: list[str]


def ranges(key: Ints) -> Ints:
    """Find where the group of each array element begins and ends.

    Args:
        key: The group of each element. The elements of a group stand next to one another.

    Returns:
        Two rows with a column for each element. The first row holds the index of the first element in the same group.
            The second row holds the index after the last element in the same group.
    """
    _, begin, group, size = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return np.stack([begin[group], (begin + size)[group]])


def catalogue(settings: StoreSettings) -> Catalogue:
    """Make up the store's catalogue at random.

    Popularity follows Zipf's law among the categories and among the products of each category.

    Args:
        settings: Settings of the store. Only the seed, the days and the number of products matter here.

    Returns:
        The catalogue.
    """
    rng = settings.random(Stream.CATALOGUE)
    n = settings.product_count
    n_categories = min(max(12, round(1.9 * math.sqrt(n))), 600)
    demand = (np.arange(n_categories) + 1.0) ** -0.9
    sizes = 4 + shares(n - 4 * n_categories, demand**0.6)
    category = np.repeat(np.arange(n_categories), sizes)
    category_range = ranges(category)
    position = np.arange(n) - category_range[0]
    # Give every family both popular and rare products. A product's rank is its place in its category by popularity.
    # Family number f gets the products with the ranks f, f + families, f + 2 * families and so on.
    families = np.maximum(sizes // 8, 1)[category]
    order = np.lexsort((position, position % families, category))
    rank = position[order]
    family_range = ranges(category * n + rank % families)
    weight = 1.0 / (rank + 1.0)
    usual = demand / demand.sum()
    weight *= (usual / np.bincount(category, weight))[category]

    # Choose ids that are about as large as the ids in the REES46 data. Each category has its own block of product ids.
    # Each product gets a random place in the block, whether it is popular or not.
    block = max(100_000, 2 * int(sizes.max()))
    spread = np.lexsort((rng.random(n), category)) - category_range[0]
    step = np.maximum(1, np.minimum(40, block // sizes))[category]
    product_id = 1_000_000 + rng.permutation(n_categories)[category] * block + spread * step + rng.integers(0, step)
    category_id = 2_053_013_552_000_000_000 + np.cumsum(rng.integers(10**6, 6 * 10**7, n_categories))

    # Leave some categories without a category code. They have about a third of the demand. If there are more categories
    # than codes, several categories share a code.
    codes = list(CATEGORIES)
    coded = [None if index % 5 in (2, 4) else index for index in range(n_categories)]
    numbers = {index: number for number, index in enumerate(index for index in coded if index is not None)}
    category_code = [None if index is None else codes[numbers[index] % len(codes)] for index in coded]
    typical = np.array([CATEGORIES[code] if code else 20 + 180 * rng.random() ** 2 for code in category_code])
    cents = np.rint(100 * typical[category] * np.exp(0.5 * rng.standard_normal(n))).astype(np.int64)
    cents[(rng.random(n) < 0.004) & (rank > 9)] = 0  # the real store also has a few products without a price

    brands = _brand_names(rng, max(24, n_categories * 3 // 2))
    carried = (len(brands) * rng.random((n_categories, 6)) ** 1.5).astype(np.int64)
    brand = carried[category, (6 * rng.random(n) ** 2).astype(np.int64)]
    brand[rng.random(n) < 0.14] = -1

    # Let one product in twelve go on sale after the first day, and take one in twenty off sale before the end.
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
    """Invent `count` brand names, all different."""
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
