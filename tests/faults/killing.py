"""Functions that run jobs as real processes and kill these with SIGKILL at a named point or a given time."""

from __future__ import annotations

import os
import random
import re
import selectors
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pyspark.sql import functions as F

from lambda_spark.ingestion.refused_users import REFUSED
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import JOB_RUNS, REJECTED_EVENTS
from tests.conftest import PROJECT
from tests.faults.histories import HEADER

ABOUT_THE_RUN = ("source", "ingested_at", "ingest_batch", "batch_id", "modified_at")
"""Columns that say which micro-batch wrote a row and when. Such columns and version columns may differ between
runs."""
PSEUDONYM = "user"
"""Column of `refused_users` with the salted hash of a user. Since `forget --refuse`, this user's events are rejected.

Each lake has its own salt, so the hashes of two lakes differ. The salt also enters the `rejected_id` of the lines of
these users."""

KILLER = Path(__file__).parent / "killer"
FAST = (
    "--driver-memory 1g --conf spark.sql.shuffle.partitions=1 --conf spark.databricks.delta.snapshotPartitions=1 "
    "--conf spark.sql.adaptive.enabled=false "
    "--conf spark.driver.defaultJavaOptions='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'"
)
"""Spark options for a tiny store, with which a process starts fast. Each kill requires a new process."""
SETTINGS = (
    "--set", "trends.min_change=2", "--set", "trends.min_z=0.5", "--set", "trends.max_fdr=1",
    "--set", "maintenance.min_files=2", "--set", "maintenance.expire_days=14",
)  # fmt: skip
"""Settings that make even a tiny store have trends, files to compact and dates to expire."""

Point = str
"""A point in a process: `before TABLE N` or `after TABLE N`, where N numbers its commits to the table."""


def points(*commits: str) -> list[Point]:
    """Return two points for each commit, one before and one after the commit, in the order of the commits."""
    return [f"{moment} {commit}" for commit in commits for moment in ("before", "after")]


_CREATED = ("events 1", "rejected_events 1", "ingestion_log 1", "products 1")
_INGESTED = ("events 1", "rejected_events 1", "ingestion_log 1", "products 1")
_COMPUTED = tuple(f"{table} 1" for table in ("demand", "trends", "category_trends", "brand_trends", "user_trends"))
_COUNTED = ("co_interactions 1", "baskets 1")
_SERVED = ("similar_items 1", "recommendations 1")
FIRST_RUN = points(*_CREATED, *_INGESTED, *_COMPUTED, *_COUNTED, *_COUNTED, *_SERVED)
"""Points at which a test kills the first `run` on a new lake. Each point has a process of its own.

Each process continues the work of the process that was killed before. If an earlier process created a table, the first
commit of a later process to this table is an append."""
LATER_RUN = points(*_INGESTED, *_COMPUTED, *_COUNTED, *_SERVED)
REBUILD = points(*_COUNTED, "co_interactions 2", "baskets 2")
_EXPIRED = ("events 1", "baskets 1", "co_interactions 1", "events 1", "co_interactions 1")
_COMPACTED = ("baskets 1", "co_interactions 1", "events 1", "rejected_events 1", "ingestion_log 1", "job_runs 1")
MAINTAIN = points(*_EXPIRED, *_COMPACTED, "products 1")
_REFUSED = ("refused_users 1", "events 1", "refused_users 1")
_DELETED = ("events 1", "rejected_events 1", "user_trends 1", "events 1", "baskets 1")
_SUBTRACTED = ("co_interactions 1", "co_interactions 2", "products 1")
FORGET = points(
    *_REFUSED, *_DELETED, *_SUBTRACTED, "similar_items 1", *_COMPUTED, "recommendations 1", "events 1"
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended: whether it was killed, its exit code, its output, and how long it ran."""

    killed: bool
    code: int
    output: str
    seconds: float


def run_job(
    *arguments: str, at: Point = "", after: float | None = None, options: str = "", timeout: float = 600
) -> Ended:
    """Run a command as a user types it, and kill its process group if `at` or `after` is given.

    Args:
        arguments: The words after `./spark-submit.sh`.
        at: The point at which the process is killed.
        after: The seconds between the first line of output and the kill.
        options: More words for SPARK_SUBMIT_OPTIONS.
        timeout: The seconds after which the process counts as stuck.
    """
    environment = {**os.environ, "SPARK_MASTER": "local[2]", "SPARK_SUBMIT_OPTIONS": f"{FAST} {options}"}
    if at:
        environment |= {"KILL_AT": at, "PYTHONPATH": str(KILLER)}
    started = time.monotonic()
    process = subprocess.Popen(
        [str(PROJECT / "spark-submit.sh"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    output, is_stuck = b"", False
    try:
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            first_output = None
            while time.monotonic() - started < timeout:
                if ready.select(timeout=0.05):
                    text = os.read(process.stdout.fileno(), 65_536)
                    if not text:
                        break
                    output += text
                if first_output is None and re.search(rb"^\[", output, re.MULTILINE):
                    first_output = time.monotonic()
                if after is not None and first_output is not None and time.monotonic() - first_output >= after:
                    break
    finally:
        is_stuck = time.monotonic() - started >= timeout
        if process.poll() is None and (after is not None or is_stuck):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait(timeout=60)
        process.stdout.close()
    # Fail if the process is stuck, because the test did not ask for the kill at the time limit.
    assert not is_stuck, f"the process had not ended after {timeout} s:\n{output.decode()}"
    return Ended(code == -signal.SIGKILL, code, output.decode(), time.monotonic() - started)


def deliveries(seed: int, count: int = 3, lines: int = 40) -> list[list[str]]:
    """Return lines for files of a small store, with sessions over midnight, late events, repeats and broken lines."""
    dice = random.Random(seed)
    start = datetime(2019, 10, 7)
    files = []
    known: list[str] = []
    for number in range(count):
        fresh = []
        for _ in range(lines):
            day = dice.choice((0, 7, 14, 15)) + 7 * number
            moment = start + timedelta(days=day, seconds=dice.choice((43_200, 86_395, 86_405)) + dice.randrange(10))
            kind = dice.choice(("view", "view", "view", "cart", "purchase", "remove_from_cart"))
            product, user = dice.randint(1, 9), dice.randint(1, 5)
            category = dice.choice(("a.b", "a.c", ""))
            fresh.append(
                f"{moment:%Y-%m-%d %H:%M:%S} UTC,{kind},{product},1,{category},b{product % 3},{product}.50,{user},"
                f"{dice.choice(('s', 't', ''))}"
            )
        broken = [f"broken {dice.randrange(5)}" for _ in range(3)]
        files.append([HEADER, *fresh, *dice.choices(known or fresh, k=8), *broken])
        known += fresh
    return files


def tables_of(lake: Lake) -> dict[str, Counter[str]]:
    """Count how often each row occurs in each table. Columns that may differ between runs are left out.

    The table `job_runs` is left out, because this table records when each job ran.
    """
    left_out = (*ABOUT_THE_RUN, PSEUDONYM)
    counts = {}
    for table in lake.present():
        if table is JOB_RUNS:
            continue
        names = [name for name in table.column_names if name not in left_out and not name.endswith("_version")]
        rows = lake[table].read()
        if table is REJECTED_EVENTS:
            is_salted = F.array_contains("reasons", REFUSED)
            rows = rows.withColumn("rejected_id", F.when(~is_salted, F.col("rejected_id")))
        counts[table.name] = Counter(repr(tuple(row)) for row in rows.select(*names).collect())
    return counts
