"""How well trends are found: the batch layer's definition against others, over many stores with planted trends.

`./spark-submit.sh benchmark trends` runs this file in a process of its own, with the number of stores.

    planted demand of each seed ─► the function of the batch layer ─┐
                               └─► the other formulas (numpy)      ─┴─► lists per bucket and direction ─► figures

A list has what a method calls rising (or waning), the strongest first. Methods that only rank call their first TOP. All
stores are compared in one pass of Spark: `trends` treats every signal apart, so each store is a signal of its own.
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
"""The method that is the production function."""


class Place(NamedTuple):
    """Where a list belongs: the store, what is listed, by how many days the grid is shifted, bucket and direction."""

    seed: int
    of: Of
    shift: int
    bucket: int
    direction: int


Lists = dict[Place, list[int]]
"""Keys by place, the strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The figures of one method, for one kind of key and one direction; a figure is null where nothing was listed."""

    of: Of
    method: str
    direction: str
    precision: float | None
    """Of the first 20 listed, the percent that truly moved that way."""
    recall: float
    """Of the trends planted in a bucket, the percent among its first 20."""
    false: float
    """Of those listed in a bucket, the percent that did not move that way, 0 where none is listed, on average over
    buckets: the false discovery rate (Benjamini and Hochberg, 1995)."""
    false_of_all: float | None
    """Of all that was ever listed, the percent that did not move that way."""
    listed: float
    """Keys listed per bucket."""
    buckets: float | None
    """Buckets until a planted trend is among the first 20, over all grids: 1 is the bucket in which it begins."""
    stays: float | None
    """The percent of the first 20 that stays when the grid is shifted by 1 to 6 days (the longer list is 100)."""


# --- Other methods ----------------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """Views by key in a bucket and the two before it."""

    current: Floats
    previous: Floats
    before: Floats


Score = Callable[[Counts], tuple[Floats, Floats | None]]
"""A score, positive for what rises and negative for what wanes, and from which absolute score on a key is called; None
where the method only ranks."""


def growth(counts: Counts) -> tuple[Floats, Floats | None]:
    """(c - p) / (c + p + 1): the trend value of the original project, which ranks by it."""
    c, p, _ = counts
    return (c - p) / (c + p + 1), None


def difference(counts: Counts) -> tuple[Floats, Floats | None]:
    """c - p: "trending" of the Universal Recommender (ActionML), the difference between two halves of a period."""
    return counts.current - counts.previous, None


def difference_of_differences(counts: Counts) -> tuple[Floats, Floats | None]:
    """(c - p) - (p - b): "hot" of the Universal Recommender (ActionML), over three thirds of a period."""
    c, p, b = counts
    return (c - p) - (p - b), None


def decayed_popularity(counts: Counts) -> tuple[Floats, Floats | None]:
    """c + p/2 + b/4: popularity with a half-life of one bucket. It has no notion of waning."""
    c, p, b = counts
    return c + p / 2 + b / 4, None


def poisson_interval(counts: Counts) -> tuple[Floats, Floats | None]:
    """(c - p) / (2.576·√p), a trend from 1 on: is the count outside the 99 % interval of a Poisson variable with the
    last count as its mean? Point-by-point Poisson of Hendrickson, Kolb, Lehman and Montague, Trend Detection in Social
    Data, Twitter 2015, with the normal interval; p at least 1."""
    c, p, _ = counts
    score = (c - p) / (2.576 * np.sqrt(np.maximum(p, 1)))
    return score, np.ones_like(score)


def share_z(counts: Counts) -> tuple[Floats, Floats | None]:
    """z of the share by itself, from 3 on, with a change of at least 10: see `batch.trends.z_score`."""
    c, p, _ = counts
    n, share = c + p, c.sum() / (c.sum() + p.sum())
    z = (c - n * share) / np.sqrt(np.maximum(n, 1) * share * (1 - share))
    return z, np.where(np.abs(c - p) >= 10, 3.0, np.inf)


METHODS: dict[str, Score] = {
    "growth (original)": growth,
    "difference (UR trending)": difference,
    "of differences (UR hot)": difference_of_differences,
    "decayed popularity": decayed_popularity,
    "Poisson interval (Gnip)": poisson_interval,
    "z of the share alone": share_z,
}


def other_lists(demand: PlantedDemand, seed: int, shifts: Iterable[int], score: Score) -> Lists:
    """What a method lists in one store."""
    lists: Lists = {}
    for of in get_args(Of):
        for shift in shifts:
            buckets = bucket_days(demand.days, shift)
            views = [np.zeros_like(demand.views[of][0])] + [demand.views[of][days].sum(axis=0) for days in buckets]
            for bucket in range(1, len(buckets)):
                counts = Counts(*(views[bucket + 1 - back].astype(float) for back in range(3)))
                scores, least = score(counts)
                for direction in (1, -1):
                    called = (scores * direction > 0) & (least is None or scores * direction >= least)
                    keys = np.flatnonzero(called)
                    strongest = keys[np.argsort(-np.abs(scores[keys]), kind="stable")]
                    listed = strongest[:TOP] if least is None else strongest
                    lists[Place(seed, of, shift, bucket, direction)] = listed.tolist()
    return lists


# --- The batch layer --------------------------------------------------------------------------------------------------


def batch_lists(
    spark: SparkSession, demands: Mapping[int, PlantedDemand], shifts: Iterable[int], settings: TrendSettings
) -> Lists:
    """What `batch.trends.trends` lists in all stores."""
    lists: Lists = {}
    for shift in shifts:
        shifted = replace(settings, origin=settings.origin + timedelta(days=shift))
        for row in sorted(_called(spark, demands, shift, shifted).collect(), key=lambda row: row.rank):
            of, seed = row.signal.split()
            first = demands[int(seed)].first_day.astype("datetime64[s]").item()
            bucket = ((row.bucket_start - first).days - shift) // WEEK + (shift > 0)
            place = Place(int(seed), of, shift, bucket, 1 if row.direction == "rising" else -1)
            lists.setdefault(place, []).append(row.key)
    return lists


def _called(
    spark: SparkSession, demands: Mapping[int, PlantedDemand], shift: int, settings: TrendSettings
) -> DataFrame:
    buckets = Buckets(settings)
    demand = _counted(spark, _demand_columns(demands, shift), buckets)
    totals = _counted(spark, _total_columns(demands, shift), buckets)
    starts = [day for one in demands.values() for day in _bucket_starts(one, shift)]
    first, newest = (F.timestamp_micros(F.lit(_micros(day))) for day in (min(starts), max(starts)))
    rows = trends(demand, totals, "key", settings, first_bucket=first, newest_bucket=newest, known_until=newest)
    return rows.where(F.col("direction") != STEADY).select("signal", "bucket_start", "key", "direction", "rank")


def _counted(
    spark: SparkSession, columns: Iterator[tuple[str, np.datetime64, Ints, Ints]], buckets: Buckets
) -> DataFrame:
    """Columns bucket_start, signal, key, current and previous from (signal, start, keys, events)."""
    signals, starts, keys, events = zip(*columns, strict=True)
    sizes = [len(part) for part in keys]
    place = np.repeat(np.arange(len(sizes)), sizes)
    counted = pa.table(
        {
            "signal": pa.array(signals).take(pa.array(place)),
            "micros": np.array([_micros(start) for start in starts])[place],
            "key": np.concatenate(keys),
            "events": np.concatenate(events),
        }
    )
    rows = (
        spark.createDataFrame(counted)
        .where(F.col("events") > 0)
        .select("signal", F.timestamp_micros("micros").alias("bucket_start"), "key", F.col("events").alias("current"))
    )
    return with_previous(rows, ["signal", "key"], buckets, signals=["current"]).withColumnRenamed(
        previous("current"), "previous"
    )


def _demand_columns(
    demands: Mapping[int, PlantedDemand], shift: int
) -> Iterator[tuple[str, np.datetime64, Ints, Ints]]:
    for seed, demand in demands.items():
        for of, views in demand.views.items():
            starts = _bucket_starts(demand, shift)
            for start, days in zip(starts, bucket_days(demand.days, shift), strict=True):
                yield f"{of} {seed}", start, np.arange(views.shape[1]), views[days].sum(axis=0)


def _total_columns(demands: Mapping[int, PlantedDemand], shift: int) -> Iterator[tuple[str, np.datetime64, Ints, Ints]]:
    for seed, demand in demands.items():
        for of in demand.views:
            starts = _bucket_starts(demand, shift)
            for start, days in zip(starts, bucket_days(demand.days, shift), strict=True):
                yield f"{of} {seed}", start, np.zeros(1, np.int64), demand.traffic[days].sum(keepdims=True)


def _bucket_starts(demand: PlantedDemand, shift: int) -> list[np.datetime64]:
    first = shift - WEEK if shift else 0
    return [demand.first_day + first + WEEK * number for number in range(len(bucket_days(demand.days, shift)))]


def _micros(day: np.datetime64) -> int:
    return int(day.astype("datetime64[us]").astype(np.int64))


# --- Figures ----------------------------------------------------------------------------------------------------------


def bucket_days(days: int, shift: int) -> list[range]:
    """The days, by index, of each bucket of a grid shifted by so many days: with a shift the first one is cut."""
    begins = range(shift - WEEK if shift else 0, days, WEEK)
    return [range(max(begin, 0), min(begin + WEEK, days)) for begin in begins]


def trend_quality(
    spark: SparkSession, seeds: Sequence[int], settings: TrendSettings, shifts: Sequence[int] = range(WEEK)
) -> list[Quality]:
    """All figures over the stores of some seeds, and grids shifted by some days (0 among them)."""
    if settings.bucket != timedelta(days=WEEK):
        raise UsageError("trends are measured for trends.bucket = '7 days', as they are planted on Mondays")
    demands = {seed: planted_demand(trend_store(seed)) for seed in seeds}
    lists = {BATCH_LAYER: batch_lists(spark, demands, shifts, settings)}
    for name, score in METHODS.items():
        lists[name] = {}
        for seed, demand in demands.items():
            lists[name] |= other_lists(demand, seed, shifts, score)
    truth = {
        Place(seed, of, 0, bucket, direction): set(np.flatnonzero(changes == direction).tolist())
        for seed, demand in demands.items()
        for of in get_args(Of)
        for bucket, changes in _changes(demand, of)
        for direction in (1, -1)
    }
    return [
        quality(method, of, direction, lists[method], truth, demands, shifts)
        for of in get_args(Of)
        for method in lists
        for direction in (1, -1)
    ]


def _changes(demand: PlantedDemand, of: Of) -> Iterator[tuple[int, Ints]]:
    buckets = bucket_days(demand.days, 0)
    for bucket in range(1, len(buckets)):
        yield bucket, true_changes(demand, of, buckets[bucket - 1], buckets[bucket])


def quality(
    method: str,
    of: Of,
    direction: int,
    lists: Lists,
    truth: Mapping[Place, set[int]],
    demands: Mapping[int, PlantedDemand],
    shifts: Sequence[int],
) -> Quality:
    """The figures of one method's lists."""
    places = [place for place in truth if place.of == of and place.direction == direction]
    top = hits = found = planted = 0
    listed, false = [], []
    for place in places:
        called = lists.get(place, [])
        first, wanted = called[:TOP], _planted(demands[place.seed], place)
        top, hits = top + len(first), hits + len(truth[place].intersection(first))
        listed.append(len(called))
        false.append(len(set(called) - truth[place]))
        planted, found = planted + len(wanted), found + len(wanted.intersection(first))
    delays = [
        delay
        for seed, demand in demands.items()
        for week, key, way in demand.planted[of]
        if way == direction
        for shift in shifts
        if (delay := _delay(lists, seed, of, shift, week, key, way)) is not None
    ]
    stays = list(_stays(lists, places, shifts, demands))
    return Quality(
        of=of,
        method=method,
        direction="rising" if direction > 0 else "waning",
        precision=100 * hits / top if top else None,
        recall=100 * found / planted,
        false=100 * float(np.mean(np.array(false) / np.maximum(listed, 1))),
        false_of_all=100 * sum(false) / sum(listed) if sum(listed) else None,
        listed=float(np.mean(listed)),
        buckets=float(np.mean(delays)) if delays else None,
        stays=100 * float(np.mean(stays)) if stays else None,
    )


def _planted(demand: PlantedDemand, place: Place) -> set[int]:
    return {key for week, key, way in demand.planted[place.of] if (week, way) == (place.bucket, place.direction)}


def _delay(lists: Lists, seed: int, of: Of, shift: int, week: int, key: int, way: int) -> int | None:
    """1 where a trend is among the first in the bucket in which it begins, 2 in the one after, null in neither."""
    begins = (WEEK * week - shift) // WEEK + (shift > 0)
    for delay in (1, 2):
        if key in lists.get(Place(seed, of, shift, begins + delay - 1, way), [])[:TOP]:
            return delay
    return None


def _stays(
    lists: Lists, places: Sequence[Place], shifts: Sequence[int], demands: Mapping[int, PlantedDemand]
) -> Iterator[float]:
    """For each complete bucket and each shift, how much of the first 20 is in the shifted bucket that overlaps most."""
    for place in places:
        days = demands[place.seed].days
        first = set(lists.get(place, [])[:TOP])
        for shift in shifts:
            # A shift by up to three days is most alike when it goes forward, a greater one when it goes back.
            bucket = place.bucket + (shift <= WEEK // 2)
            is_complete = max(WEEK * (place.bucket + 1), WEEK * bucket + shift) <= days
            other = set(lists.get(place._replace(shift=shift, bucket=bucket), [])[:TOP])
            if shift and is_complete and (first or other):
                yield len(first & other) / max(len(first), len(other))


def rendered(figures: Iterable[Quality]) -> str:
    """The figures as plain text, a table for products, categories and brands each."""
    parts = defaultdict(list)
    for one in figures:
        parts[one.of].append(
            {
                "method": one.method,
                "direction": one.direction,
                f"precision@{TOP}": one.precision,
                f"recall@{TOP}": one.recall,
                "false": one.false,
                "of all": one.false_of_all,
                "listed": one.listed,
                "buckets": one.buckets,
                "stays": one.stays,
            }
        )
    formats = dict.fromkeys([f"precision@{TOP}", f"recall@{TOP}", "false", "of all", "listed", "stays"], ".1f")
    return "\n\n".join(f"{of}\n{table(rows, formats | {'buckets': '.2f'})}" for of, rows in parts.items())


def main(stores: int) -> None:
    """Print the figures over so many stores as JSON, a line each."""
    settings = load_settings(PROJECT / "conf" / "lambda.toml").trends
    with TemporaryDirectory(prefix="trends-") as folder:
        spark = start_session("benchmark trends", Path(folder) / "spark.log")
        for one in trend_quality(spark, range(1, stores + 1), settings):
            print(json.dumps(asdict(one)), flush=True)
        spark.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
