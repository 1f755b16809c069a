"""Pure functions that count which products (items) appear in the same baskets.

Two items of a basket co-interact if they are close together in the basket. The counts form a matrix with one row per
pair of items. The speed job and a full recomputation both use these functions.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.ids import ID_TYPES, whole_basket
from lambda_spark.spark import ids_of
from lambda_spark.speed.baskets import BASKET

STRENGTH_UNITS = 60
"""Number of units in a strength of 1. The strength of a pair of items is stored in units of 1/60.

For 1 to 6 steps between two items, their strength of 1/steps is then a whole number of units. Sums of whole numbers are
exact in any order.
"""

PAIR = ["event_date", "relation", "item_a", "item_b"]
"""Columns that identify a pair of items, per date and kind of basket (`relation`)."""


def contributions(items: DataFrame, *, window: int) -> DataFrame:
    """Count the pairs of items that co-interact in the given baskets.

    The items of a basket are ordered by first_time, then product_id. Two items co-interact if they are at most `window`
    steps apart in this order. Their strength in the basket is 1/steps.

    Args:
        items: One row per item of a basket: the columns of BASKET, product_id, first_time and `weight`. The weight is 1
            to add a basket to the counts, and -1 to subtract a basket that was counted before.
        window: Largest number of steps between two items that co-interact, 1 to 6.

    Returns:
        event_date, relation, item_a, item_b (at least item_a), baskets and strength (in units of 1/60). A row with
        item_a = item_b = i counts the baskets with item i. A row with item_a = item_b = 0, or the empty text where ids
        are texts, counts all baskets. Both have strength 0. Rows in which baskets and strength both add up to 0 are
        left out.
    """
    ids = ids_of(items, "product_id")

    def count(item_a: Column, item_b: Column, strength: int) -> Column:
        return F.struct(
            item_a.cast(ID_TYPES[ids]).alias("item_a"),
            item_b.cast(ID_TYPES[ids]).alias("item_b"),
            F.lit(strength).cast("bigint").alias("strength"),
        )

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
    basket_itself = F.lit(whole_basket(ids))
    counts = [F.when(F.col("is_first"), count(basket_itself, basket_itself, 0)), count(item, item, 0)]
    for steps in neighbours:
        other = F.col(f"next_{steps}")
        pair = count(F.least(item, other), F.greatest(item, other), STRENGTH_UNITS // steps)
        counts.append(F.when(other.isNotNull(), pair))
    return (
        ordered.select("event_date", "relation", "weight", F.explode(F.array(*counts)).alias("count"))
        .where(F.col("count").isNotNull())
        .groupBy("event_date", "relation", F.col("count.item_a").alias("item_a"), F.col("count.item_b").alias("item_b"))
        .agg(F.sum("weight").alias("baskets"), F.sum(F.col("weight") * F.col("count.strength")).alias("strength"))
        .where((F.col("baskets") != 0) | (F.col("strength") != 0))
    )


def all_contributions(items: DataFrame, *, window: int) -> DataFrame:
    """Count the pairs of items that co-interact in baskets that were not counted before.

    Args:
        items: One row per item of a basket: the columns of BASKET, product_id and first_time.
        window: Largest number of steps between two items that co-interact, 1 to 6.

    Returns:
        The columns of `contributions`.
    """
    return contributions(items.withColumn("weight", F.lit(1).cast("bigint")), window=window)


def withdrawn_contributions(items: DataFrame, *, window: int) -> DataFrame:
    """Return negative counts that remove deleted baskets from the table `co_interactions`.

    Args:
        items: One row per item of a deleted basket: the columns of BASKET, product_id and first_time.
        window: Largest number of steps between two items that co-interact, 1 to 6.

    Returns:
        The columns of `contributions`. Appending these rows to the table removes the baskets from its sums.
    """
    return contributions(items.withColumn("weight", F.lit(-1).cast("bigint")), window=window)


def total_counts(counts: DataFrame) -> DataFrame:
    """Add up the rows of the table `co_interactions` per date, relation and pair of items.

    Returns:
        The columns of PAIR, baskets and strength. Rows in which baskets and strength are both 0 are left out.
    """
    return (
        counts.groupBy(*PAIR)
        .agg(F.sum("baskets").alias("baskets"), F.sum("strength").alias("strength"))
        .where((F.col("baskets") != 0) | (F.col("strength") != 0))
    )


def basket_changes(known: DataFrame, new: DataFrame, *, by_date: bool = False) -> DataFrame:
    """Compare the stored and the new items of the same baskets.

    If an item of a basket has several rows, its smallest first_time counts.

    Args:
        known: Stored items: the columns of BASKET, product_id and first_time.
        new: New items, with the same columns.
        by_date: Whether to partition the result by date only, instead of by date and user. Spark can then write one
            file per date without another exchange.

    Returns:
        One row per item of a basket: the columns of BASKET, product_id, known_time and new_time. These are the
        first_time of the item in `known` and in `new`. Each is null if the item is missing there.
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
    """Compute how new items of baskets change the counts of co-interacting items.

    The formula is contributions(known ∪ new) - contributions(known).

    Args:
        changes: The rows of `basket_changes`.
        window: Largest number of steps between two items that co-interact, 1 to 6.

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
    """Return the new items that must be stored: items not stored yet, or stored with a later first_time.

    Args:
        changes: The rows of `basket_changes`.

    Returns:
        The columns of BASKET, product_id and first_time.
    """
    is_new = F.col("new_time").isNotNull() & (F.col("known_time").isNull() | (F.col("new_time") < F.col("known_time")))
    return changes.where(is_new).select(*BASKET, "product_id", F.col("new_time").alias("first_time"))


def known_items(baskets: DataFrame) -> DataFrame:
    """Reduce the rows of the table `baskets` to one row per basket and item, with the smallest first_time.

    Returns:
        The columns of BASKET, product_id and first_time.
    """
    return baskets.groupBy(*BASKET, "product_id").agg(F.min("first_time").alias("first_time"))


def compacted_baskets(baskets: DataFrame) -> DataFrame:
    """Reduce the rows of the table `baskets` to one row per basket and item, to make the table smaller.

    Each row keeps the smallest first_time and the newest batch_id of the rows that it replaces.

    Returns:
        The columns of the `baskets` table.
    """
    return baskets.groupBy(*BASKET, "product_id").agg(
        F.min("first_time").alias("first_time"), F.max("batch_id").alias("batch_id")
    )


def compacted_counts(counts: DataFrame) -> DataFrame:
    """Add up the rows of the table `co_interactions` like `total_counts`, to make the table smaller.

    Each row gets the newest batch_id of its date.

    Returns:
        The columns of the table `co_interactions`. Rows in which baskets and strength are both 0 are left out.
    """
    newest = counts.groupBy("event_date").agg(F.max("batch_id").alias("batch_id"))
    return total_counts(counts).join(F.broadcast(newest), on="event_date", how="inner")
