"""What a basket contributes to the co-occurrence matrix: one definition for the stream and a recompute. Pure."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.speed.baskets import BASKET

STRENGTH_UNITS = 60
"""Strength is 1/steps in units of 1/60, which every window up to 6 divides: sums are exact in any order."""

PAIR = ["event_date", "relation", "item_a", "item_b"]


def contributions(items: DataFrame, *, window: int) -> DataFrame:
    """The co-occurrence counts of some baskets: event_date, relation, item_a, item_b, baskets, strength.

    `items` has the columns of a basket, product_id, first_time and `weight`: 1 for baskets that are to count, -1 for
    baskets that counted before and no longer do. Items are ordered by first_time, then product_id; two co-interact
    when they lie at most `window` steps apart, with strength 60/steps. (i, i) counts the baskets of item i and (0, 0)
    all baskets, both with strength 0. Rows that cancel out are left out.
    """
    basket = Window.partitionBy(*BASKET, "weight").orderBy("first_time", "product_id")
    item = F.col("product_id")
    neighbours = {steps: F.lead("product_id", steps).over(basket) for steps in range(1, window + 1)}
    is_first = F.lag("product_id", 1).over(basket).isNull()
    placed = items.select(
        "event_date",
        "relation",
        "weight",
        "product_id",
        is_first.alias("is_first"),
        *(neighbour.alias(f"next_{steps}") for steps, neighbour in neighbours.items()),
    )
    counted = [F.when(F.col("is_first"), _count(F.lit(0), F.lit(0), 0)), _count(item, item, 0)]
    for steps in neighbours:
        other = F.col(f"next_{steps}")
        pair = _count(F.least(item, other), F.greatest(item, other), STRENGTH_UNITS // steps)
        counted.append(F.when(other.isNotNull(), pair))
    return (
        placed.select("event_date", "relation", "weight", F.explode(F.array(*counted)).alias("count"))
        .where(F.col("count").isNotNull())
        .groupBy("event_date", "relation", F.col("count.item_a").alias("item_a"), F.col("count.item_b").alias("item_b"))
        .agg(F.sum("weight").alias("baskets"), F.sum(F.col("weight") * F.col("count.strength")).alias("strength"))
        .where((F.col("baskets") != 0) | (F.col("strength") != 0))
    )


def _count(item_a: Column, item_b: Column, strength: int) -> Column:
    return F.struct(
        item_a.cast("bigint").alias("item_a"),
        item_b.cast("bigint").alias("item_b"),
        F.lit(strength).cast("bigint").alias("strength"),
    )


def all_contributions(items: DataFrame, *, window: int) -> DataFrame:
    """The counts of baskets as they are, none of which counted before."""
    return contributions(items.withColumn("weight", F.lit(1).cast("bigint")), window=window)


def withdrawn_contributions(items: DataFrame, *, window: int) -> DataFrame:
    """What baskets that counted take away with them when they go: the negative of their counts."""
    return contributions(items.withColumn("weight", F.lit(-1).cast("bigint")), window=window)


def total_counts(counts: DataFrame) -> DataFrame:
    """The rows of the `co_interactions` table as one per key: a pair's columns, baskets, strength. Where both are 0
    there is no row."""
    return (
        counts.groupBy(*PAIR)
        .agg(F.sum("baskets").alias("baskets"), F.sum("strength").alias("strength"))
        .where((F.col("baskets") != 0) | (F.col("strength") != 0))
    )


def basket_changes(known: DataFrame, new: DataFrame, *, by_date: bool = False) -> DataFrame:
    """Known and new items of the same baskets, side by side: a basket's columns, product_id, known_time, new_time.

    Both sides have a basket's columns, product_id and first_time, of which the smallest counts. Either time is null
    where the item is not on that side. Rows are partitioned by date and user, or with `by_date` by date only: they then
    stay together to their one file per date, without another exchange.
    """
    missing = F.lit(None).cast("timestamp")
    sides = known.select(
        *BASKET, "product_id", F.col("first_time").alias("known_time"), missing.alias("new_time")
    ).union(new.select(*BASKET, "product_id", missing.alias("known_time"), F.col("first_time").alias("new_time")))
    return (
        sides.repartition("event_date", *([] if by_date else ["user_id"]))
        .groupBy(*BASKET, "product_id")
        .agg(F.min("known_time").alias("known_time"), F.min("new_time").alias("new_time"))
    )


def changed_contributions(changes: DataFrame, *, window: int) -> DataFrame:
    """contributions(known ∪ new) - contributions(known) for the baskets of `basket_changes`."""
    after = F.struct(F.least("known_time", "new_time").alias("first_time"), F.lit(1).cast("bigint").alias("weight"))
    before = F.struct(F.col("known_time").alias("first_time"), F.lit(-1).cast("bigint").alias("weight"))
    items = (
        changes.select(*BASKET, "product_id", F.explode(F.array(after, before)).alias("state"))
        .select(*BASKET, "product_id", "state.first_time", "state.weight")
        .where(F.col("first_time").isNotNull())
    )
    return contributions(items, window=window)


def new_items(changes: DataFrame) -> DataFrame:
    """The items to remember: those that are new, or earlier than known. Columns: a basket's, product_id, first_time."""
    is_new = F.col("new_time").isNotNull() & (F.col("known_time").isNull() | (F.col("new_time") < F.col("known_time")))
    return changes.where(is_new).select(*BASKET, "product_id", F.col("new_time").alias("first_time"))


def known_items(baskets: DataFrame) -> DataFrame:
    """The rows of the `baskets` table as one per item: the smallest first_time counts."""
    return baskets.groupBy(*BASKET, "product_id").agg(F.min("first_time").alias("first_time"))


def folded_baskets(baskets: DataFrame) -> DataFrame:
    """The rows of the `baskets` table as one per item, of the newest micro-batch that told of it."""
    return baskets.groupBy(*BASKET, "product_id").agg(
        F.min("first_time").alias("first_time"), F.max("batch_id").alias("batch_id")
    )


def folded_counts(counts: DataFrame) -> DataFrame:
    """The rows of the `co_interactions` table as one per key, of the newest micro-batch of the date."""
    newest = counts.groupBy("event_date").agg(F.max("batch_id").alias("batch_id"))
    return total_counts(counts).join(F.broadcast(newest), on="event_date", how="inner")
