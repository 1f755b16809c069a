"""Co-interaction counts: what each basket adds to the co-occurrence matrix of items. Pure functions of DataFrames.

The stream and a full recompute both use these functions.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.speed.baskets import BASKET

STRENGTH_UNITS = 60
"""The strength of a pair of items is counted in units of 1/60.

So a strength of 1/steps is a whole number for 1 to 6 steps, and sums of whole numbers are exact in any order.
"""

PAIR = ["event_date", "relation", "item_a", "item_b"]
"""Columns that identify a row of the co-occurrence matrix."""


def contributions(items: DataFrame, *, window: int) -> DataFrame:
    """Count the co-interactions of items in some baskets.

    The items of a basket are ordered by first_time, then product_id. Two items co-interact if they lie at most `window`
    steps apart. Their strength in that basket is 1/steps.

    Args:
        items: The columns of BASKET, product_id, first_time and `weight`. The weight is 1 for baskets to add, and -1
            for baskets that have been counted and are to be subtracted.
        window: The most steps between two items, 1 to 6.

    Returns:
        event_date, relation, item_a, item_b (at least item_a), baskets and strength (in units of 1/60). The row of
        item_a = item_b = i counts the baskets of item i, and item_a = item_b = 0 counts all baskets, both with strength
        0. Rows whose baskets and strength add up to 0 are left out.
    """
    basket = Window.partitionBy(*BASKET, "weight").orderBy("first_time", "product_id")
    item = F.col("product_id")
    neighbours = {steps: F.lead("product_id", steps).over(basket) for steps in range(1, window + 1)}
    is_first = F.lag("product_id", 1).over(basket).isNull()
    ordered = items.select(
        "event_date",
        "relation",
        "weight",
        "product_id",
        is_first.alias("is_first"),
        *(neighbour.alias(f"next_{steps}") for steps, neighbour in neighbours.items()),
    )
    counts = [F.when(F.col("is_first"), _count(F.lit(0), F.lit(0), 0)), _count(item, item, 0)]
    for steps in neighbours:
        other = F.col(f"next_{steps}")
        pair = _count(F.least(item, other), F.greatest(item, other), STRENGTH_UNITS // steps)
        counts.append(F.when(other.isNotNull(), pair))
    return (
        ordered.select("event_date", "relation", "weight", F.explode(F.array(*counts)).alias("count"))
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
    """Count the co-interactions of baskets that have not been counted before.

    Args:
        items: The columns of BASKET, product_id and first_time.
        window: The most steps between two items, 1 to 6.

    Returns:
        The columns of `contributions`.
    """
    return contributions(items.withColumn("weight", F.lit(1).cast("bigint")), window=window)


def withdrawn_contributions(items: DataFrame, *, window: int) -> DataFrame:
    """Count the co-interactions of baskets that are deleted, with negative signs.

    Args:
        items: The columns of BASKET, product_id and first_time.
        window: The most steps between two items, 1 to 6.

    Returns:
        The columns of `contributions`. Added to the matrix, these rows remove the baskets from it.
    """
    return contributions(items.withColumn("weight", F.lit(-1).cast("bigint")), window=window)


def total_counts(counts: DataFrame) -> DataFrame:
    """Add up the rows of the `co_interactions` table that agree in the columns of PAIR.

    Returns:
        The columns of PAIR, baskets and strength. Rows in which baskets and strength are both 0 are left out.
    """
    return (
        counts.groupBy(*PAIR)
        .agg(F.sum("baskets").alias("baskets"), F.sum("strength").alias("strength"))
        .where((F.col("baskets") != 0) | (F.col("strength") != 0))
    )


def basket_changes(known: DataFrame, new: DataFrame, *, by_date: bool = False) -> DataFrame:
    """Put the known and the new items of the same baskets side by side.

    Args:
        known: Stored items: the columns of BASKET, product_id and first_time. If an item has several rows, its
            smallest first_time counts.
        new: New items, with the same columns and the same rule.
        by_date: Whether to partition the rows by date only, not by date and user. They can then be written as one file
            per date without another exchange.

    Returns:
        One row per item: the columns of BASKET, product_id, known_time and new_time. known_time is null where the item
        is not in `known`, and new_time where it is not in `new`.
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
    """Compute how new items change the counts: contributions(known ∪ new) - contributions(known).

    Args:
        changes: The rows of `basket_changes`.
        window: The most steps between two items, 1 to 6.

    Returns:
        The columns of `contributions`.
    """
    after = F.struct(F.least("known_time", "new_time").alias("first_time"), F.lit(1).cast("bigint").alias("weight"))
    before = F.struct(F.col("known_time").alias("first_time"), F.lit(-1).cast("bigint").alias("weight"))
    items = (
        changes.select(*BASKET, "product_id", F.explode(F.array(after, before)).alias("state"))
        .select(*BASKET, "product_id", "state.first_time", "state.weight")
        .where(F.col("first_time").isNotNull())
    )
    return contributions(items, window=window)


def new_items(changes: DataFrame) -> DataFrame:
    """Keep the items to store: those that are not known, or known only with a later time.

    Args:
        changes: The rows of `basket_changes`.

    Returns:
        The columns of BASKET, product_id and first_time.
    """
    is_new = F.col("new_time").isNotNull() & (F.col("known_time").isNull() | (F.col("new_time") < F.col("known_time")))
    return changes.where(is_new).select(*BASKET, "product_id", F.col("new_time").alias("first_time"))


def known_items(baskets: DataFrame) -> DataFrame:
    """Reduce the rows of the `baskets` table to one per item, with its smallest first_time.

    Returns:
        The columns of BASKET, product_id and first_time.
    """
    return baskets.groupBy(*BASKET, "product_id").agg(F.min("first_time").alias("first_time"))


def compacted_baskets(baskets: DataFrame) -> DataFrame:
    """Reduce the rows of the `baskets` table to one per item, with the newest batch_id of its rows.

    Returns:
        The columns of the `baskets` table.
    """
    return baskets.groupBy(*BASKET, "product_id").agg(
        F.min("first_time").alias("first_time"), F.max("batch_id").alias("batch_id")
    )


def compacted_counts(counts: DataFrame) -> DataFrame:
    """Add up the rows of the `co_interactions` table as `total_counts` does, with the newest batch_id of each date.

    Returns:
        The columns of the `co_interactions` table. Rows in which baskets and strength are both 0 are left out.
    """
    newest = counts.groupBy("event_date").agg(F.max("batch_id").alias("batch_id"))
    return total_counts(counts).join(F.broadcast(newest), on="event_date", how="inner")
