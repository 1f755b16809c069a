"""Real jobs as processes, stopped with SIGKILL at named points or at any moment."""

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
"""Columns that say which micro-batch wrote a row, and when; with the versions they may differ."""
PSEUDONYM = "user"
"""The column of a refused user: each lake has a salt of its own, and one for the ids of such a user's lines."""

KILLER = Path(__file__).parent / "killer"
FAST = (
    "--driver-memory 1g --conf spark.sql.shuffle.partitions=1 --conf spark.databricks.delta.snapshotPartitions=1 "
    "--conf spark.sql.adaptive.enabled=false "
    "--conf spark.driver.defaultJavaOptions='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'"
)
"""A tiny store needs no more: what a kill costs is the start of the next process."""
SETTINGS = (
    "--set", "trends.min_change=2", "--set", "trends.min_z=0.5", "--set", "trends.max_false_share=1",
    "--set", "maintenance.min_files=2", "--set", "maintenance.expire_days=14",
)  # fmt: skip
"""With these a tiny store has trends, and files and dates for maintenance."""

Point = str
"""`before TABLE N` or `after TABLE N`: the N-th commit to a table that a process begins, or has made."""


def points(*commits: str) -> list[Point]:
    """Before and after each of some commits, in the order a run makes them."""
    return [f"{moment} {commit}" for commit in commits for moment in ("before", "after")]


_CREATED = ("events 1", "rejected_events 1", "ingested_files 1", "products 1")
_INGESTED = ("events 1", "rejected_events 1", "ingested_files 1", "products 1")
_COMPUTED = tuple(f"{table} 1" for table in ("demand", "trends", "category_trends", "brand_trends", "user_trends"))
_ABSORBED = ("co_interactions 1", "baskets 1")
_SERVED = ("similar_items 1", "recommendations 1")
FIRST_RUN = points(*_CREATED, *_INGESTED, *_COMPUTED, *_ABSORBED, *_ABSORBED, *_SERVED)
"""Where a first `run` can be stopped, each start going on from the kill before: what was created is there by then, so
that the first commit of the next process is an append."""
LATER_RUN = points(*_INGESTED, *_COMPUTED, *_ABSORBED, *_SERVED)
REBUILD = points(*_ABSORBED, "co_interactions 2", "baskets 2")
_EXPIRED = ("events 1", "baskets 1", "co_interactions 1", "events 1", "co_interactions 1")
_PACKED = ("baskets 1", "co_interactions 1", "events 1", "rejected_events 1", "ingested_files 1", "job_runs 1")
MAINTAIN = points(*_EXPIRED, *_PACKED, "products 1")
_REFUSED = ("refused_users 1", "events 1", "refused_users 1")
_TAKEN_OUT = ("events 1", "rejected_events 1", "user_trends 1", "events 1", "baskets 1")
_WITHDRAWN = ("co_interactions 1", "co_interactions 2", "products 1")
FORGET = points(
    *_REFUSED, *_TAKEN_OUT, *_WITHDRAWN, "similar_items 1", *_COMPUTED, "recommendations 1", "events 1"
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended: by the kill, or by itself with an exit code."""

    killed: bool
    code: int
    output: str
    seconds: float


def run_job(
    *arguments: str, at: Point = "", after: float | None = None, options: str = "", timeout: float = 600
) -> Ended:
    """A command as a user types it, in a group of processes of its own; killed at a point, or so many seconds after it
    said its first word, or not at all."""
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
            spoke = None
            while time.monotonic() - started < timeout:
                if ready.select(timeout=0.05):
                    text = os.read(process.stdout.fileno(), 65_536)
                    if not text:
                        break
                    output += text
                if spoke is None and re.search(rb"^\[", output, re.MULTILINE):
                    spoke = time.monotonic()
                if after is not None and spoke is not None and time.monotonic() - spoke >= after:
                    break
    finally:
        is_stuck = time.monotonic() - started >= timeout
        if process.poll() is None and (after is not None or is_stuck):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait(timeout=60)
        process.stdout.close()
    # A job that hangs has not been killed where it was to be.
    assert not is_stuck, f"not ended after {timeout} s:\n{output.decode()}"
    return Ended(code == -signal.SIGKILL, code, output.decode(), time.monotonic() - started)


def deliveries(seed: int, count: int = 3, lines: int = 40) -> list[list[str]]:
    """The lines of a small store's files: sessions over midnight, late events, repeats, and lines that are none."""
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
    """Every row of every table, and how often it is there; but who ran when may differ."""
    left_out = (*ABOUT_THE_RUN, PSEUDONYM)
    found = {}
    for table in lake.present():
        if table is JOB_RUNS:
            continue
        names = [name for name in table.column_names if name not in left_out and not name.endswith("_version")]
        rows = lake.read(table)
        if table is REJECTED_EVENTS:
            is_salted = F.array_contains("reasons", REFUSED)
            rows = rows.withColumn("rejected_id", F.when(~is_salted, F.col("rejected_id")))
        found[table.name] = Counter(repr(tuple(row)) for row in rows.select(*names).collect())
    return found
