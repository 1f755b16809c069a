"""Trends: each bucket's demand against the bucket before it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets, interactions
from lambda_spark.settings import TrendSettings
from lambda_spark.storage.tables import STEADY

MIN_PEERS = 10
"""With fewer keys than this in a bucket and signal nothing can be said about how counts there spread."""
"""The direction of what is no trend."""


def growth(current: Column, previous: Column) -> Column:
    """Damped relative change, in (-1, 1): (c - p) / (c + p + 1). The trend value of the original project."""
    return (current - previous) / (current + previous + F.lit(1))


def z_score(current: Column, previous: Column, total: Column, previous_total: Column) -> Column:
    """Change of a share in standard deviations: (c - n·p) / √(n·p·(1 - p)), n = c + previous, p = T / (T + T_previous).

    Given n events of a product in two buckets and no change of its share, the number that falls into the second is
    binomial (n, p): the normal approximation of the conditional test of two Poisson counts (Przyborowski and Wilenski,
    Biometrika 31, 1940). 0 where a total is 0.
    """
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    z = (current - n * p) / F.sqrt(n * p * (F.lit(1) - p))
    return F.when((total > 0) & (previous_total > 0), z).otherwise(F.lit(0.0))


def peers(tested: DataFrame, group: Sequence[str]) -> DataFrame:
    """What the tested keys of a group have in common: its columns, `tested` and `tested_up`, the number of all and of
    those that gained a share, and the medians `median_z2` of z² and `median_size` of the events.

    `tested` has the columns of the group, as bucket_start and signal, and z_score and size.
    """
    return tested.groupBy(*group).agg(
        F.count("*").alias("tested"),
        F.count_if(F.col("z_score") > 0).alias("tested_up"),
        F.percentile(F.col("z_score") * F.col("z_score"), 0.5).alias("median_z2"),
        F.percentile("size", 0.5).alias("median_size"),
    )


def overdispersion(size: Column, tested: Column, median_z2: Column, median_size: Column) -> Column:
    """How much more counts vary than independent events would, as a factor on their variance, at least 1.

    Events come in sessions and from regulars, so a product that nothing happened to moves by more than chance. Most
    keys of a bucket and signal are steady, so their median tells: median(z²) / 0.4549, the median of χ² with 1 degree
    of freedom ("genomic control", Devlin and Roeder, Biometrics 55, 1999). It grows with demand by a power of it
    (Taylor, Nature 189, 1961), here times (size / median size)^¼ above the median size: ¼ fits the made-up store and
    REES46. 1 where fewer than MIN_PEERS are tested.
    """
    relative_size = F.greatest(size / median_size, F.lit(1.0))
    factor = F.greatest(median_z2 / F.lit(0.4549), F.lit(1.0)) * F.sqrt(F.sqrt(relative_size))
    return F.when(tested >= MIN_PEERS, factor).otherwise(F.lit(1.0))


def p_value(current: Column, previous: Column, total: Column, previous_total: Column, dispersion: Column) -> Column:
    """The chance of a change of share at least as strong, that way, if only chance moved it, in [0, 0.5].

    The binomial tail of `z_score` as the normal tail beyond the root of the deviance of c from the n·p expected,
    √(2·(c·ln(c / (n·p)) + b·ln(b / (n·(1 - p))))), b = n - c (McCullagh and Nelder, Generalized Linear Models, 1989),
    after c was moved ½ towards n·p as counts are whole: 0.7 to 1.2 times the exact tail down to 1e-7, where that of z
    is 0.001 to 50 times. The deviance is divided by the overdispersion, as if there were so many times fewer events
    (Rao and Scott, Biometrics 48, 1992). 0.5 where a total is 0.
    """
    # Nothing here is evaluated on a condition: what stands below one Spark does not look through for what is asked for
    # more than once, and the code of all of it would be too long for Java to compile.
    n = current + previous
    p = F.try_divide(total, total + previous_total)
    expected = n * p
    surplus = current - expected
    c = current - F.signum(surplus) * F.least(F.abs(surplus), F.lit(0.5))

    def term(count: Column, mean: Column) -> Column:
        return F.coalesce(count * F.ln(F.try_divide(count, mean)), F.lit(0.0))

    deviance = F.lit(2) * (term(c, expected) + term(n - c, n - expected))
    # Where nothing has changed, rounding may put the deviance just below 0.
    return normal_tail(F.sqrt(F.greatest(deviance, F.lit(0.0)) / dispersion))


def normal_tail(x: Column) -> Column:
    """The chance that a standard normal variable exceeds x ≥ 0, to 0.3 percent of it, in [0, 0.5].

    exp(-x²/2) / √(2π) / (0.661·x + 0.339·√(x² + 5.51)): Börjesson and Sundberg, IEEE Transactions on Communications
    27, 1979.
    """
    density = F.exp(-x * x / F.lit(2)) / F.lit(math.sqrt(2 * math.pi))
    return F.least(density / (F.lit(0.661) * x + F.lit(0.339) * F.sqrt(x * x + F.lit(5.51))), F.lit(0.5))


def with_q_values(rows: DataFrame, group: Sequence[str]) -> DataFrame:
    """Rows with `q_value`, the expected share of chance among the keys that moved the same way with at most this p.

    The least of p·m / k over this p and the greater ones, in [0, 1]; m counts the `tested` keys of the group, those
    that have a `p_value`, and k is its place among those that moved the same way. Those with q ≤ s are what the step-up
    procedure finds at level s (Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995), each
    direction by itself. Null where `p_value` is.
    """
    is_up = F.col("is_up")
    greatest_first = Window.partitionBy(*group, "is_up").orderBy(F.desc_nulls_last("p_value"))
    tested_alike = F.when(is_up, F.col("tested_up")).otherwise(F.col("tested") - F.col("tested_up"))
    place = tested_alike - F.row_number().over(greatest_first) + F.lit(1)
    # Of equal p-values too the one in the first place, whichever that is, has the least share.
    least = F.least(F.min("share").over(greatest_first), F.lit(1.0))
    is_tested = F.col("p_value").isNotNull()
    return (
        rows.withColumn("is_up", F.col("z_score") > 0)
        .withColumn("share", F.when(is_tested, F.col("p_value") * F.col("tested") / place))
        .withColumn("q_value", F.when(is_tested, least))
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
    """Judge each bucket's demand by that of the one before; a key missing from either counts 0 there.

    `compared` has bucket_start, signal, the key, current and previous, not both 0, and maybe attributes of the key, and
    columns `within`, among each value of which keys are judged by themselves; `totals` has bucket_start, signal,
    current and previous of all keys. Buckets after `first_bucket` and up to `newest_bucket` get rows; a bucket is
    complete when it had ended at `known_until`. Returned are bucket_start, signal, the columns `within`, the key, its
    attributes, and the figures of the `trends` table.
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
    # What has too few events for `min_change` is no trend anyhow: to test it would only raise the bar for the others.
    # It is by far the most, and goes around all that sorts.
    is_tested = F.col("size") >= settings.min_change
    judged = _judged(scored.where(is_tested), settings, group, key)
    figures = judged.unionByName(scored.where(~is_tested), allowMissingColumns=True)
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


def _judged(tested: DataFrame, settings: TrendSettings, group: list[str], key: str) -> DataFrame:
    """Tested keys with overdispersion, p_value, q_value, direction, trend_pct and rank."""
    in_common = F.broadcast(peers(tested, group))
    dispersion = overdispersion(*(F.col(name) for name in ("size", "tested", "median_z2", "median_size")))
    current, previous, total, previous_total = (
        F.col(name) for name in ("current", "previous", "total", "previous_total")
    )
    change = F.abs(current - previous)
    is_large = (change >= settings.min_change) & (F.abs("z_score") >= settings.min_z)
    is_trend = is_large & (F.col("q_value") <= settings.max_false_share)
    direction = (
        F.when(is_trend & (F.col("z_score") > 0), "rising").when(is_trend & (F.col("z_score") < 0), "waning")
    ).otherwise(STEADY)
    same = Window.partitionBy(*group, "direction")
    strongest_first = same.orderBy(F.desc(F.abs("z_score")), F.desc(change), F.asc(key))
    moves = F.col("direction") != STEADY
    return (
        tested.join(in_common, on=group, how="inner")
        .withColumn("overdispersion", dispersion)
        .withColumn("p_value", p_value(current, previous, total, previous_total, F.col("overdispersion")))
        # One exchange for all that is ordered within a group, and the finer order first.
        .repartition(*group)
        .transform(with_q_values, group)
        .withColumn("direction", direction)
        .withColumn("rank", F.when(moves, F.row_number().over(strongest_first)))
        .withColumn("trend_pct", F.when(moves, F.try_divide(F.lit(100) * change, F.sum(change).over(same))))
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
    """Per bucket and user the percent of interactions with products that were rising, and waning, by the
    interaction's signal.

    Columns as in `user_trends`, for the buckets that `trends` has: after `first_bucket` and up to `newest_bucket`.
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
