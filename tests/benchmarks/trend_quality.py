"""A study of how well the batch layer and other methods find the trends that were built into many made-up stores.

`./spark-submit.sh benchmark trends` runs this file in a process of its own, with the number of stores.

    planted demand of each seed ─► the function of the batch layer ─┐
                               └─► the other formulas (numpy)      ─┴─► lists per bucket and direction ─► figures

A key is a product, category or brand. A list holds the keys that a method calls rising (or waning), the strongest
first. A method that only ranks keys lists the first TOP keys. One Spark job computes the trends of all stores. The job
treats each store as a signal of its own, because the function `trends` computes each signal separately.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets, previous, with_previous
from lambda_spark.batch.trends import trends
from lambda_spark.errors import UsageError
from lambda_spark.settings import TrendSettings, load_settings
from lambda_spark.storage.tables import STEADY
from lambda_spark.synthetic.model import Floats, Ints
from lambda_spark.synthetic.planted_trends import Of
from lambda_spark.text import table
from tests.benchmarks.planted_demand import PlantedDemand, planted_demand, trend_store, true_changes
from tests.sessions import PROJECT, start_session

TOP = 20
WEEK = 7
BATCH_LAYER = "batch layer"
"""The name of the method that calls the project's own function, `batch.trends.trends`."""


class ListId(NamedTuple):
    """The identity of a list of keys: the store, the type of key, the grid of buckets, the bucket and the direction."""

    seed: int
    key_type: Of
    shift: int
    """Days by which the grid of buckets is shifted."""
    bucket: int
    """The bucket's index in its grid."""
    direction: int
    """1 for rising, -1 for waning."""


Lists = dict[ListId, list[int]]
"""The keys of each list, the strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Figures that say how well one method finds trends, for one type of key and one direction.

    A key is true when it really changed in the list's direction. A figure is None if the method listed no key.
    """

    key_type: Of
    method: str
    direction: str
    precision: float | None
    """Percent of keys with a planted trend among the first 20 keys of each list, over all lists."""
    recall: float
    """Percent of planted trends that are in the top 20 of the list for the bucket in which the trend begins."""
    false_discovery_rate: float
    """Percent of keys in a list that are not true, averaged over all lists. An empty list counts as 0.

    Source:
        False discovery rate, Benjamini and Hochberg, 1995.
    """
    false_of_all: float | None
    """Percent of keys that are not true, counted over the keys of all lists together."""
    listed: float
    """Mean number of keys in a list."""
    delay: float | None
    """Average bucket in which a planted trend enters the top 20, over all grids. Bucket 1 is where the trend begins."""
    overlap: float | None
    """Percent of a list's first 20 keys that stay among the first 20 when the grid is shifted by 1 to 6 days.

    If the two lists differ in length, the longer one counts as 100 %."""


# --- Other methods ----------------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """Views by key in three successive buckets. `current` is the latest and `before` the earliest."""

    current: Floats
    previous: Floats
    before: Floats


Score = Callable[[Counts], tuple[Floats, Floats | None]]
"""A method that returns a score for each key and the smallest absolute score that counts as a trend.

The score is positive for a rising key and negative for a waning one. A method that only ranks keys returns None in
place of the smallest score."""


def growth(counts: Counts) -> tuple[Floats, Floats | None]:
    """Return (c - p) / (c + p + 1), from current views c and previous views p. The original project ranks by this."""
    c, p, _ = counts
    return (c - p) / (c + p + 1), None


def difference(counts: Counts) -> tuple[Floats, Floats | None]:
    """Return c - p, the views in the second half of a period minus the views in its first half.

    Source:
        "trending" of the Universal Recommender (ActionML).
    """
    return counts.current - counts.previous, None


def difference_of_differences(counts: Counts) -> tuple[Floats, Floats | None]:
    """Return (c - p) - (p - b), the latest change in views minus the previous change.

    c, p and b are the views in the current, the previous and the earliest of three equal parts of a period.

    Source:
        "hot" of the Universal Recommender (ActionML).
    """
    c, p, b = counts
    return (c - p) - (p - b), None


def decayed_popularity(counts: Counts) -> tuple[Floats, Floats | None]:
    """Return c + p/2 + b/4, a score that cannot show waning, from current views c, previous p and earlier b.

    This score is popularity with a half-life of one bucket."""
    c, p, b = counts
    return c + p / 2 + b / 4, None


def poisson_interval(counts: Counts) -> tuple[Floats, Floats | None]:
    """Return (c - p) / (2.576·√p), from current views c and previous views p, where p is at least 1.

    A key is a trend if its absolute score is at least 1. Then c lies outside the 99 % interval of a Poisson variable
    with mean p, computed with the normal approximation.

    Source:
        Point-by-point Poisson, Hendrickson, Kolb, Lehman and Montague, Trend Detection in Social Data, Twitter 2015.
    """
    c, p, _ = counts
    score = (c - p) / (2.576 * np.sqrt(np.maximum(p, 1)))
    return score, np.ones_like(score)


def share_z(counts: Counts) -> tuple[Floats, Floats | None]:
    """Return the z-score of the change in a key's share of all views.

    A key is a trend if |z| is at least 3 and its views change by at least 10. The formula is in `batch.trends.z_score`.
    This method does not limit the false discovery rate.
    """
    c, p, _ = counts
    n, share = c + p, c.sum() / (c.sum() + p.sum())
    z = (c - n * share) / np.sqrt(np.maximum(n, 1) * share * (1 - share))
    return z, np.where(np.abs(c - p) >= 10, 3.0, np.inf)


METHODS: dict[str, Score] = {
    "growth (original)": growth,
    "difference (UR trending)": difference,
    "difference of differences (UR hot)": difference_of_differences,
    "decayed popularity": decayed_popularity,
    "Poisson interval (Gnip)": poisson_interval,
    "z of the share alone": share_z,
}


def lists_by_score(demand: PlantedDemand, seed: int, shifts: Iterable[int], score: Score) -> Lists:
    """Return the lists of trending keys that the method `score` makes for one store."""
    lists: Lists = {}
    for key_type in get_args(Of):
        for shift in shifts:
            buckets = bucket_days(demand.days, shift)
            by_day = demand.views[key_type]
            views = [np.zeros_like(by_day[0])] + [by_day[days].sum(axis=0) for days in buckets]
            for bucket in range(1, len(buckets)):
                counts = Counts(*(views[bucket + 1 - back].astype(float) for back in range(3)))
                scores, least = score(counts)
                for direction in (1, -1):
                    is_trend = (scores * direction > 0) & (least is None or scores * direction >= least)
                    keys = np.flatnonzero(is_trend)
                    strongest = keys[np.argsort(-np.abs(scores[keys]), kind="stable")]
                    listed = strongest[:TOP] if least is None else strongest
                    lists[ListId(seed, key_type, shift, bucket, direction)] = listed.tolist()
    return lists


# --- The batch layer --------------------------------------------------------------------------------------------------


def lists_of_batch_layer(
    spark: SparkSession, demands: Mapping[int, PlantedDemand], shifts: Iterable[int], settings: TrendSettings
) -> Lists:
    """Return the lists of trending keys that `batch.trends.trends` makes for all stores."""
    lists: Lists = {}
    for shift in shifts:
        shifted = replace(settings, origin=settings.origin + timedelta(days=shift))
        for row in sorted(_trend_rows(spark, demands, shift, shifted).collect(), key=lambda row: row.rank):
            key_type, seed = row.signal.split()
            first = demands[int(seed)].first_day.astype("datetime64[s]").item()
            bucket = ((row.bucket_start - first).days - shift) // WEEK + (shift > 0)
            list_id = ListId(int(seed), key_type, shift, bucket, 1 if row.direction == "rising" else -1)
            lists.setdefault(list_id, []).append(row.key)
    return lists


def _trend_rows(
    spark: SparkSession, demands: Mapping[int, PlantedDemand], shift: int, settings: TrendSettings
) -> DataFrame:
    buckets = Buckets(settings)
    demand = _with_previous_counts(spark, _key_counts(demands, shift), buckets)
    totals = _with_previous_counts(spark, _total_counts(demands, shift), buckets)
    starts = [day for store in demands.values() for day in _bucket_starts(store, shift)]
    first, newest = (F.timestamp_micros(F.lit(_micros(day))) for day in (min(starts), max(starts)))
    rows = trends(demand, totals, "key", settings, first_bucket=first, newest_bucket=newest, known_until=newest)
    return rows.where(F.col("direction") != STEADY).select("signal", "bucket_start", "key", "direction", "rank")


def _with_previous_counts(
    spark: SparkSession, columns: Iterator[tuple[str, np.datetime64, Ints, Ints]], buckets: Buckets
) -> DataFrame:
    """Return rows (bucket_start, signal, key, current, previous) from tuples (signal, bucket start, keys, events)."""
    signals, starts, keys, events = zip(*columns, strict=True)
    sizes = [len(part) for part in keys]
    part_of_row = np.repeat(np.arange(len(sizes)), sizes)
    counts = pa.table(
        {
            "signal": pa.array(signals).take(pa.array(part_of_row)),
            "micros": np.array([_micros(start) for start in starts])[part_of_row],
            "key": np.concatenate(keys),
            "events": np.concatenate(events),
        }
    )
    rows = (
        spark.createDataFrame(counts)
        .where(F.col("events") > 0)
        .select("signal", F.timestamp_micros("micros").alias("bucket_start"), "key", F.col("events").alias("current"))
    )
    return with_previous(rows, ["signal", "key"], buckets, signals=["current"]).withColumnRenamed(
        previous("current"), "previous"
    )


def _key_counts(demands: Mapping[int, PlantedDemand], shift: int) -> Iterator[tuple[str, np.datetime64, Ints, Ints]]:
    for seed, demand in demands.items():
        for key_type, views in demand.views.items():
            starts = _bucket_starts(demand, shift)
            for start, days in zip(starts, bucket_days(demand.days, shift), strict=True):
                yield f"{key_type} {seed}", start, np.arange(views.shape[1]), views[days].sum(axis=0)


def _total_counts(demands: Mapping[int, PlantedDemand], shift: int) -> Iterator[tuple[str, np.datetime64, Ints, Ints]]:
    for seed, demand in demands.items():
        for key_type in demand.views:
            starts = _bucket_starts(demand, shift)
            for start, days in zip(starts, bucket_days(demand.days, shift), strict=True):
                yield f"{key_type} {seed}", start, np.zeros(1, np.int64), demand.traffic[days].sum(keepdims=True)


def _bucket_starts(demand: PlantedDemand, shift: int) -> list[np.datetime64]:
    first = shift - WEEK if shift else 0
    return [demand.first_day + first + WEEK * number for number in range(len(bucket_days(demand.days, shift)))]


def _micros(day: np.datetime64) -> int:
    return int(day.astype("datetime64[us]").astype(np.int64))


# --- Figures ----------------------------------------------------------------------------------------------------------


def bucket_days(days: int, shift: int) -> list[range]:
    """Return the indices of the days in each bucket, when all buckets are shifted by `shift` days.

    The first bucket of a shifted grid is shorter, because it begins before the store's first day.
    """
    begins = range(shift - WEEK if shift else 0, days, WEEK)
    return [range(max(begin, 0), min(begin + WEEK, days)) for begin in begins]


def trend_quality(
    spark: SparkSession, seeds: Sequence[int], settings: TrendSettings, shifts: Sequence[int] = range(WEEK)
) -> list[Quality]:
    """Make one store for each seed and return the figures of all methods over these stores.

    Args:
        spark: The session.
        seeds: One seed per store.
        settings: The settings of the batch layer's trends.
        shifts: Days by which the grid of buckets is shifted. 0 must be among them.

    Raises:
        UsageError: If `trends.bucket` is not 7 days.
    """
    if settings.bucket != timedelta(days=WEEK):
        raise UsageError(
            "this benchmark needs trends.bucket = '7 days', because the trends are planted on Mondays. "
            "Set trends.bucket = '7 days' in conf/lambda.toml"
        )
    demands = {seed: planted_demand(trend_store(seed)) for seed in seeds}
    lists = {BATCH_LAYER: lists_of_batch_layer(spark, demands, shifts, settings)}
    for name, score in METHODS.items():
        lists[name] = {}
        for seed, demand in demands.items():
            lists[name] |= lists_by_score(demand, seed, shifts, score)
    truth = {
        ListId(seed, key_type, 0, bucket, direction): set(np.flatnonzero(changes == direction).tolist())
        for seed, demand in demands.items()
        for key_type in get_args(Of)
        for bucket, changes in _true_changes_by_bucket(demand, key_type)
        for direction in (1, -1)
    }
    return [
        quality(method, key_type, direction, lists[method], truth, demands, shifts)
        for key_type in get_args(Of)
        for method in lists
        for direction in (1, -1)
    ]


def _true_changes_by_bucket(demand: PlantedDemand, key_type: Of) -> Iterator[tuple[int, Ints]]:
    buckets = bucket_days(demand.days, 0)
    for bucket in range(1, len(buckets)):
        yield bucket, true_changes(demand, key_type, buckets[bucket - 1], buckets[bucket])


def quality(
    method: str,
    key_type: Of,
    direction: int,
    lists: Lists,
    truth: Mapping[ListId, set[int]],
    demands: Mapping[int, PlantedDemand],
    shifts: Sequence[int],
) -> Quality:
    """Return figures that say how well one method's lists match the true changes.

    Args:
        method: The name of the method.
        key_type: The type of keys to measure.
        direction: 1 for rising, -1 for waning.
        lists: The method's lists.
        truth: For each list of the unshifted grid, the keys that really changed in its direction.
        demands: The stores by seed.
        shifts: Days by which the grids are shifted.
    """
    list_ids = [list_id for list_id in truth if list_id.key_type == key_type and list_id.direction == direction]
    top = hits = found = planted = 0
    listed, false = [], []
    for list_id in list_ids:
        keys = lists.get(list_id, [])
        first, planted_keys = keys[:TOP], _planted_keys(demands[list_id.seed], list_id)
        top, hits = top + len(first), hits + len(truth[list_id].intersection(first))
        listed.append(len(keys))
        false.append(len(set(keys) - truth[list_id]))
        planted, found = planted + len(planted_keys), found + len(planted_keys.intersection(first))
    delays = [
        delay
        for seed, demand in demands.items()
        for week, key, change in demand.planted[key_type]
        if change == direction
        for shift in shifts
        if (delay := _delay(lists, seed, key_type, shift, week, key, direction)) is not None
    ]
    overlaps = list(_overlaps(lists, list_ids, shifts, demands))
    return Quality(
        key_type=key_type,
        method=method,
        direction="rising" if direction > 0 else "waning",
        precision=100 * hits / top if top else None,
        recall=100 * found / planted,
        false_discovery_rate=100 * float(np.mean(np.array(false) / np.maximum(listed, 1))),
        false_of_all=100 * sum(false) / sum(listed) if sum(listed) else None,
        listed=float(np.mean(listed)),
        delay=float(np.mean(delays)) if delays else None,
        overlap=100 * float(np.mean(overlaps)) if overlaps else None,
    )


def _planted_keys(demand: PlantedDemand, list_id: ListId) -> set[int]:
    planted = demand.planted[list_id.key_type]
    return {key for week, key, change in planted if (week, change) == (list_id.bucket, list_id.direction)}


def _delay(lists: Lists, seed: int, key_type: Of, shift: int, week: int, key: int, direction: int) -> int | None:
    """Return the number of the bucket in which a planted trend is first among the TOP keys of a list.

    Returns:
        1 for the bucket in which the trend begins, 2 for the bucket after it, None for neither.
    """
    begins = (WEEK * week - shift) // WEEK + (shift > 0)
    for delay in (1, 2):
        if key in lists.get(ListId(seed, key_type, shift, begins + delay - 1, direction), [])[:TOP]:
            return delay
    return None


def _overlaps(
    lists: Lists, list_ids: Sequence[ListId], shifts: Sequence[int], demands: Mapping[int, PlantedDemand]
) -> Iterator[float]:
    """Yield how much a list and the list of a shifted bucket have in common, as a share of TOP keys.

    There is one share for each complete bucket and each shift of the grid. Each list is compared with the list of the
    shifted bucket that shares the most days with the list's own bucket.
    """
    for list_id in list_ids:
        days = demands[list_id.seed].days
        first = set(lists.get(list_id, [])[:TOP])
        for shift in shifts:
            # Two shifted buckets overlap the unshifted bucket. For shifts of up to 3 days, the later
            # bucket overlaps more.
            bucket = list_id.bucket + (shift <= WEEK // 2)
            is_complete = max(WEEK * (list_id.bucket + 1), WEEK * bucket + shift) <= days
            other = set(lists.get(list_id._replace(shift=shift, bucket=bucket), [])[:TOP])
            if shift and is_complete and (first or other):
                yield len(first & other) / max(len(first), len(other))


def quality_tables(figures: Iterable[Quality]) -> str:
    """Return the figures as plain text, with one table each for products, categories and brands."""
    parts = defaultdict(list)
    for each in figures:
        parts[each.key_type].append(
            {
                "method": each.method,
                "direction": each.direction,
                f"precision@{TOP}": each.precision,
                f"recall@{TOP}": each.recall,
                "false": each.false_discovery_rate,
                "false of all": each.false_of_all,
                "listed": each.listed,
                "delay": each.delay,
                "overlap": each.overlap,
            }
        )
    percents = [f"precision@{TOP}", f"recall@{TOP}", "false", "false of all", "listed", "overlap"]
    formats = {**dict.fromkeys(percents, ".1f"), "delay": ".2f"}
    return "\n\n".join(f"{key_type}\n{table(rows, formats)}" for key_type, rows in parts.items())


def main(stores: int) -> None:
    """Print the figures as JSON, one line per method, type of key and direction. `stores` is the number of stores."""
    settings = load_settings(PROJECT / "conf" / "lambda.toml").trends
    with TemporaryDirectory(prefix="trends-") as folder:
        spark = start_session("benchmark trends", Path(folder) / "spark.log")
        for figures in trend_quality(spark, range(1, stores + 1), settings):
            print(json.dumps(asdict(figures)), flush=True)
        spark.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
