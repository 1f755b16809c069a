"""This project's side of the benchmark: each layer's job in one open session, on a store's CSV files.

    python -m tests.benchmarks.ours STORE_CSV LAKE RUNS

Prints a line of JSON for each measured piece, and sums of the tables' rows for others to agree with. Every user of the
store gets a list, as from the others.
"""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

from pyspark.sql import functions as F

from lambda_spark.batch.refresh import TREND_TABLES
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.events.ingest import ingest
from lambda_spark.lake import Lake
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import pin_views
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.session import fit_partitions
from lambda_spark.settings import load_settings
from lambda_spark.speed.contributions import total_counts
from lambda_spark.speed.stream import start_over, update
from lambda_spark.tables import CO_INTERACTIONS, EVENTS, RECOMMENDATIONS, SIMILAR_ITEMS, TRENDS, Table
from tests.benchmarks.measure import cpu_seconds_of, measured, print_peak
from tests.sessions import start_session

WHO = "lambda-spark"
ALL_DAYS = 3650
"""More than the store is old."""

SUMS = (
    (TRENDS, ("current", "previous")),
    (CO_INTERACTIONS, ("baskets", "strength")),
    (SIMILAR_ITEMS, ("rank", "baskets")),
)
"""What of the tables' rows others have too, who work by the same definitions."""


def main(store: Path, folder: Path, runs: int) -> None:
    spark = start_session("benchmark", folder.parent / "spark.log")
    jvm = spark.sparkContext._jvm.ProcessHandle.current().pid()
    cpu = partial(cpu_seconds_of, "self", jvm)
    settings = load_settings(None, [f"recommendations.active_days={ALL_DAYS}"])
    lake = Lake.open(spark, str(folder), create=True)

    def forget_what_was_written(*tables: Table) -> None:
        for table in tables:
            shutil.rmtree(folder / table.name, ignore_errors=True)

    measured(WHO, "ingest", lambda: ingest(lake, [str(store)], settings.ingest, progress=say), cpu)
    fit_partitions(spark, lake.size(EVENTS))
    for _ in range(runs):
        forget_what_was_written(*TREND_TABLES)
        measured(WHO, "trends", lambda: refresh_trends(lake, settings.trends, progress=say), cpu)
    for _ in range(runs):
        if lake.exists(SIMILAR_ITEMS):
            start_over(lake, settings.similarity, say)
        measured(WHO, "similarity", partial(update, lake, settings.similarity, progress=say), cpu)
    for _ in range(runs):
        forget_what_was_written(RECOMMENDATIONS)
        recommend = partial(refresh_recommendations, lake, settings.recommendations, progress=say)
        measured(WHO, "recommend", recommend, cpu)
    for row in lake.read(RECOMMENDATIONS).where("rank = 1").select("user_id").limit(5).collect():
        one = partial(for_user, settings=settings.recommendations, user_id=row.user_id)
        measured(WHO, "one user", lambda one=one: one(pin_views(lake)), cpu)
    for table, columns in SUMS:
        rows = lake.read(table)
        rows = total_counts(rows) if table is CO_INTERACTIONS else rows
        sums = rows.agg(F.count("*"), *(F.sum(column) for column in columns)).collect()[0]
        print(json.dumps({"who": WHO, "table": table.name, "sums": list(sums)}))
    print_peak(WHO, jvm)
    spark.stop()


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
