"""A benchmark of the commands that a user types, from CSV files to recommendations, on a month of a large store.

    python -m tests.benchmarks.month FOLDER EVENTS

Two hard cases are added to the store. A crawler views products one after the other in a single session. It makes one
view for every 60 events of the store. A bestseller is viewed in every third session. The command prints one line of
JSON for each job, and one line for each table with its number of files and bytes. One more line has the largest peak
memory of a job.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from deltalake import DeltaTable

from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.benchmarks.measure import cpu_of_children, measured, peak_of_children
from tests.sessions import PROJECT

WHO = "lambda-spark"
JOBS = ("ingest", "trends", "similarity", "recommend")
DAYS = 31
CRAWLER, BESTSELLER = 999_999_999, 1
"""The user id of the crawler and the product id of the bestseller. The store itself has neither."""
TEXTS = pa.csv.ConvertOptions(
    include_columns=["event_time", "product_id", "user_id", "user_session"],
    column_types={"event_time": pa.string(), "user_session": pa.string()},
)


def main(folder: Path, events: int) -> None:
    store = StoreSettings(events=events, days=DAYS, seed=3, broken_share=0.0)
    written = write_store(store, folder / "csv", "csv", plants_file=folder / "planted_truth.json")
    lines = written.lines + add_bestseller(folder / "csv") + add_crawler(folder / "csv", events // 60)
    for job in JOBS:
        source = [folder / "csv"] if job == "ingest" else []
        command = [PROJECT / "spark-submit.sh", job, *source, "--lake", folder / "lake"]
        run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        # Report no events for `recommend`, because this job makes lists per user and does not process events.
        measured(WHO, job, run, cpu_of_children, **({} if job == "recommend" else {"events": lines}))
    print(json.dumps({"who": WHO, "work": "all", "peak_bytes": peak_of_children()}))
    for log in sorted((folder / "lake").glob("*/_delta_log")):
        files = pa.table(DeltaTable(log.parent).get_add_actions(flatten=True))
        sizes = {"table": log.parent.name, "files": files.num_rows, "bytes": pc.sum(files["size_bytes"]).as_py() or 0}
        print(json.dumps({"who": WHO, **sizes}))


def add_bestseller(folder: Path) -> int:
    """Add a view of the bestseller to every third session of each file, and return the number of added lines."""
    lines = 0
    for file in sorted(folder.glob("events-*.csv")):
        sessions = (
            pa.csv.read_csv(file, convert_options=TEXTS)
            .group_by("user_session")
            .aggregate([("event_time", "min"), ("user_id", "min")])
        )
        every_third = sessions.take(np.arange(0, sessions.num_rows, 3))
        count = every_third.num_rows
        write_views(
            folder / f"bestseller-{file.name.removeprefix('events-')}",
            every_third["event_time_min"],
            pa.repeat(BESTSELLER, count),
            every_third["user_id_min"],
            every_third["user_session"],
        )
        lines += count
    return lines


def add_crawler(folder: Path, events: int) -> int:
    """Add a session in which the crawler views one product after the other, and return the number of added lines."""
    first = sorted(folder.glob("events-*.csv"))[0]
    rows = pa.csv.read_csv(first, convert_options=TEXTS)
    day = np.datetime64(pc.min(rows["event_time"]).as_py()[:10], "s")
    times = pa.array(day + np.arange(events) * 86_399 // events)
    write_views(
        folder / "crawler.csv",
        pc.strftime(times, format="%Y-%m-%d %H:%M:%S UTC"),
        pa.array(np.resize(rows["product_id"].unique().to_numpy(), events)),
        pa.repeat(CRAWLER, events),
        pa.repeat("crawler", events),
    )
    return events


def write_views(file: Path, times: pa.Array, products: pa.Array, users: pa.Array, sessions: pa.Array) -> None:
    count = len(times)
    rows = {
        "event_time": times,
        "event_type": pa.repeat("view", count),
        "product_id": products,
        "category_id": pa.repeat(2053013555631882655, count),
        "category_code": pa.repeat("electronics.smartphone", count),
        "brand": pa.nulls(count, pa.string()),
        "price": pa.repeat("99.90", count),
        "user_id": users,
        "user_session": sessions,
    }
    options = pa.csv.WriteOptions(quoting_style="none")
    pa.csv.write_csv(pa.table(rows), file, options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(float(sys.argv[2])))
