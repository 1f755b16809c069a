"""What a micro-batch costs after ever more days of history, with the same number of events a day.

    python -m tests.benchmarks.growth FOLDER EVENTS_A_DAY DAYS MICRO_BATCHES

A lake takes in DAYS days; then the next day comes in MICRO_BATCHES deliveries of 10,000 events, or of an equal share of
the day where it has not so many. Prints a line of JSON for each micro-batch of ingestion and of the speed layer, and
for the renewal of `similar_items`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset, field

from lambda_spark import tables
from lambda_spark.events.ingest import ingest
from lambda_spark.lake import Lake
from lambda_spark.session import fit_partitions
from lambda_spark.settings import load_settings
from lambda_spark.speed.stream import update
from lambda_spark.store.files import write_store
from lambda_spark.store.model import StoreSettings
from tests.benchmarks.measure import bytes_read_by, cpu_seconds_of, print_peak
from tests.sessions import start_session

EVENTS = 10_000
"""In one delivery, at most."""
FEWEST_DAYS = 21
"""A made-up store has no fewer."""


def main(folder: Path, events_a_day: int, days: int, deliveries: int) -> None:
    who = f"{days} days"
    last_day = write_days(folder, events_a_day, days)
    size = min(EVENTS, last_day.num_rows // deliveries)

    spark = start_session("growth", folder / "spark.log")
    jvm = spark.sparkContext._jvm.ProcessHandle.current().pid()
    settings = load_settings(None, [])
    lake = Lake.open(spark, str(folder / "lake"), create=True)

    class Clock:
        """Prints what went by since it was last asked."""

        def __init__(self) -> None:
            self.start()

        def start(self) -> None:
            self.seen = self._now()

        def _now(self) -> tuple[float, float, int]:
            return perf_counter(), cpu_seconds_of("self", jvm), bytes_read_by(jvm)

        def lap(self, work: str) -> None:
            before, self.seen = self.seen, self._now()
            seconds, cpu, read = (now - then for now, then in zip(self.seen, before, strict=True))
            figures = {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "bytes_read": read}
            print(json.dumps({"who": who, "work": work, **figures}), flush=True)

    def each_micro_batch(work: str) -> Callable[[str], None]:
        clock = Clock()
        return lambda said: clock.lap(work) if said.startswith("micro-batch") else None

    inbox = folder / "inbox"
    take_in = partial(ingest, lake, [str(folder / "history"), str(inbox)], settings.ingest)
    inbox.mkdir()
    clock = Clock()
    take_in(progress=silent)
    clock.lap("ingest history")
    update(lake, settings.similarity, progress=silent)
    clock.lap("similarity of history")

    for number in range(deliveries):
        pq.write_table(last_day.slice(number * size, size), inbox / f"{number:04}.parquet")
        take_in(progress=each_micro_batch("micro-batch of ingest"))
    # As a job that stays up does.
    fit_partitions(spark, lake.size(tables.EVENTS))
    one_file_each = replace(settings.similarity, max_bytes_per_batch="1b")
    lapping, clock = each_micro_batch("micro-batch of similarity"), Clock()

    def told(said: str) -> None:
        lapping(said)
        if said.startswith("renewing"):
            clock.start()

    update(lake, one_file_each, progress=told)
    clock.lap("renewal of similar_items")
    print_peak(who, jvm)
    spark.stop()


def write_days(folder: Path, events_a_day: int, days: int) -> pa.Table:
    """Write the days before the last one into `history`, a file each; returns the events of the last day."""
    all_days = max(FEWEST_DAYS, days + 1)
    store = StoreSettings(events=events_a_day * all_days, days=all_days, seed=1, weekly_growth=0.0, late_share=0.0)
    write_store(store, folder / "store", "parquet", plants_file=folder / "plants.json")
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
