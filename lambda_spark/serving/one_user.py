"""Makes the recommendations of one user quickly, with the same rows as the serving job would write for this user.

The serving job uses one large query for all users, and Spark takes seconds to plan this query. This module is faster,
because small queries fetch only the rows that the user's profile needs. Python then ranks a few hundred candidates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lambda_spark.ids import Id
from lambda_spark.serving import reasons
from lambda_spark.serving.catalogue import (
    CATEGORY_FILL_DEPTH,
    FILL_DEPTH,
    category,
    first_of_all,
    first_of_each_category,
    in_demand,
    is_eligible,
    trending_products,
)
from lambda_spark.serving.inputs import Views
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.recommendations import POSITION_BITS, Tier, points_of_value, score_of
from lambda_spark.settings import RecommendationSettings


@dataclass(frozen=True, slots=True)
class _Entry:
    """A product that may be in the user's list."""

    order: tuple[int, int, int]
    """Sort key, the best first: the tier (see `Tier`), a profile item's position, and the place within both."""
    product_id: Id
    score: float | None = None
    because_of: Row | None = None
    """The product of the user's profile that contributes most to the score."""


def for_user(views: Views, settings: RecommendationSettings, user_id: Id) -> list[Row]:
    """Make the list of one user, even of an inactive one. A user without interactions gets the products most in demand.

    Args:
        views: The tables that serving reads.
        settings: What may be in the list.
        user_id: The user.

    Returns:
        Rows with the columns of `recommendations`, by rank.

    Raises:
        UsageError: `recommendations.filter` is no condition on products.
    """
    with ThreadPoolExecutor(1) as background:
        # Run this query in parallel with the next ones. Small queries mostly plan, which leaves cores idle.
        trending_rows = background.submit(copy_context().run, trending_products(views.trends).collect)
        touched = profiles(views.events.where(F.col("user_id") == user_id), settings).collect()
        items = sorted((row for row in touched if row.position is not None), key=lambda row: int(row.position))
        similar = _similar(views, items)
        product_ids = {row.product_id for row in touched} | {row.similar_product_id for row in similar}
        products = _products(views, settings, product_ids)
    trending = {row.product_id: row for row in trending_rows.result()}

    barred = {row.product_id for row in touched if row.bought or settings.repeat == "exclude"}
    barred |= {product_id for product_id, product in products.items() if not product.eligible}
    candidates = _candidates([item for item in items if item.product_id in products], similar, settings)
    usable = {
        product_id: candidate
        for product_id, candidate in candidates.items()
        if product_id in products and product_id not in barred
    }
    entries = _limit_categories(_scored(usable, trending, settings), products, settings)[: settings.list_length]
    if len(entries) < settings.list_length:
        categories = [products[item.product_id].category if item.product_id in products else None for item in items]
        in_demand_rows = _most_in_demand(views, settings, {name for name in categories if name is not None})
        products |= in_demand_rows
        fills = _fills(categories, list(in_demand_rows.values()))
        left_out = barred | {entry.product_id for entry in entries}
        entries += [fill for fill in fills if fill.product_id not in left_out]
        entries = _limit_categories(entries, products, settings)[: settings.list_length]

    own = {item.product_id for item in items} if settings.repeat == "boost" else set()
    lines = []
    for rank, entry in enumerate(entries, 1):
        product, trend = products[entry.product_id], trending.get(entry.product_id)
        is_own = entry.product_id in own and entry.order[0] == Tier.SCORED
        line = Row(
            user_id=user_id,
            rank=rank,
            product_id=entry.product_id,
            category_code=product.category_code,
            brand=product.brand,
            price=product.price,
            score=entry.score,
            reason=reasons.STILL_INTERESTED if is_own else _reason(entry, product, trend, views),
            because_of=entry.because_of and entry.because_of.product_id,
            trend_growth=trend.growth if trend else 0.0,
            **views.version_columns,
        )
        lines.append(line)
    return lines


def _similar(views: Views, items: list[Row]) -> list[Row]:
    """Fetch the products similar to those of a profile: product_id, similar_product_id, score."""
    is_of_profile = F.col("product_id").isin([item.product_id for item in items])
    neighbours = views.similar_items.where((F.col("relation") == "viewed") & is_of_profile)
    return neighbours.select("product_id", "similar_product_id", "score").collect()


def _products(views: Views, settings: RecommendationSettings, product_ids: set[Id]) -> dict[Id, Row]:
    rows = _product_rows(views, settings).where(F.col("product_id").isin(sorted(product_ids)))
    return {row.product_id: row for row in rows.collect()}


def _product_rows(views: Views, settings: RecommendationSettings) -> DataFrame:
    """Select each product's id, category_code, brand, price, category, and eligible (whether lists may hold it)."""
    eligible = F.coalesce(is_eligible(views.products, settings), F.lit(False))
    return views.products.select(
        "product_id", "category_code", "brand", "price", category().alias("category"), eligible.alias("eligible")
    )


def _most_in_demand(views: Views, settings: RecommendationSettings, categories: set[str]) -> dict[Id, Row]:
    """Fetch the products most in demand in the store and in the given categories, the largest share of demand first."""
    shares = in_demand(views.demand)
    eligible = _product_rows(views, settings).where("eligible").join(shares, on="product_id", how="inner")
    near = eligible.where(F.col("category").isin(sorted(categories)))
    first = first_of_all(eligible).union(first_of_each_category(near)) if categories else first_of_all(eligible)
    return {row.product_id: row for row in sorted(first.collect(), key=lambda row: (-row.share, row.product_id))}


def _candidates(items: list[Row], similar: list[Row], settings: RecommendationSettings) -> dict[Id, tuple[int, Row]]:
    """Sum each product's points, and find the profile item that gives the product most points.

    Of profile items that give equal points, the latest wins.
    """
    points: Counter[Id] = Counter()
    top_contributors: dict[Id, tuple[int, Row]] = {}
    neighbours = defaultdict(list)
    for product_id, similar_product_id, score in similar:
        neighbours[product_id].append((similar_product_id, score))
    for item in items:
        itself = [(item.product_id, settings.repeat_weight)] if settings.repeat == "boost" else []
        for product_id, similarity in itself + neighbours[item.product_id]:
            given = points_of_value(item.weight * similarity)
            points[product_id] += given
            # Ignore the last bits of points, because recommendations.py stores the position in these bits.
            coarse = given >> POSITION_BITS
            if given > 0 and coarse > top_contributors.get(product_id, (-1, item))[0]:
                top_contributors[product_id] = (coarse, item)
    return {product_id: (points[product_id], item) for product_id, (_, item) in top_contributors.items()}


def _scored(
    candidates: dict[Id, tuple[int, Row]], trending: dict[Id, Row], settings: RecommendationSettings
) -> list[_Entry]:
    """Turn candidates into list entries, the best score first."""
    growths = {product_id: trending[product_id].growth if product_id in trending else 0.0 for product_id in candidates}
    scores = {
        product_id: score_of(points, growths[product_id], settings.trend_weight)
        for product_id, (points, _) in candidates.items()
    }
    best_first = sorted(scores, key=lambda product_id: (-scores[product_id], product_id))
    return [
        _Entry((Tier.SCORED, 0, place), product_id, scores[product_id], candidates[product_id][1])
        for place, product_id in enumerate(best_first, 1)
    ]


def _fills(categories: list[str | None], products: list[Row]) -> list[_Entry]:
    """Make the entries that fill up a short list, the best first. A product keeps only its best entry.

    Args:
        categories: The category of each profile item, the latest item first; None for an item without a category.
        products: The products most in demand, the largest share of demand first.
    """

    def placed(rows: list[Row], tier: int, position: int = 0) -> Iterator[_Entry]:
        return (_Entry((tier, position, place), row.product_id) for place, row in enumerate(rows, 1))

    entries = list(placed(products[:FILL_DEPTH], Tier.STORE))
    for position, name in enumerate(categories):
        if name is not None:
            near = [row for row in products if row.category == name]
            entries += placed(near[:CATEGORY_FILL_DEPTH], Tier.NEAR, position)
    best: dict[Id, _Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.order):
        best.setdefault(entry.product_id, entry)
    return list(best.values())


def _limit_categories(entries: list[_Entry], products: dict[Id, Row], settings: RecommendationSettings) -> list[_Entry]:
    """Keep the first `max_per_category` entries of each category, without changing the order of entries."""
    if not settings.max_per_category:
        return entries
    taken: Counter[str] = Counter()
    kept = []
    for entry in entries:
        code = products[entry.product_id].category_code
        if code is None or taken[code] < settings.max_per_category:
            kept.append(entry)
            taken[code] += 1
    return kept


def _reason(entry: _Entry, product: Row, trend: Row | None, views: Views) -> str:
    """Say why a product is in the list, in the words that recommendations.py uses too."""
    tier, _, _ = entry.order
    category = product.category_code or reasons.UNNAMED_CATEGORY
    place = reasons.IN_CATEGORY.format(category=category) if tier == Tier.NEAR else ""
    rising = ""
    if trend is not None and trend.direction == "rising":
        rising = reasons.RISING.format(
            rising=reasons.MORE_VIEWS if trend.current > trend.previous else reasons.MORE_SHARE,
            place=place,
            previous=trend.previous,
            current=trend.current,
            when=views.when,
        )
    if entry.because_of is not None:
        word = list(reasons.INTERACTION_WORDS.values())[entry.because_of.interest_level - 1]
        because = reasons.BECAUSE.format(word=word, product_id=entry.because_of.product_id)
        return reasons.BECAUSE_AND_RISING.format(because=because, rising=rising) if rising else because
    return rising or reasons.IN_DEMAND.format(place=place, events=product.events, since=views.since)
