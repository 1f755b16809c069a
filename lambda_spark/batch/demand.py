"""Demand: how often a product was viewed, put into the cart or purchased in each time bucket. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import INTERACTIONS
from lambda_spark.settings import TrendSettings

ATTRIBUTES = ("category_code", "brand")
"""What a product is called by, and demand is added up by."""


class Buckets:
    """The grid of buckets: numbered from the one that begins at the origin, times in epoch microseconds."""

    def __init__(self, settings: TrendSettings) -> None:
        self.length = settings.bucket // settings.bucket.resolution
        self.origin = midnight(settings.origin)

    def number(self, micros: int) -> int:
        return (micros - self.origin) // self.length

    def start(self, number: int) -> int:
        return self.origin + number * self.length

    def first_open(self, cut: date) -> int:
        """The first bucket that all events of itself and of the bucket before it are there for, nothing being older
        than a cut date. The trends of those before it can't be recomputed any more: they are frozen."""
        return self.number(midnight(cut) - 1) + 2

    def start_of(self, moment: Column) -> Column:
        """The first moment of the bucket that a timestamp lies in."""
        since = F.unix_micros(moment) - F.lit(self.origin)
        return F.timestamp_micros(F.unix_micros(moment) - F.pmod(since, F.lit(self.length)))

    def next(self, bucket_start: Column) -> Column:
        return F.timestamp_micros(F.unix_micros(bucket_start) + F.lit(self.length))

    def starts(self, numbers: Sequence[int]) -> list[Column]:
        return [F.timestamp_micros(F.lit(self.start(number))) for number in numbers]


def midnight(day: date) -> int:
    """The first moment of a UTC date in epoch microseconds."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000


def interactions(events: DataFrame) -> DataFrame:
    return events.where(F.col("event_type").isin(*INTERACTIONS))


def demand_cells(events: DataFrame, buckets: Buckets) -> DataFrame:
    """Interactions counted as finely as any trend needs them, in one pass over the events.

    Columns: bucket_start, product_id, category_code, brand, last_time (newest interaction of the cell), and a count per
    signal (view, cart, purchase).
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
    """Counts added up by bucket and ids, beside those of the bucket before: one exchange, no join.

    `counts` has bucket_start, the ids, a count per signal, and with `newest` also `last_time`. Returned are
    bucket_start, the ids, per signal its count here and that of the bucket before (`previous_…`), and the columns in
    `newest`, each with its newest value of the two buckets, null where it has none.
    """
    start, nothing = F.col("bucket_start"), F.lit(0).cast("bigint")
    # A bucket's rows, moved on by one bucket, are the next one's previous.
    here = F.struct(start, *(F.col(name) for name in signals), *(nothing.alias(previous(name)) for name in signals))
    next_one = F.struct(
        buckets.next(start).alias("bucket_start"),
        *(nothing.alias(name) for name in signals),
        *(F.col(name).alias(previous(name)) for name in signals),
    )
    called = ["last_time", *newest] if newest else []
    rows = counts.select(*ids, *called, F.inline(F.array(here, next_one)))
    if newest:
        # The newest of texts is found by sorting: once, where the rows already lie together, and faster by what differs
        # most (below, the ids first).
        rows = rows.repartition("bucket_start", *ids)
    sums = [F.sum(name).alias(name) for signal in signals for name in (signal, previous(signal))]
    last = [
        F.max(F.when(F.col(name).isNotNull(), F.struct("last_time", F.col(name).alias("value"))))["value"].alias(name)
        for name in newest
    ]
    return rows.groupBy(*ids, "bucket_start").agg(*sums, *last)


def previous(signal: str) -> str:
    """The column of `with_previous` with a signal's count of the bucket before."""
    return f"previous_{signal}"


def by_signal(compared: DataFrame, others: Sequence[str] = ()) -> DataFrame:
    """Rows of `with_previous` as one for each signal that has events in either bucket: bucket_start, the other columns
    asked for, signal, current, previous."""
    each = F.array(
        *(
            F.struct(
                F.lit(signal).alias("signal"), F.col(signal).alias("current"), F.col(previous(signal)).alias("previous")
            )
            for signal in INTERACTIONS
        )
    )
    rows = compared.select("bucket_start", *others, F.inline(each))
    return rows.where(F.col("current") + F.col("previous") > 0)


def product_demand(compared: DataFrame) -> DataFrame:
    """Demand per product: bucket_start, signal, product_id, events, the last above 0. `compared` has the columns of
    `by_signal` and product_id."""
    return compared.where(F.col("current") > 0).select(
        "bucket_start", "signal", "product_id", F.col("current").alias("events")
    )


def attribute_demand(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """Demand per category and per brand, with the columns of `by_signal`, `attribute` (the name of one in ATTRIBUTES)
    and its `value`; a cell without a value forms no row."""
    each = F.array(*(F.struct(F.lit(name).alias("attribute"), F.col(name).alias("value")) for name in ATTRIBUTES))
    rows = cells.select("bucket_start", *INTERACTIONS, F.inline(each)).where(F.col("value").isNotNull())
    return by_signal(with_previous(rows, ["attribute", "value"], buckets), ["attribute", "value"])


def total_demand(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """All interactions, with the columns of `by_signal`."""
    return by_signal(with_previous(cells, [], buckets))
