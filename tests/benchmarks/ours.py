"""A benchmark of this project's own jobs, run in one open Spark session on a store's CSV files.

    python -m tests.benchmarks.ours STORE_CSV FOLDER EVENTS RUNS [MASTER]

The command prints one line of JSON for each measured job. It also prints sums of the tables' rows. Other engines with
the same definitions must print equal sums. Every user of the store gets a list, as with the other engines. For
comparison with ingestion, the command measures how long Spark takes to copy the same lines unchanged.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import monotonic

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lambda_spark.batch.refresh import TREND_TABLES, update_trends
from lambda_spark.cli.progress import show_progress
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.serving.inputs import pin_views
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import load_settings
from lambda_spark.spark import fit_partitions
from lambda_spark.speed.co_interactions import total_counts
from lambda_spark.speed.update import start_over, update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS, RECOMMENDATIONS, SIMILAR_ITEMS, TRENDS, Table
from tests.benchmarks.measure import cpu_of_children, cpu_seconds_of, jvm_of, measured, print_peak, print_versions
from tests.sessions import PROJECT, start_session

WHO = "lambda-spark"
ALL_DAYS = 3650
"""A value of `active_days` that is longer than the store's history, so that every user counts as active."""
SMALL_EXECUTORS = {"spark.executor.memory": "2g"}
"""Memory of each executor of a cluster. Spark ignores this setting with a local master."""
LINES = (
    "event_time string, event_type string, product_id bigint, category_id bigint, category_code string, brand string, "
    "price double, user_id bigint, user_session string"
)

SUMS = (
    (TRENDS, ("current", "previous")),
    (CO_INTERACTIONS, ("baskets", "strength")),
    (SIMILAR_ITEMS, ("rank", "baskets")),
)
"""Tables and columns whose sums must equal those of other engines with the same definitions."""


def main(store: Path, folder: Path, events: int, runs: int, master: str = "") -> None:
    who = f"{WHO} on {master.partition(':')[0]}" if master else WHO
    spark = start_session("benchmark", folder / "spark.log", master=master or "local[2]", tuned=SMALL_EXECUTORS)
    jvm = jvm_of(spark)
    piece = partial(measured, who, cpu=partial(cpu_seconds_of, "self", jvm))
    settings = load_settings(None, [f"recommendations.active_days={ALL_DAYS}"])
    show_progress(monotonic(), to_stderr=True)
    print_versions(who, ["pyspark", "delta-spark", "deltalake"])

    for run in range(runs):
        lake = Lake.open(spark, str(folder / f"lake-{run}"), create=True)
        piece("ingest", partial(ingest, lake, [str(store)], settings.ingest), events=events)
        piece("ingest: lines copied as they are", partial(copy, spark, store, folder / f"copy-{run}"), events=events)
        for old in (folder / f"lake-{run - 1}", folder / f"copy-{run}"):
            shutil.rmtree(old, ignore_errors=True)

    def delete_tables(*tables: Table) -> None:
        for table in tables:
            shutil.rmtree(f"{lake.path}/{table.name}", ignore_errors=True)

    fit_partitions(spark, lake[EVENTS].size())
    for _ in range(runs):
        delete_tables(*TREND_TABLES)
        piece("trends", partial(update_trends, lake, settings.trends), events=events)
    for _ in range(runs):
        if lake[SIMILAR_ITEMS].exists():
            start_over(lake, settings.similarity)
        piece("similarity", partial(update_similarity, lake, settings.similarity), events=events)
    for _ in range(runs):
        delete_tables(RECOMMENDATIONS)
        piece("recommend", partial(update_recommendations, lake, settings.recommendations))
    users = [row.user_id for row in lake[RECOMMENDATIONS].read().where("rank = 1").select("user_id").limit(5).collect()]
    for user in users:
        recommend = partial(for_user, settings=settings.recommendations, user_id=user)
        piece("one user, in an open session", lambda recommend=recommend: recommend(pin_views(lake)))
    for user in users:
        command = [str(PROJECT / "spark-submit.sh"), "lookup", "--user", str(user), "--lake", lake.path]
        look_up = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        measured(who, "one user, looked up by a process", look_up, cpu_of_children)
    replay = [str(PROJECT / "spark-submit.sh"), "replay", str(store), "--to", str(folder / "feed"), "--rate", "1e9"]
    play = partial(subprocess.run, replay, check=True, stdout=subprocess.DEVNULL)
    measured(who, "replay into a folder", play, cpu_of_children, events=events)
    for table, columns in SUMS:
        rows = lake[table].read()
        rows = total_counts(rows) if table is CO_INTERACTIONS else rows
        sums = rows.agg(F.count("*"), *(F.sum(column) for column in columns)).collect()[0]
        print(json.dumps({"who": who, "table": table.name, "sums": list(sums)}))
    print_peak(who, jvm)
    spark.stop()


def copy(spark: SparkSession, store: Path, target: Path) -> None:
    """Copy the CSV lines to a Delta table without validation. Ingestion is compared with the time of this copy."""
    spark.read.csv(str(store), schema=LINES, header=True).write.format("delta").save(str(target))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
