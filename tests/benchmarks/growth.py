"""What fresh results cost after ever more days of history, with the same number of events a day.

    python -m tests.benchmarks.growth FOLDER EVENTS_A_DAY DAYS MICRO_BATCHES

A lake takes in DAYS days; then the next day comes in MICRO_BATCHES deliveries of 10,000 events, or of an equal share of
the day where it has not so many, as to jobs that stay up. Prints a line of JSON for each micro-batch of ingestion and
of the speed layer, and for what is renewed after them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset, field
from pyspark.sql import SparkSession

from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.settings import load_settings
from lambda_spark.spark import fit_partitions
from lambda_spark.speed.update import update
from lambda_spark.storage import tables
from lambda_spark.storage.lake import Lake
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.benchmarks.measure import bytes_read_by, cpu_seconds_of, jvm_of, print_peak
from tests.sessions import start_session

EVENTS = 10_000
"""In one delivery, at most."""
FEWEST_DAYS = 21
"""A made-up store has no fewer."""
ONE_FILE_EACH = "1b"
"""As `max_bytes_per_batch`: a file is never split, and none waits for another."""


class Clock:
    """Prints what went by since it was last asked."""

    def __init__(self, spark: SparkSession, who: str) -> None:
        self._spark = spark
        self._jvm = jvm_of(spark)
        self._who = who
        self.start()

    def start(self) -> None:
        # To ask Spark for the files takes longer the more it has done: that counts for nobody.
        files = files_read(self._spark)
        self._seen = (*self._gone_by(), files)

    def _gone_by(self) -> tuple[float, float, int]:
        return perf_counter(), cpu_seconds_of("self", self._jvm), bytes_read_by(self._jvm)

    def lap(self, work: str, **more: int) -> None:
        now = (*self._gone_by(), files_read(self._spark))
        seconds, cpu, read, files = (after - before for after, before in zip(now, self._seen, strict=True))
        self._seen = (*self._gone_by(), now[-1])
        figures = {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "bytes_read": read, "files_read": files}
        print(json.dumps({"who": self._who, "work": work, **figures, **more}), flush=True)


def files_read(spark: SparkSession) -> int:
    """How many data files the queries have read that Spark still tells of."""
    store = spark._jsparkSession.sharedState().statusStore()
    queries = store.executionsList()
    found = 0
    for at in range(queries.size()):
        query = queries.apply(at)
        numbers = [query.metrics().apply(nth) for nth in range(query.metrics().size())]
        values = store.executionMetrics(query.executionId())
        for number in numbers:
            if number.name() == "number of files read" and values.contains(number.accumulatorId()):
                found += int(values.apply(number.accumulatorId()).replace(",", ""))
    return found


def main(folder: Path, events_a_day: int, days: int, deliveries: int) -> None:
    who = f"{days} days" if days > 1 else "1 day"
    last_day = write_days(folder, events_a_day, days)
    size = min(EVENTS, last_day.num_rows // deliveries)

    spark = start_session("growth", folder / "spark.log", tuned={"spark.sql.ui.retainedExecutions": "100000"})
    settings = load_settings(None, [])
    lake = Lake.open(spark, str(folder / "lake"), create=True)
    inbox = folder / "inbox"
    inbox.mkdir()
    sources = [str(folder / "history"), str(inbox)]
    clock = Clock(spark, who)

    def each_micro_batch(work: str) -> Callable[[str], None]:
        clock.start()
        return lambda said: clock.lap(work) if said.startswith("micro-batch") else None

    ingest(lake, sources, settings.ingest, progress=silent)
    clock.lap("history: ingest", events=days * events_a_day)
    update(lake, settings.similarity, progress=silent)
    clock.lap("history: similarity", events=days * events_a_day)
    fit_partitions(spark, lake.size(tables.EVENTS))
    refresh_trends(lake, settings.trends, progress=silent)
    clock.lap("history: trends", events=days * events_a_day)

    for number in range(deliveries):
        pq.write_table(last_day.slice(number * size, size), inbox / f"{number:04}.parquet")
    each = replace(settings.ingest, max_bytes_per_batch=ONE_FILE_EACH)
    ingest(lake, sources, each, progress=each_micro_batch("micro-batch of ingest"))
    clock.lap("after them: products")
    each = replace(settings.similarity, max_bytes_per_batch=ONE_FILE_EACH)
    update(lake, each, progress=each_micro_batch("micro-batch of similarity"))
    clock.lap("after them: similar_items")
    refresh_trends(lake, settings.trends, progress=silent)
    clock.lap("after them: trends")
    print_peak(who, jvm_of(spark))
    spark.stop()


def write_days(folder: Path, events_a_day: int, days: int) -> pa.Table:
    """Write the days before the last one into `history`, a file each; returns the events of the last day."""
    all_days = max(FEWEST_DAYS, days + 1)
    store = StoreSettings(events=events_a_day * all_days, days=all_days, seed=1, weekly_growth=0.0, late_share=0.0)
    write_store(store, folder / "store", "parquet", plants_file=folder / "planted_truth.json")
    events = dataset(folder / "store")
    (folder / "history").mkdir()
    for number in range(all_days - days - 1, all_days):
        start = datetime.combine(store.start, time(), UTC) + timedelta(days=number)
        moment = field("event_time")
        day = events.to_table(filter=(moment >= start) & (moment < start + timedelta(days=1)))
        if number < all_days - 1:
            pq.write_table(day, folder / "history" / f"{start:%Y-%m-%d}.parquet")
    return day


def silent(_: str) -> None:
    pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(float(text)) for text in sys.argv[2:5]))
