"""The list of one user, for somebody who waits for it: the same rows that the serving job makes for all.

Spark takes seconds to plan that one query. Here small ones fetch what the profile calls for, and Python ranks a few
hundred candidates.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lambda_spark.serving.catalogue import (
    CATEGORY_FILL_DEPTH,
    FILL_DEPTH,
    category,
    first_of_all,
    first_of_each_category,
    in_demand,
    is_eligible,
    moving_products,
)
from lambda_spark.serving.inputs import Views
from lambda_spark.serving.profiles import DEEDS, profiles
from lambda_spark.serving.recommendations import MOST_POINTS, NEAR, POINTS, SCORED, STORE
from lambda_spark.settings import RecommendationSettings


@dataclass(frozen=True, slots=True)
class _Entry:
    """A product that may stand in the list."""

    order: tuple[int, int, int]
    """Why it is there (see `SCORED`), the profile's position and its place there; the smallest is the best."""
    product_id: int
    score: float | None = None
    because_of: Row | None = None
    """The item of the profile that speaks most for it."""


def for_user(views: Views, settings: RecommendationSettings, user_id: int) -> list[Row]:
    """The list of one user, active or not, by rank; one who was never seen gets what is in demand.

    Columns as in `recommendations`. Raises UsageError for a filter that is none.
    """
    with ThreadPoolExecutor(1) as beside:
        # Meanwhile: most of a small query is planning, which leaves the cores idle.
        moving_rows = beside.submit(copy_context().run, moving_products(views.trends).collect)
        touched = profiles(views.events.where(F.col("user_id") == user_id), settings).collect()
        items = sorted((row for row in touched if row.position is not None), key=lambda row: int(row.position))
        similar = _similar(views, items)
        asked = {row.product_id for row in touched} | {row.similar_product_id for row in similar}
        products = _products(views, settings, asked)
    moving = {row.product_id: row for row in moving_rows.result()}

    barred = {row.product_id for row in touched if row.bought or settings.repeat == "exclude"}
    barred |= {one for one, product in products.items() if not product.eligible}
    spoken_for = _spoken_for([item for item in items if item.product_id in products], similar, settings)
    usable = {one: said for one, said in spoken_for.items() if one in products and one not in barred}
    entries = _within(_scored(usable, moving, settings), products, settings)[: settings.k]
    if len(entries) < settings.k:
        kinds = [products[item.product_id].category if item.product_id in products else None for item in items]
        wanted = _most_wanted(views, settings, {kind for kind in kinds if kind is not None})
        products |= wanted
        fills = _fills(kinds, list(wanted.values()))
        unwanted = barred | {entry.product_id for entry in entries}
        entries += [fill for fill in fills if fill.product_id not in unwanted]
        entries = _within(entries, products, settings)[: settings.k]

    own = {item.product_id for item in items} if settings.repeat == "own-row" else set()
    lines = []
    for rank, entry in enumerate(entries, 1):
        product, moves = products[entry.product_id], moving.get(entry.product_id)
        line = Row(
            user_id=user_id,
            rank=rank,
            product_id=entry.product_id,
            category_code=product.category_code,
            brand=product.brand,
            price=product.price,
            score=entry.score,
            reason="still interested?" if entry.product_id in own else _reason(entry, product, moves, views),
            because_of=entry.because_of and entry.because_of.product_id,
            trend_growth=moves.growth if moves else 0.0,
            **views.version_columns,
        )
        lines.append(line)
    return lines


def _similar(views: Views, items: list[Row]) -> list[Row]:
    """The neighbours of the profile: product_id, similar_product_id, score."""
    wanted = F.col("product_id").isin([item.product_id for item in items])
    neighbours = views.similar_items.where((F.col("relation") == "viewed") & wanted)
    return neighbours.select("product_id", "similar_product_id", "score").collect()


def _products(views: Views, settings: RecommendationSettings, product_ids: set[int]) -> dict[int, Row]:
    rows = _shown(views, settings).where(F.col("product_id").isin(sorted(product_ids)))
    return {row.product_id: row for row in rows.collect()}


def _shown(views: Views, settings: RecommendationSettings) -> DataFrame:
    """Products with what a list shows, what says that two are of a kind, and whether they may be recommended."""
    eligible = F.coalesce(is_eligible(views.products.sparkSession, settings), F.lit(False))
    return views.products.select(
        "product_id", "category_code", "brand", "price", category().alias("category"), eligible.alias("eligible")
    )


def _most_wanted(views: Views, settings: RecommendationSettings, kinds: set[str]) -> dict[int, Row]:
    """What is most in demand in the store and in some categories, the most wanted first."""
    wanted = in_demand(views.demand)
    known = _shown(views, settings).where("eligible").join(wanted, on="product_id", how="inner")
    near = known.where(F.col("category").isin(sorted(kinds)))
    found = first_of_all(known).union(first_of_each_category(near)) if kinds else first_of_all(known)
    return {row.product_id: row for row in sorted(found.collect(), key=lambda row: (-row.share, row.product_id))}


def _spoken_for(items: list[Row], similar: list[Row], settings: RecommendationSettings) -> dict[int, tuple[int, Row]]:
    """Per product its points, in 1e-9, and the item that gives the most of them, of equal ones the latest."""
    points: Counter[int] = Counter()
    loudest: dict[int, tuple[int, Row]] = {}
    neighbours = defaultdict(list)
    for product_id, similar_product_id, score in similar:
        neighbours[product_id].append((similar_product_id, score))
    for item in items:
        itself = [(item.product_id, settings.own_weight)] if settings.repeat == "own-row" else []
        for one, similarity in itself + neighbours[item.product_id]:
            given = math.floor(min(item.weight * similarity * float(POINTS) + 0.5, MOST_POINTS))
            points[one] += given
            # As coarse as `recommendations` compares them.
            if given > 0 and given >> 10 > loudest.get(one, (-1, item))[0]:
                loudest[one] = (given >> 10, item)
    return {one: (points[one], item) for one, (_, item) in loudest.items()}


def _scored(
    spoken_for: dict[int, tuple[int, Row]], moving: dict[int, Row], settings: RecommendationSettings
) -> list[_Entry]:
    """The products that the profile speaks for, the best score first."""
    growths = {one: moving[one].growth if one in moving else 0.0 for one in spoken_for}
    scores = {
        one: points / float(POINTS) * (1.0 + settings.trend_weight * growths[one])
        for one, (points, _) in spoken_for.items()
    }
    best_first = sorted(scores, key=lambda one: (-scores[one], one))
    return [_Entry((SCORED, 0, place), one, scores[one], spoken_for[one][1]) for place, one in enumerate(best_first, 1)]


def _fills(kinds: list[str | None], wanted: list[Row]) -> list[_Entry]:
    """What fills up a list, each product where it comes first, the best first.

    `kinds` are the categories of the profile, the latest first; the most wanted products come first.
    """

    def placed(rows: list[Row], tier: int, position: int = 0) -> Iterator[_Entry]:
        return (_Entry((tier, position, place), row.product_id) for place, row in enumerate(rows, 1))

    found = list(placed(wanted[:FILL_DEPTH], STORE))
    for position, kind in enumerate(kinds):
        if kind is not None:
            found += placed([row for row in wanted if row.category == kind][:CATEGORY_FILL_DEPTH], NEAR, position)
    first: dict[int, _Entry] = {}
    for entry in sorted(found, key=lambda entry: entry.order):
        first.setdefault(entry.product_id, entry)
    return list(first.values())


def _within(entries: list[_Entry], products: dict[int, Row], settings: RecommendationSettings) -> list[_Entry]:
    """Those of which a list may have so many of one category, in the same order."""
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


def _reason(entry: _Entry, product: Row, moves: Row | None, views: Views) -> str:
    """The words of `recommendations`."""
    tier, _, _ = entry.order
    place = f" in {product.category_code or 'the category'}, where you looked" if tier == NEAR else ""
    rising = ""
    if moves is not None and moves.direction == "rising":
        word = "rising" if moves.current > moves.previous else "rising in share"
        rising = f"{word}{place}: {moves.previous} → {moves.current} views {views.when}"
    if entry.because_of is not None:
        because = f"because you {list(DEEDS.values())[entry.because_of.strength - 1]} {entry.because_of.product_id}"
        return f"{because}; {rising}" if rising else because
    return rising or f"in demand{place}: {product.events} interactions {views.since}"
