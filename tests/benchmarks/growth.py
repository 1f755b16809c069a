"""A benchmark that shows whether micro-batches become slower as the history of a lake grows.

    python -m tests.benchmarks.growth FOLDER EVENTS_A_DAY DAYS MICRO_BATCHES

A lake first ingests DAYS days with EVENTS_A_DAY events each. Then MICRO_BATCHES files of the next day arrive, and each
file becomes one micro-batch, as in jobs that run all day. A file has 10,000 events. If the day has too few events, each
file gets an equal share of them. The command prints one line of JSON for each micro-batch of ingestion and of the speed
layer. It prints one more line for each table that is renewed afterwards.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset, field
from pyspark.sql import SparkSession

from lambda_spark.batch.refresh import update_trends
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.settings import load_settings
from lambda_spark.spark import fit_partitions
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage import tables
from lambda_spark.storage.lake import Lake
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.benchmarks.measure import bytes_read_by, cpu_seconds_of, jvm_of, print_peak
from tests.sessions import start_session

EVENTS = 10_000
"""Largest number of events in one delivered file."""
FEWEST_DAYS = 21
"""Smallest number of days that a made-up store can have."""
ONE_FILE_EACH = "1b"
"""A value of `max_bytes_per_batch` that makes each file one micro-batch, because a file is never split."""


class Clock:
    """A stopwatch that prints the time and resources used since its last reading."""

    def __init__(self, spark: SparkSession, who: str) -> None:
        self._spark = spark
        self._jvm = jvm_of(spark)
        self._who = who
        self.start()

    def start(self) -> None:
        # Count the files that Spark has read before the clock starts, because this count takes longer after each query.
        files = files_read(self._spark)
        self._last = (*self._readings(), files)

    def _readings(self) -> tuple[float, float, int]:
        return perf_counter(), cpu_seconds_of("self", self._jvm), bytes_read_by(self._jvm)

    def lap(self, work: str, **more: int) -> None:
        now = (*self._readings(), files_read(self._spark))
        seconds, cpu, read, files = (after - before for after, before in zip(now, self._last, strict=True))
        self._last = (*self._readings(), now[-1])
        figures = {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "bytes_read": read, "files_read": files}
        print(json.dumps({"who": self._who, "work": work, **figures, **more}), flush=True)


def files_read(spark: SparkSession) -> int:
    """Return how many data files were read by the queries that Spark's status store still holds."""
    store = spark._jsparkSession.sharedState().statusStore()
    queries = store.executionsList()
    files = 0
    for at in range(queries.size()):
        query = queries.apply(at)
        numbers = [query.metrics().apply(nth) for nth in range(query.metrics().size())]
        values = store.executionMetrics(query.executionId())
        for number in numbers:
            if number.name() == "number of files read" and values.contains(number.accumulatorId()):
                files += int(values.apply(number.accumulatorId()).replace(",", ""))
    return files


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
    logging.getLogger("lambda_spark").setLevel(logging.INFO)

    @contextmanager
    def each_micro_batch(work: str) -> Iterator[None]:
        clock.start()
        handler = _EachMicroBatch(lambda: clock.lap(work))
        logging.getLogger("lambda_spark").addHandler(handler)
        yield
        logging.getLogger("lambda_spark").removeHandler(handler)

    ingest(lake, sources, settings.ingest)
    clock.lap("history: ingest", events=days * events_a_day)
    update_similarity(lake, settings.similarity)
    clock.lap("history: similarity", events=days * events_a_day)
    fit_partitions(spark, lake[tables.EVENTS].size())
    update_trends(lake, settings.trends)
    clock.lap("history: trends", events=days * events_a_day)

    for number in range(deliveries):
        pq.write_table(last_day.slice(number * size, size), inbox / f"{number:04}.parquet")
    each = replace(settings.ingest, max_bytes_per_batch=ONE_FILE_EACH)
    with each_micro_batch("micro-batch of ingest"):
        ingest(lake, sources, each)
    clock.lap("after them: products")
    each = replace(settings.similarity, max_bytes_per_batch=ONE_FILE_EACH)
    with each_micro_batch("micro-batch of similarity"):
        update_similarity(lake, each)
    clock.lap("after them: similar_items")
    update_trends(lake, settings.trends)
    clock.lap("after them: trends")
    print_peak(who, jvm_of(spark))
    spark.stop()


def write_days(folder: Path, events_a_day: int, days: int) -> pa.Table:
    """Write one file per day, except the last day, into the folder `history`, and return the last day's events."""
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


class _EachMicroBatch(logging.Handler):
    """A log handler that calls a function when a job logs the end of a micro-batch."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("micro-batch"):
            self._call()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(float(text)) for text in sys.argv[2:5]))
