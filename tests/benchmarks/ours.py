"""This project's side of the benchmark: each layer's job in one open session, on a store's CSV files.

    python -m tests.benchmarks.ours STORE_CSV FOLDER EVENTS RUNS [MASTER]

Prints a line of JSON for each measured piece, and sums of the tables' rows for others to agree with. Every user of the
store gets a list, as from the others. Beside ingestion stands what Spark takes to copy the same lines as they are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lambda_spark.batch.refresh import TREND_TABLES
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.serving.inputs import pin_views
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.settings import load_settings
from lambda_spark.spark import fit_partitions
from lambda_spark.speed.co_interactions import total_counts
from lambda_spark.speed.update import start_over, update
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS, RECOMMENDATIONS, SIMILAR_ITEMS, TRENDS, Table
from tests.benchmarks.measure import cpu_of_children, cpu_seconds_of, jvm_of, measured, print_peak, print_versions
from tests.sessions import PROJECT, start_session

WHO = "lambda-spark"
ALL_DAYS = 3650
"""More than the store is old."""
SMALL_EXECUTORS = {"spark.executor.memory": "2g"}
"""On a cluster; elsewhere there are none."""
LINES = (
    "event_time string, event_type string, product_id bigint, category_id bigint, category_code string, brand string, "
    "price double, user_id bigint, user_session string"
)

SUMS = (
    (TRENDS, ("current", "previous")),
    (CO_INTERACTIONS, ("baskets", "strength")),
    (SIMILAR_ITEMS, ("rank", "baskets")),
)
"""What of the tables' rows others have too, who work by the same definitions."""


def main(store: Path, folder: Path, events: int, runs: int, master: str = "") -> None:
    who = f"{WHO} on {master.partition(':')[0]}" if master else WHO
    spark = start_session("benchmark", folder / "spark.log", master=master or "local[2]", tuned=SMALL_EXECUTORS)
    jvm = jvm_of(spark)
    piece = partial(measured, who, cpu=partial(cpu_seconds_of, "self", jvm))
    settings = load_settings(None, [f"recommendations.active_days={ALL_DAYS}"])
    print_versions(who, ["pyspark", "delta-spark", "deltalake"])

    for run in range(runs):
        lake = Lake.open(spark, str(folder / f"lake-{run}"), create=True)
        piece("ingest", partial(ingest, lake, [str(store)], settings.ingest, progress=say), events=events)
        piece("ingest: lines copied as they are", partial(copy, spark, store, folder / f"copy-{run}"), events=events)
        for old in (folder / f"lake-{run - 1}", folder / f"copy-{run}"):
            shutil.rmtree(old, ignore_errors=True)

    def forget_what_was_written(*tables: Table) -> None:
        for table in tables:
            shutil.rmtree(f"{lake.path}/{table.name}", ignore_errors=True)

    fit_partitions(spark, lake.size(EVENTS))
    for _ in range(runs):
        forget_what_was_written(*TREND_TABLES)
        piece("trends", partial(refresh_trends, lake, settings.trends, progress=say), events=events)
    for _ in range(runs):
        if lake.exists(SIMILAR_ITEMS):
            start_over(lake, settings.similarity, say)
        piece("similarity", partial(update, lake, settings.similarity, progress=say), events=events)
    for _ in range(runs):
        forget_what_was_written(RECOMMENDATIONS)
        piece("recommend", partial(refresh_recommendations, lake, settings.recommendations, progress=say))
    users = [row.user_id for row in lake.read(RECOMMENDATIONS).where("rank = 1").select("user_id").limit(5).collect()]
    for user in users:
        one = partial(for_user, settings=settings.recommendations, user_id=user)
        piece("one user, in an open session", lambda one=one: one(pin_views(lake)))
    for user in users:
        command = [str(PROJECT / "spark-submit.sh"), "lookup", "--user", str(user), "--lake", lake.path]
        look_up = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        measured(who, "one user, looked up by a process", look_up, cpu_of_children)
    for table, columns in SUMS:
        rows = lake.read(table)
        rows = total_counts(rows) if table is CO_INTERACTIONS else rows
        sums = rows.agg(F.count("*"), *(F.sum(column) for column in columns)).collect()[0]
        print(json.dumps({"who": who, "table": table.name, "sums": list(sums)}))
    print_peak(who, jvm)
    spark.stop()


def copy(spark: SparkSession, store: Path, target: Path) -> None:
    """What ingestion is measured by: read, and written to Delta as it is, without a look at a line."""
    spark.read.csv(str(store), schema=LINES, header=True).write.format("delta").save(str(target))


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
