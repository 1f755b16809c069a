"""Pure functions that count demand per time bucket, by product, category and brand.

Demand is the number of interactions of one signal. A signal is a type of interaction: view, cart or purchase.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import INTERACTIONS
from lambda_spark.settings import TrendSettings

ATTRIBUTES = ("category_code", "brand")
"""Product attributes. Demand is also counted for each of their values."""


class Buckets:
    """Division of time into buckets of equal length, as the settings say.

    Bucket 0 begins at the date in the setting `trends.origin`. The methods take and return integer times in epoch
    microseconds.
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
        """Return the number of the first bucket whose trends can still be computed after old events were deleted.

        The trends of a bucket need all events of that bucket and of the bucket before it. A bucket is called frozen if
        some of these events were deleted.

        Args:
            retention_cutoff: Date before which events have expired.
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
        """Return the first moments of the given buckets as timestamps."""
        return [F.timestamp_micros(F.lit(self.start(number))) for number in numbers]


def midnight(day: date) -> int:
    """Return the first moment of a UTC date in epoch microseconds."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000


def interactions(events: DataFrame) -> DataFrame:
    """Keep the events that are views, carts or purchases."""
    return events.where(F.col("event_type").isin(*INTERACTIONS))


def demand_cells(events: DataFrame, buckets: Buckets) -> DataFrame:
    """Count interactions per bucket, product, category and brand in one pass over the events.

    All demand and trends, except the trends of users, are computed from these counts.

    Returns:
        One row per bucket, product, category and brand. The columns are bucket_start, product_id, category_code, brand,
        last_time (time of the newest interaction counted), and one count per signal (view, cart, purchase).
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

    Each count is used in two rows, one for its own bucket and one for the next bucket. So Spark needs only one exchange
    and no join.

    Args:
        counts: Columns bucket_start, the ids and one count per signal. If `newest` is given, also last_time and the
            columns that `newest` names.
        ids: Columns to group by, beside the bucket.
        buckets: The division of time into buckets.
        signals: The columns to add up.
        newest: Columns of `counts` whose newest value is kept. These columns are not added up.

    Returns:
        The ids, bucket_start, and two columns per signal. The first has the sum in the bucket. The second,
        `previous_<signal>`, has the sum in the bucket before. The columns of `newest` follow, each with its newest
        non-null value in the two buckets, or null.
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
        # Repartition first. Spark sorts the rows to find the newest text. If each group is already in one partition,
        # Spark sorts only once. Group by the ids before the bucket, because Spark sorts faster if the first column has
        # the most distinct values.
        rows = rows.repartition("bucket_start", *ids)
    sums = [F.sum(name).alias(name) for signal in signals for name in (signal, previous(signal))]
    newest_values = [
        F.max(F.when(F.col(name).isNotNull(), F.struct("last_time", F.col(name).alias("value"))))["value"].alias(name)
        for name in newest
    ]
    return rows.groupBy(*ids, "bucket_start").agg(*sums, *newest_values)


def previous(signal: str) -> str:
    """Return the name of the column that `with_previous` adds for a signal's sum in the previous bucket."""
    return f"previous_{signal}"


def by_signal(compared: DataFrame, others: Sequence[str] = ()) -> DataFrame:
    """Turn each row of `with_previous` into one row per signal with events in the bucket or the one before.

    Args:
        compared: The rows of `with_previous`.
        others: Columns of `compared` to keep.

    Returns:
        bucket_start, the columns of `others`, signal, current and previous. `current` is the number of events in the
        bucket, and `previous` is the number in the bucket before. At least one of the two is above 0.
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
    """Return the number of events per bucket, signal and product, without rows for 0 events.

    Args:
        compared: The rows of `by_signal`, with the column product_id.

    Returns:
        bucket_start, signal, product_id and events (above 0).
    """
    return compared.where(F.col("current") > 0).select(
        "bucket_start", "signal", "product_id", F.col("current").alias("events")
    )


def attribute_demand(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """Add up demand per category and per brand.

    Args:
        cells: The rows of `demand_cells`. A row without a category counts for no category, and a row without a brand
            for no brand.
        buckets: The division of time into buckets.

    Returns:
        The columns of `by_signal`, with `attribute` (category_code or brand) and `value` (the value of the attribute).
    """
    attributes = F.array(*(F.struct(F.lit(name).alias("attribute"), F.col(name).alias("value")) for name in ATTRIBUTES))
    rows = cells.select("bucket_start", *INTERACTIONS, F.inline(attributes)).where(F.col("value").isNotNull())
    return by_signal(with_previous(rows, ["attribute", "value"], buckets), ["attribute", "value"])


def total_demand(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """Add up the demand for all products of the store.

    Returns:
        The columns of `by_signal`: bucket_start, signal, current and previous.
    """
    return by_signal(with_previous(cells, [], buckets))
