"""Pure functions that score the similarity of products and find the most similar products of each product.

The scores are computed from the counts of baskets in which two products appear close together (co-interact).
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.ids import whole_basket
from lambda_spark.settings import Measure, SimilaritySettings
from lambda_spark.spark import ids_of
from lambda_spark.speed.co_interactions import STRENGTH_UNITS

WEIGHT_ONE = 2**20
"""Weight of the counts of the store's newest date. Older dates have smaller weights.

Weights are integers, because a sum of integers does not depend on the order of addition.
"""


def date_weight(event_date: Column, newest: date | None, half_life_days: float) -> Column:
    """Return the weight of the counts of a date. The weight halves with every half-life.

    The formula is round(2²⁰ · 2^(-age / half_life)). The age is the number of days from the date to the newest date.

    Args:
        event_date: The date of the counts.
        newest: The newest date of the store. None only if no date has counts.
        half_life_days: The half-life in days. With 0, all dates have the same weight.

    Returns:
        An integer from 0 to 2²⁰ (WEIGHT_ONE).

    Source:
        This project's own definition of exponential decay in integers.
    """
    if half_life_days == 0:
        return F.lit(WEIGHT_ONE).cast("bigint")
    age = F.date_diff(F.lit(newest), event_date)
    weight = F.lit(float(WEIGHT_ONE)) * F.pow(F.lit(2.0), -age / F.lit(float(half_life_days)))
    # Do not use Spark's `round`. It is slow, because it converts the number to the text of a decimal.
    return F.floor(weight + F.lit(0.5))


def score(measure: Measure, c: Column, n_i: Column, n_j: Column, n: Column, both: Column) -> Column:
    """Return how similar product j is to product i.

    All counts are integers, summed over dates after the count of each date was multiplied by the weight of the date.
    The formulas use the names of the arguments. In the formulas, c is in whole baskets instead of 1/60:

    - confidence: c/n_i, in [0, 1], the share of i's baskets that lead to j.
    - cosine: c/√(n_i·n_j), in [0, 1].
    - jaccard: c/(n_i + n_j - c), in [0, 1].
    - lift: n·c/(n_i·n_j), at least 0, and 1 if i and j are independent.
    - llr: Dunning's G² of the numbers of baskets, at least 0. It is 0 if the pair is no more frequent than by chance.

    Args:
        measure: Name of the formula, such as `cosine`.
        c: Strength of the pair, in units of 1/60 of a basket. A basket adds more if i and j are closer together in it.
        n_i: Number of baskets with i.
        n_j: Number of baskets with j.
        n: Number of all baskets.
        both: Number of baskets in which i and j co-interact.

    Returns:
        The similarity score.

    Source:
        confidence: Agrawal et al., SIGMOD 1993. llr: Dunning, Computational Linguistics 19, 1993.
    """
    units = F.lit(STRENGTH_UNITS)
    if measure == "confidence":
        return F.try_divide(c, units * n_i)
    if measure == "cosine":
        return F.try_divide(c, units * F.sqrt(n_i) * F.sqrt(n_j))
    if measure == "jaccard":
        return F.try_divide(c, units * (n_i + n_j) - c)
    if measure == "lift":
        return F.try_divide(n.cast("double") * c, units * n_i.cast("double") * n_j)
    return _log_likelihood_ratio(both, n_i, n_j, n)


def _log_likelihood_ratio(both: Column, n_i: Column, n_j: Column, n: Column) -> Column:
    """Return G² = 2·Σ k·ln(k·total / (row·column)), a measure of how much products i and j depend on each other.

    The sum is over four numbers k: the baskets with both products, with only i, with only j, and with neither. The four
    numbers form a table. `row` and `column` are the sums of a number's row and column.
    """
    one = F.lit(float(WEIGHT_ONE))
    k11, k12, k21 = both / one, (n_i - both) / one, (n_j - both) / one
    k22 = F.greatest(F.lit(0.0), (n - n_i - n_j + both) / one)
    total = k11 + k12 + k21 + k22

    def term(observed: Column, row: Column, column: Column) -> Column:
        return F.when(observed > 0, observed * F.log(observed * total / (row * column))).otherwise(F.lit(0.0))

    row_1, row_2, column_1, column_2 = k11 + k12, k21 + k22, k11 + k21, k12 + k22
    terms = (
        term(k11, row_1, column_1)
        + term(k12, row_1, column_2)
        + term(k21, row_2, column_1)
        + term(k22, row_2, column_2)
    )
    return F.when(k11 * total > row_1 * column_1, F.lit(2.0) * terms).otherwise(F.lit(0.0))


def similar_items(co_interactions: DataFrame, settings: SimilaritySettings, *, newest: date | None) -> DataFrame:
    """Find the most similar products (neighbours) of each product in each relation.

    Args:
        co_interactions: Rows of the `co_interactions` table.
        settings: The settings of similarity.
        newest: The newest date of the store. Counts of later dates are left out, because their events are set aside.
            None if the store has no events.

    Returns:
        The columns of the `similar_items` table. Pairs with score 0 are left out, because they are not similar.
    """
    weight = date_weight(F.col("event_date"), newest, settings.half_life_days)
    totals = (
        co_interactions.where(F.col("event_date") <= F.lit(newest).cast("date"))
        .withColumn("weight", weight)
        .groupBy("relation", "item_a", "item_b")
        .agg(
            F.sum("baskets").alias("baskets"),
            F.sum("strength").alias("strength"),
            F.sum(F.col("weight") * F.col("baskets")).alias("decayed_baskets"),
            F.sum(F.col("weight") * F.col("strength")).alias("decayed_strength"),
        )
    )
    is_pair = F.col("item_a") < F.col("item_b")
    counts = totals.where(~is_pair).select(
        "relation", F.col("item_a").alias("item"), F.col("decayed_baskets").alias("n")
    )
    basket_itself = whole_basket(ids_of(co_interactions, "item_a"))
    pairs = (
        totals.where(is_pair & (F.col("baskets") >= settings.min_baskets))
        .join(
            counts.select("relation", F.col("item").alias("item_a"), F.col("n").alias("n_a")),
            on=["item_a", "relation"],
            how="inner",
        )
        .join(
            counts.select("relation", F.col("item").alias("item_b"), F.col("n").alias("n_b")),
            on=["item_b", "relation"],
            how="inner",
        )
        .join(
            F.broadcast(counts.where(F.col("item") == basket_itself).select("relation", F.col("n").alias("n_all"))),
            on="relation",
            how="inner",
        )
    )
    sides = F.array(
        F.struct(
            F.col("item_a").alias("i"), F.col("item_b").alias("j"), F.col("n_a").alias("n_i"), F.col("n_b").alias("n_j")
        ),
        F.struct(
            F.col("item_b").alias("i"), F.col("item_a").alias("j"), F.col("n_b").alias("n_i"), F.col("n_a").alias("n_j")
        ),
    )
    scored = (
        pairs.withColumn("side", F.explode(sides))
        .select(
            "relation",
            F.col("side.i").alias("product_id"),
            F.col("side.j").alias("similar_product_id"),
            score(
                settings.measure,
                F.col("decayed_strength"),
                F.col("side.n_i"),
                F.col("side.n_j"),
                F.col("n_all"),
                F.col("decayed_baskets"),
            ).alias("score"),
            "baskets",
            "strength",
        )
        .where(F.col("score") > 0)
    )
    best_first = Window.partitionBy("product_id", "relation").orderBy(F.desc("score"), F.asc("similar_product_id"))
    return scored.withColumn("rank", F.row_number().over(best_first)).where(F.col("rank") <= settings.max_neighbours)
