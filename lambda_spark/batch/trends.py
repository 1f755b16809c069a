"""Trends: the demand in each time bucket, compared with the bucket before it. Pure functions of DataFrames and columns.

A key is what is compared: a product, a category or a brand. Keys with enough events are tested for a trend. A group is
the keys that are tested together, for example those of one bucket and signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets, interactions
from lambda_spark.settings import TrendSettings
from lambda_spark.storage.tables import STEADY

MIN_PEERS = 10
"""Overdispersion is estimated only in groups of at least this many tested keys, because fewer say too little."""


def growth(current: Column, previous: Column) -> Column:
    """Return the relative change of demand, damped for small counts, in (-1, 1).

    The formula is (c - p) / (c + p + 1), with c and p as in the arguments.

    Args:
        current: Events in the bucket, c.
        previous: Events in the bucket before it, p.

    Source:
        The trend value of the original project.
    """
    return (current - previous) / (current + previous + F.lit(1))


def z_score(current: Column, previous: Column, total: Column, previous_total: Column) -> Column:
    """Return the change of a key's share of all demand, in standard deviations.

    The formula is z = (c - n·p) / √(n·p·(1 - p)), with n = c + `previous`, p = T / (T + T_previous), and c, T and
    T_previous as in the arguments. Suppose that a key has n events in two buckets and that its share has not changed.
    Then its number of events in the second bucket is binomial (n, p). z is the normal approximation
    of the conditional test of two Poisson counts.

    Args:
        current: Events of the key in the bucket, c.
        previous: Events of the key in the bucket before it; not 0 where `current` is 0.
        total: Events of all keys in the bucket, T.
        previous_total: Events of all keys in the bucket before it, T_previous.

    Returns:
        Any real number, above 0 where the share has grown; 0 where a total is 0.

    Source:
        Przyborowski and Wilenski, Biometrika 31, 1940.
    """
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    z = (current - n * p) / F.sqrt(n * p * (F.lit(1) - p))
    return F.when((total > 0) & (previous_total > 0), z).otherwise(F.lit(0.0))


def peers(tested: DataFrame, group: Sequence[str]) -> DataFrame:
    """Count the tested keys of each group, and take the medians of their z² and of their sizes.

    Args:
        tested: One row per tested key, with the columns of the group, z_score and size (events in both buckets).
        group: The columns of a group, for example bucket_start and signal.

    Returns:
        The columns of the group, `tested` (number of tested keys), `tested_up` (number of tested keys whose share has
        grown), `median_z2` (median of z²) and `median_size` (median of the sizes).
    """
    return tested.groupBy(*group).agg(
        F.count("*").alias("tested"),
        F.count_if(F.col("z_score") > 0).alias("tested_up"),
        F.percentile(F.col("z_score") * F.col("z_score"), 0.5).alias("median_z2"),
        F.percentile("size", 0.5).alias("median_size"),
    )


def overdispersion(size: Column, tested: Column, median_z2: Column, median_size: Column) -> Column:
    """Return the factor by which the variance of counts exceeds that of independent events.

    The formula is max(1, median(z²) / 0.4549) · max(1, size / median size)^¼. Events come in sessions and from regular
    visitors, so the count of a steady product varies more than independent events would. Most keys of a bucket and
    signal are steady, so their median of z² shows how much more. 0.4549 is the median of χ² with 1 degree of freedom.
    Overdispersion grows with a power of demand. The power ¼ fits the data of the synthetic store and of REES46.

    Args:
        size: Events of the key in both buckets.
        tested: Number of tested keys in the group.
        median_z2: Median of z² of these keys.
        median_size: Median size of these keys.

    Returns:
        A factor, at least 1; exactly 1 where fewer than MIN_PEERS keys are tested.

    Source:
        Median of z²: "genomic control", Devlin and Roeder, Biometrics 55, 1999. Power of demand: Taylor, Nature 189,
        1961.
    """
    relative_size = F.greatest(size / median_size, F.lit(1.0))
    factor = F.greatest(median_z2 / F.lit(0.4549), F.lit(1.0)) * F.sqrt(F.sqrt(relative_size))
    return F.when(tested >= MIN_PEERS, factor).otherwise(F.lit(1.0))


def p_value(current: Column, previous: Column, total: Column, previous_total: Column, dispersion: Column) -> Column:
    """Return the probability that chance alone moves a share at least this far in this direction.

    This is a tail of the binomial distribution (n, p) of `z_score`. It is approximated by the normal tail beyond the
    root of the deviance D. The formula is normal_tail(√(D / dispersion)), with b = n - c and
    D = 2·(c·ln(c / (n·p)) + b·ln(b / (n·(1 - p)))). First c is moved by ½ towards the expected n·p, because counts are
    whole. Dividing D by the overdispersion treats the counts as if there were that many times fewer events.

    The result is 0.7 to 1.2 times the exact tail, for tails down to 1e-7. The normal tail beyond z instead
    would be 0.001 to 50 times the exact tail.

    Args:
        current: Events of the key in the bucket, c.
        previous: Events of the key in the bucket before it.
        total: Events of all keys in the bucket.
        previous_total: Events of all keys in the bucket before it.
        dispersion: The factor of `overdispersion`.

    Returns:
        A probability in [0, 0.5]; 0.5 where a total is 0.

    Source:
        Deviance: McCullagh and Nelder, Generalized Linear Models, 1989. Division by the overdispersion: Rao and Scott,
        Biometrics 48, 1992.
    """
    # Do not wrap these expressions in `when`: Spark does not eliminate common subexpressions inside conditionals. The
    # generated code would then be too long for Java to compile.
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    expected = n * p
    surplus = current - expected
    c = current - F.signum(surplus) * F.least(F.abs(surplus), F.lit(0.5))

    def term(count: Column, mean: Column) -> Column:
        return F.coalesce(count * F.ln(F.try_divide(count, mean)), F.lit(0.0))

    deviance = F.lit(2) * (term(c, expected) + term(n - c, n - expected))
    # Bound the deviance, because rounding may put it just below 0 where nothing has changed.
    return normal_tail(F.sqrt(F.greatest(deviance, F.lit(0.0)) / dispersion))


def normal_tail(x: Column) -> Column:
    """Return the probability that a standard normal variable exceeds x.

    The formula is exp(-x²/2) / √(2π) / (0.661·x + 0.339·√(x² + 5.51)). Its relative error is at most 0.3 percent.

    Args:
        x: A number, at least 0.

    Returns:
        A probability in [0, 0.5].

    Source:
        Börjesson and Sundberg, IEEE Transactions on Communications 27, 1979.
    """
    density = F.exp(-x * x / F.lit(2)) / F.lit(math.sqrt(2 * math.pi))
    return F.least(density / (F.lit(0.661) * x + F.lit(0.339) * F.sqrt(x * x + F.lit(5.51))), F.lit(0.5))


def with_q_values(rows: DataFrame, group: Sequence[str]) -> DataFrame:
    """Add `q_value`, the false discovery rate among keys that moved in the same direction with at most this p-value.

    q is the smallest p·m / k of this p-value and all greater ones in the same direction, but at most 1. p is a p-value,
    and m is the number of tested keys in the group. k is the rank of p, smallest first, among the keys that moved in
    the same direction. The keys with q ≤ s are those that the step-up procedure of Benjamini and Hochberg finds at
    level s, applied to each direction separately.

    Args:
        rows: The columns of the group, z_score, p_value (null where a key is not tested), and the columns `tested` and
            `tested_up` of `peers`.
        group: The columns of a group, for example bucket_start and signal.

    Returns:
        The rows with `q_value`, in [0, 1]; null where `p_value` is null.

    Source:
        Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995.
    """
    is_up = F.col("is_up")
    largest_first = Window.partitionBy(*group, "is_up").orderBy(F.desc_nulls_last("p_value"))
    tested_in_direction = F.when(is_up, F.col("tested_up")).otherwise(F.col("tested") - F.col("tested_up"))
    rank = tested_in_direction - F.row_number().over(largest_first) + F.lit(1)
    # Equal p-values get the same minimum, because the window's default frame includes ties. The tied row that comes
    # first, whichever it is, has the largest rank and so the smallest p·m / k.
    smallest = F.least(F.min("share").over(largest_first), F.lit(1.0))
    is_tested = F.col("p_value").isNotNull()
    return (
        rows.withColumn("is_up", F.col("z_score") > 0)
        .withColumn("share", F.when(is_tested, F.col("p_value") * F.col("tested") / rank))
        .withColumn("q_value", F.when(is_tested, smallest))
        .drop("is_up", "share")
    )


def trends(
    compared: DataFrame,
    totals: DataFrame,
    key: str,
    settings: TrendSettings,
    *,
    within: Sequence[str] = (),
    attributes: Sequence[str] = (),
    first_bucket: Column,
    newest_bucket: Column,
    known_until: Column,
) -> DataFrame:
    """Compare the demand of each key in each bucket with its demand in the bucket before, and find the trends.

    A key that is missing from one of the two buckets has 0 events there.

    Args:
        compared: Columns bucket_start, signal, the key, current and previous (not both 0), `within` and `attributes`.
        totals: Columns bucket_start, signal, current and previous, summed over all keys.
        key: The column to compare, for example product_id.
        settings: The length and origin of the buckets, and the thresholds of a trend.
        within: Columns that divide each bucket and signal into groups. Each group is tested and ranked separately.
        attributes: Columns of `compared` to keep.
        first_bucket: Start of the store's first bucket, which has no trends because nothing precedes it.
        newest_bucket: Start of the store's newest bucket, the last one that has trends.
        known_until: Time up to which events are known. A bucket is complete if it had ended by then.

    Returns:
        bucket_start, signal, the columns of `within`, the key, its attributes, and the figures of the `trends` table.
    """
    group = ["bucket_start", "signal", *within]
    compared = compared.where((F.col("bucket_start") > first_bucket) & (F.col("bucket_start") <= newest_bucket)).join(
        F.broadcast(
            totals.select(
                "bucket_start", "signal", F.col("current").alias("total"), F.col("previous").alias("previous_total")
            )
        ),
        on=["bucket_start", "signal"],
        how="inner",
    )
    current, previous = F.col("current"), F.col("previous")
    total, previous_total = F.col("total"), F.col("previous_total")
    scored = compared.withColumns(
        {"size": current + previous, "z_score": z_score(current, previous, total, previous_total)}
    )
    # Do not test keys with fewer events than `min_change`. They cannot be trends, and testing them would only raise the
    # threshold for the others. They are by far the most rows, so leaving them out of all sorting also saves time.
    is_tested = F.col("size") >= settings.min_change
    tested = _test_and_rank(scored.where(is_tested), settings, group, key)
    figures = tested.unionByName(scored.where(~is_tested), allowMissingColumns=True)
    change = current - previous
    return figures.select(
        *group,
        key,
        *attributes,
        "current",
        "previous",
        change.alias("change"),
        growth(current, previous).alias("growth"),
        "z_score",
        "overdispersion",
        "p_value",
        F.try_divide(F.lit(100) * change, previous).alias("change_pct"),
        "q_value",
        F.coalesce("direction", F.lit(STEADY)).alias("direction"),
        "trend_pct",
        "rank",
        (Buckets(settings).next(F.col("bucket_start")) <= known_until).alias("complete"),
    )


def _test_and_rank(tested: DataFrame, settings: TrendSettings, group: list[str], key: str) -> DataFrame:
    """Add overdispersion, p_value, q_value, direction, trend_pct and rank to the tested keys."""
    group_figures = F.broadcast(peers(tested, group))
    dispersion = overdispersion(*(F.col(name) for name in ("size", "tested", "median_z2", "median_size")))
    current, previous, total, previous_total = (
        F.col(name) for name in ("current", "previous", "total", "previous_total")
    )
    change = F.abs(current - previous)
    is_large = (change >= settings.min_change) & (F.abs("z_score") >= settings.min_z)
    is_trend = is_large & (F.col("q_value") <= settings.max_fdr)
    direction = (
        F.when(is_trend & (F.col("z_score") > 0), "rising").when(is_trend & (F.col("z_score") < 0), "waning")
    ).otherwise(STEADY)
    by_direction = Window.partitionBy(*group, "direction")
    strongest_first = by_direction.orderBy(F.desc(F.abs("z_score")), F.desc(change), F.asc(key))
    is_moving = F.col("direction") != STEADY
    return (
        tested.join(group_figures, on=group, how="inner")
        .withColumn("overdispersion", dispersion)
        .withColumn("p_value", p_value(current, previous, total, previous_total, F.col("overdispersion")))
        # Repartition once, so that all windows within a group share this exchange. Compute `rank` before `trend_pct`,
        # because rows that are sorted for `rank` need no second sort for `trend_pct`.
        .repartition(*group)
        .transform(with_q_values, group)
        .withColumn("direction", direction)
        .withColumn("rank", F.when(is_moving, F.row_number().over(strongest_first)))
        .withColumn("trend_pct", F.when(is_moving, F.try_divide(F.lit(100) * change, F.sum(change).over(by_direction))))
        .drop("tested", "tested_up", "median_z2", "median_size")
    )


def user_trends(
    events: DataFrame,
    product_trends: DataFrame,
    settings: TrendSettings,
    *,
    first_bucket: Column,
    newest_bucket: Column,
) -> DataFrame:
    """Compute what percentage of each user's interactions was with rising products, and with waning ones.

    An interaction counts as rising or waning if its product has this trend in the interaction's own signal and bucket.

    Args:
        events: Events of the buckets to compute.
        product_trends: The result of `trends` for products.
        settings: The length and origin of the buckets.
        first_bucket: Start of the store's first bucket, which has no trends because nothing precedes it.
        newest_bucket: Start of the store's newest bucket, the last one that has trends.

    Returns:
        bucket_start, user_id, interactions, rising_pct and waning_pct (both 0 to 100).
    """
    trending = product_trends.where(F.col("direction") != STEADY).select(
        "bucket_start", "signal", "product_id", "direction"
    )
    interacted = interactions(events).select(
        Buckets(settings).start_of(F.col("event_time")).alias("bucket_start"),
        F.col("event_type").alias("signal"),
        "product_id",
        "user_id",
    )

    def percent(direction: str) -> Column:
        return F.lit(100) * F.count_if(F.col("direction") == direction) / F.count("*")

    return (
        interacted.where((F.col("bucket_start") > first_bucket) & (F.col("bucket_start") <= newest_bucket))
        .join(F.broadcast(trending), on=["bucket_start", "signal", "product_id"], how="left")
        .groupBy("bucket_start", "user_id")
        .agg(
            F.count("*").alias("interactions"),
            percent("rising").alias("rising_pct"),
            percent("waning").alias("waning_pct"),
        )
    )
