"""Demand: how often a product was viewed, put into the cart or purchased in each time bucket. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.settings import TrendSettings

SIGNALS = ("view", "cart", "purchase")
"""The event types that are interactions; remove_from_cart is none."""
ATTRIBUTES = ("category_code", "brand")
"""What a product is called by, and demand is added up by."""
_CALLED = ("product_id", "last_time", *ATTRIBUTES)


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
    return events.where(F.col("event_type").isin(*SIGNALS))


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
            *(F.count_if(F.col("event_type") == signal).alias(signal) for signal in SIGNALS),
        )
    )


def product_demand(cells: DataFrame) -> DataFrame:
    """Demand per product: bucket_start, signal, product_id, events, the last above 0."""
    return _by_signal(cells, ["bucket_start", "product_id"])


def newest_attributes(cells: DataFrame, buckets: Buckets) -> DataFrame:
    """What a product is called in a bucket: bucket_start, product_id and its category_code and brand, each the newest
    of this bucket and the one before, whatever the signal; null where it had none."""
    newest = [
        F.max(F.when(F.col(name).isNotNull(), F.struct("last_time", F.col(name).alias("value")))).alias(name)
        for name in ATTRIBUTES
    ]
    start = F.col("bucket_start")
    return (
        cells.select(F.explode(F.array(start, buckets.next(start))).alias("bucket_start"), *_CALLED)
        .groupBy("bucket_start", "product_id")
        .agg(*newest)
        .select("bucket_start", "product_id", *(F.col(name)["value"].alias(name) for name in ATTRIBUTES))
    )


def attribute_demand(cells: DataFrame, attribute: str) -> DataFrame:
    """Demand per category or brand: bucket_start, signal, the attribute, events; cells without it form no row."""
    return _by_signal(cells.where(F.col(attribute).isNotNull()), ["bucket_start", attribute])


def total_demand(cells: DataFrame) -> DataFrame:
    """All interactions of a bucket and signal: bucket_start, signal, events, the last above 0."""
    return _by_signal(cells, ["bucket_start"])


def _by_signal(cells: DataFrame, ids: Sequence[str]) -> DataFrame:
    """Cells added up by some columns, a row for each signal that has events."""
    counts = cells.groupBy(*ids).agg(*(F.sum(signal).alias(signal) for signal in SIGNALS))
    events = counts.unpivot([F.col(name) for name in ids], [F.col(name) for name in SIGNALS], "signal", "events")
    return events.where(F.col("events") > 0)
