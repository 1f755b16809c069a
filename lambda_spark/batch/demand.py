"""Demand: interactions per time bucket and signal (view, cart or purchase), by product, category and brand.

Pure functions of DataFrames.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import INTERACTIONS
from lambda_spark.settings import TrendSettings

ATTRIBUTES = ("category_code", "brand")
"""Attributes of a product for whose values demand is added up too."""


class Buckets:
    """The division of time into buckets of equal length.

    Bucket 0 begins at the configured origin. Times that are whole numbers are epoch microseconds.
    """

    def __init__(self, settings: TrendSettings) -> None:
        self.length = settings.bucket // settings.bucket.resolution
        self.origin = midnight(settings.origin)

    def number(self, micros: int) -> int:
        """Return the number of the bucket that contains a time."""
        return (micros - self.origin) // self.length

    def start(self, number: int) -> int:
        """Return the first microsecond of a bucket."""
        return self.origin + number * self.length

    def first_open(self, retention_cutoff: date) -> int:
        """Return the number of the first bucket whose trends can still be computed after events have expired.

        The trends of a bucket need all events of that bucket and of the bucket before it. Buckets for which some of
        these events are gone are called frozen.

        Args:
            retention_cutoff: The date before which events have expired.
        """
        return self.number(midnight(retention_cutoff) - 1) + 2

    def start_of(self, moment: Column) -> Column:
        """Return the first moment of the bucket that contains a timestamp."""
        since = F.unix_micros(moment) - F.lit(self.origin)
        return F.timestamp_micros(F.unix_micros(moment) - F.pmod(since, F.lit(self.length)))

    def next(self, bucket_start: Column) -> Column:
        """Return the first moment of the next bucket."""
        return F.timestamp_micros(F.unix_micros(bucket_start) + F.lit(self.length))

    def starts(self, numbers: Sequence[int]) -> list[Column]:
        """Return the first moments of some buckets as timestamps."""
        return [F.timestamp_micros(F.lit(self.start(number))) for number in numbers]


def midnight(day: date) -> int:
    """Return the first moment of a UTC date in epoch microseconds."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000


def interactions(events: DataFrame) -> DataFrame:
    """Keep the events that are views, carts or purchases."""
    return events.where(F.col("event_type").isin(*INTERACTIONS))


def demand_cells(events: DataFrame, buckets: Buckets) -> DataFrame:
    """Count interactions per bucket, product, category and brand in one pass over the events.

    No trend needs a finer grouping.

    Returns:
        One row per bucket, product, category and brand: bucket_start, product_id, category_code, brand, last_time (the
        newest interaction of the row), and one count per signal (view, cart, purchase).
    """
    return (
        interactions(events)
        .groupBy(buckets.start_of(F.col("event_time")).alias("bucket_start"), "product_id", "category_code", "brand")
        .agg(
            F.max("event_time").alias("last_time"),
            *(F.count_if(F.col("event_type") == signal).alias(signal) for signal in INTERACTIONS),
        )
    )


def with_previous(
    counts: DataFrame,
    ids: Sequence[str],
    buckets: Buckets,
    *,
    signals: Sequence[str] = INTERACTIONS,
    newest: Sequence[str] = (),
) -> DataFrame:
    """Add up counts by bucket and ids, and add columns with the sums of the previous bucket.

    This takes one exchange and no join, because each count is emitted twice: for its own bucket and the next one.

    Args:
        counts: Columns bucket_start, the ids and one count per signal; if `newest` is given, last_time and its columns.
        ids: Columns to group by, beside the bucket.
        buckets: The grid of buckets.
        signals: The columns to add up.
        newest: Columns of `counts` that are not added up; the newest value of each is kept.

    Returns:
        The ids, bucket_start, and two columns per signal: its sum, and `previous_<signal>`, its sum in the bucket
        before. Then the columns of `newest`, each with its newest non-null value in the two buckets, or null.
    """
    start, zero = F.col("bucket_start"), F.lit(0).cast("bigint")
    as_current = F.struct(start, *(F.col(name) for name in signals), *(zero.alias(previous(name)) for name in signals))
    as_previous = F.struct(
        buckets.next(start).alias("bucket_start"),
        *(zero.alias(name) for name in signals),
        *(F.col(name).alias(previous(name)) for name in signals),
    )
    dated = ["last_time", *newest] if newest else []
    rows = counts.select(*ids, *dated, F.inline(F.array(as_current, as_previous)))
    if newest:
        # Repartition first. Spark sorts to find the newest text, and sorts only once if each group is in one partition.
        # Group by the ids before the bucket: Spark sorts faster if the first column has the most distinct values.
        rows = rows.repartition("bucket_start", *ids)
    sums = [F.sum(name).alias(name) for signal in signals for name in (signal, previous(signal))]
    newest_values = [
        F.max(F.when(F.col(name).isNotNull(), F.struct("last_time", F.col(name).alias("value"))))["value"].alias(name)
        for name in newest
    ]
    return rows.groupBy(*ids, "bucket_start").agg(*sums, *newest_values)


def previous(signal: str) -> str:
    """Return the name of the column in which `with_previous` puts a signal's sum in the bucket before."""
    return f"previous_{signal}"


def by_signal(compared: DataFrame, others: Sequence[str] = ()) -> DataFrame:
    """Turn each row of `with_previous` into one row per signal that has events in either bucket.

    Args:
        compared: The rows of `with_previous`.
        others: Columns of `compared` to keep.

    Returns:
        bucket_start, the columns of `others`, signal, current and previous. The last two
        are the numbers of events in the bucket and in the bucket before it, not both 0.
    """
    signals = F.array(
        *(
            F.struct(
                F.lit(signal).alias("signal"), F.col(signal).alias("current"), F.col(previous(signal)).alias("previous")
            )
            for signal in INTERACTIONS
        )
    )
    rows = compared.select("bucket_start", *others, F.inline(signals))
    return rows.where(F.col("current") + F.col("previous") > 0)


def product_demand(compared: DataFrame) -> DataFrame:
    """Keep the number of events of each product and signal in each bucket, where it is above 0.

    Args:
        compared: The columns of `by_signal`, with product_id.

    Returns:
        bucket_start, signal, product_id and events (above 0).
    """
    return compared.where(F.col("current") > 0).select(
        "bucket_start", "signal", "product_id", F.col("current").alias("events")
    )


def attribute_demand(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """Add up demand per category and per brand.

    Args:
        cells: The rows of `demand_cells`. A row without a category or brand adds nothing to that attribute.
        buckets: The grid of buckets.

    Returns:
        The columns of `by_signal`, with `attribute` (one of ATTRIBUTES) and its `value`.
    """
    attributes = F.array(*(F.struct(F.lit(name).alias("attribute"), F.col(name).alias("value")) for name in ATTRIBUTES))
    rows = cells.select("bucket_start", *INTERACTIONS, F.inline(attributes)).where(F.col("value").isNotNull())
    return by_signal(with_previous(rows, ["attribute", "value"], buckets), ["attribute", "value"])


def total_demand(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """Add up the demand of the whole store.

    Returns:
        The columns of `by_signal`: bucket_start, signal, current and previous.
    """
    return by_signal(with_previous(cells, [], buckets))
