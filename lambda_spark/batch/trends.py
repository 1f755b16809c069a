"""Pure functions that compute trends: the demand in each time bucket, compared with the bucket before it.

A key is a product, a category or a brand whose demand is compared. Keys with enough events are tested for a trend. A
group is a set of keys that are tested together, for example all products in one bucket with one signal. A signal is a
type of interaction: view, cart or purchase.
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
"""Smallest number of tested keys in a group for which overdispersion is estimated.

An estimate from fewer keys would be too uncertain.
"""


def growth(current: Column, previous: Column) -> Column:
    """Return the relative change of demand from one bucket to the next, in (-1, 1).

    The formula is (c - p) / (c + p + 1). The 1 makes the result smaller for small counts.

    Args:
        current: Events in the bucket, c.
        previous: Events in the bucket before it, p.

    Source:
        The original project, which called this number the trend value.
    """
    return (current - previous) / (current + previous + F.lit(1))


def z_score(current: Column, previous: Column, total: Column, previous_total: Column) -> Column:
    """Return the change of a key's share of all demand, in standard deviations. A key is for example a product.

    The formula is z = (c - n·p) / √(n·p·(1 - p)), with n = c + `previous` and p = T / (T + T_previous). The key has n
    events in the two buckets together. If its share has not changed, its number of events in the second bucket is
    binomial (n, p). z is the normal approximation of the conditional test of two Poisson counts.

    Args:
        current: Events of the key in the bucket, c.
        previous: Events of the key in the bucket before it. `current` and `previous` must not both be 0.
        total: Events of all keys in the bucket, T.
        previous_total: Events of all keys in the bucket before it, T_previous.

    Returns:
        A number above 0 if the share has grown, and below 0 if it has shrunk. 0 if one of the totals is 0.

    Source:
        Przyborowski and Wilenski, Biometrika 31, 1940.
    """
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    z = (current - n * p) / F.sqrt(n * p * (F.lit(1) - p))
    return F.when((total > 0) & (previous_total > 0), z).otherwise(F.lit(0.0))


def peers(tested: DataFrame, group: Sequence[str]) -> DataFrame:
    """Summarise the tested keys (such as products) of each group: their number, median z² and median size.

    Args:
        tested: One row per tested key, with the columns of `group`, z_score, and size (events in both buckets).
        group: Columns that identify a group of keys tested together, for example bucket_start and signal.

    Returns:
        One row per group, with the columns of `group`, `tested` (number of tested keys), `tested_up` (number of tested
        keys whose share has grown), `median_z2` (median of z²) and `median_size` (median of the sizes).
    """
    return tested.groupBy(*group).agg(
        F.count("*").alias("tested"),
        F.count_if(F.col("z_score") > 0).alias("tested_up"),
        F.percentile(F.col("z_score") * F.col("z_score"), 0.5).alias("median_z2"),
        F.percentile("size", 0.5).alias("median_size"),
    )


def overdispersion(size: Column, tested: Column, median_z2: Column, median_size: Column) -> Column:
    """Return the overdispersion of a key's counts: their variance, divided by the variance for independent events.

    The formula is max(1, median(z²) / 0.4549) · max(1, size / median size)^¼. Events come in sessions and from regular
    visitors. So the counts of a product vary more than counts of independent events, even without a trend. Most keys of
    a group have no trend, so the median of z² over the group measures this extra variance. For independent events, the
    median would be 0.4549, the median of χ² with 1 degree of freedom. Overdispersion grows with a power of demand. The
    power ¼ fits the data of the synthetic store and of REES46.

    Args:
        size: Events of the key in both buckets together.
        tested: Number of tested keys in the key's group.
        median_z2: Median of z² over the tested keys.
        median_size: Median of `size` over the tested keys.

    Returns:
        A factor, at least 1. The factor is 1 if the group has fewer than MIN_PEERS tested keys.

    Source:
        Median of z²: "genomic control", Devlin and Roeder, Biometrics 55, 1999. Power of demand: Taylor, Nature 189,
        1961.
    """
    relative_size = F.greatest(size / median_size, F.lit(1.0))
    factor = F.greatest(median_z2 / F.lit(0.4549), F.lit(1.0)) * F.sqrt(F.sqrt(relative_size))
    return F.when(tested >= MIN_PEERS, factor).otherwise(F.lit(1.0))


def p_value(current: Column, previous: Column, total: Column, previous_total: Column, dispersion: Column) -> Column:
    """Return the probability that chance alone moves a key's share of demand at least this far in this direction.

    The exact probability is a tail of the binomial distribution (n, p), with n and p as in `z_score`. The result
    approximates this tail by normal_tail(√(D / dispersion)). D is the deviance, with b = n - c:
    D = 2·(c·ln(c / (n·p)) + b·ln(b / (n·(1 - p)))). Before that, c is moved by ½ towards its expected value n·p,
    because counts are whole numbers. Dividing D by the dispersion has the same effect as dividing all counts by it.

    For tails down to 1e-7, the result is 0.7 to 1.2 times the exact tail. The simpler approximation normal_tail(z)
    would be 0.001 to 50 times the exact tail.

    Args:
        current: Events of the key in the bucket, c.
        previous: Events of the key in the bucket before it.
        total: Events of all keys in the bucket.
        previous_total: Events of all keys in the bucket before it.
        dispersion: The result of `overdispersion`.

    Returns:
        A probability in [0, 0.5]. It is 0.5 if one of the totals is 0.

    Source:
        Deviance: McCullagh and Nelder, Generalized Linear Models, 1989. Division by the overdispersion: Rao and Scott,
        Biometrics 48, 1992.
    """
    # Do not wrap these expressions in `when`. Spark repeats common subexpressions inside conditionals, and the
    # generated code would be too long for Java to compile.
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    expected = n * p
    surplus = current - expected
    c = current - F.signum(surplus) * F.least(F.abs(surplus), F.lit(0.5))

    def term(count: Column, mean: Column) -> Column:
        return F.coalesce(count * F.ln(F.try_divide(count, mean)), F.lit(0.0))

    deviance = F.lit(2) * (term(c, expected) + term(n - c, n - expected))
    # Raise a negative deviance to 0. For a share that has not changed, rounding may give a value just below 0.
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
    """Add `q_value`, the false discovery rate if all keys with at most this p-value are called trends.

    Rising and falling shares are treated separately. For each p-value p, p·m / k is computed. m is the number of tested
    keys in the group. k is the rank of p, smallest first, among the keys of the group that moved in the same direction.
    The q-value of a key is the smallest p·m / k over its own p-value and all greater ones, but at most 1. The keys with
    a q-value of at most s are those that the step-up procedure of Benjamini and Hochberg finds at level s.

    Args:
        rows: The columns of `group`, z_score, p_value (null if the key is not tested), and the columns `tested` and
            `tested_up` that `peers` returns.
        group: Columns that identify a group of keys tested together, for example bucket_start and signal.

    Returns:
        The rows with `q_value`, in [0, 1]. `q_value` is null if `p_value` is null.

    Source:
        Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995.
    """
    is_up = F.col("is_up")
    largest_first = Window.partitionBy(*group, "is_up").orderBy(F.desc_nulls_last("p_value"))
    tested_in_direction = F.when(is_up, F.col("tested_up")).otherwise(F.col("tested") - F.col("tested_up"))
    rank = tested_in_direction - F.row_number().over(largest_first) + F.lit(1)
    # Keys with equal p-values get the same q-value, because the window's default frame includes ties. So the order of
    # tied rows does not matter.
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
    """Compare the demand for each key in each bucket with the bucket before, and find the trends.

    A key is for example a product. A key without events in one of the two buckets has demand 0 in that bucket.

    Args:
        compared: Columns bucket_start, signal, the key, the columns of `within` and `attributes`, and current and
            previous, the numbers of events in the bucket and in the bucket before (not both 0).
        totals: Columns bucket_start, signal, current and previous. The last two are summed over all keys.
        key: Name of the column that identifies a key, for example product_id.
        settings: The length and origin of the buckets, and the thresholds of a trend.
        within: Columns that divide each bucket and signal into groups. Each group is tested and ranked separately.
        attributes: Columns of `compared` to keep.
        first_bucket: Start of the store's first bucket. It has no trends, because no bucket precedes it.
        newest_bucket: Start of the store's newest bucket, the last bucket with trends.
        known_until: Time up to which events are known. A bucket that ended by this time is complete.

    Returns:
        bucket_start, signal, the columns of `within`, the key, its attributes, and the numbers in the `trends` table.
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
    # Do not test keys with fewer events than the setting `min_change`. Such keys cannot be trends, and testing them
    # would make it harder for other keys to be trends. Most rows are such keys, so not sorting them also saves time.
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
    """Add overdispersion, p_value, q_value, direction, trend_pct and rank to the rows of the tested keys."""
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
        # Repartition by group once, so that the windows need no exchanges of their own. Compute `rank` before
        # `trend_pct`, because rows that are sorted for `rank` need no second sort for `trend_pct`.
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
    """Compute the percentages of each user's interactions that were with rising and with waning products.

    The trend of a product depends on signal and bucket. An interaction counts with the trend for its own signal and
    bucket. A signal is a type of interaction: view, cart or purchase.

    Args:
        events: Events of the buckets to compute.
        product_trends: The result of `trends` for products.
        settings: The length and origin of the buckets.
        first_bucket: Start of the store's first bucket. It has no trends, because no bucket precedes it.
        newest_bucket: Start of the store's newest bucket, the last bucket with trends.

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
        interacted.where(F.col("user_id").isNotNull())
        .where((F.col("bucket_start") > first_bucket) & (F.col("bucket_start") <= newest_bucket))
        .join(F.broadcast(trending), on=["bucket_start", "signal", "product_id"], how="left")
        .groupBy("bucket_start", "user_id")
        .agg(
            F.count("*").alias("interactions"),
            percent("rising").alias("rising_pct"),
            percent("waning").alias("waning_pct"),
        )
    )
