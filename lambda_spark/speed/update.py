"""The speed job: a streaming query over `events` that keeps `baskets`, `co_interactions` and `similar_items` up to
date.

A micro-batch reads only the touched dates and only appends. Replayed, it reads what it read before (its own rows are
left out) and the lake leaves out what it has appended before, so that every event counts once however often the job is
killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import CheckpointError, UsageError
from lambda_spark.settings import AVAILABLE_NOW, SimilaritySettings, recorded, size_in_bytes
from lambda_spark.spark import dates_with_few, fit_partitions, side_by_side, varying
from lambda_spark.speed.baskets import BASKET, EVENT_COLUMNS, VIEWED, touches
from lambda_spark.speed.co_interactions import basket_changes, changed_contributions, new_items
from lambda_spark.speed.scores import similar_items
from lambda_spark.storage.checkpoints import (
    APPLICATION,
    PLANNED_AT,
    Checkpoint,
    batch_time,
    covered_version,
    is_at_head,
    new_application,
    open_checkpoint,
    source_offset,
)
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.stream import run_stream
from lambda_spark.storage.tables import BASKETS, CO_INTERACTIONS, EVENTS, SIMILAR_ITEMS, Table

Progress = Callable[[str], None]
_FEW_ITEMS = 50_000
_BYTES_PER_ITEM = 128
"""Of what an item's counts take in an exchange, the better part: it decides how finely a micro-batch is divided."""
REBUILD = "start it over with `similarity --rebuild`"


@dataclass(slots=True)
class SimilarityRun:
    """What a run did."""

    micro_batches: int = 0
    seconds: list[float] = field(default_factory=list)
    refreshed: str = ""
    """Why `similar_items` was renewed; empty where it was not."""


def update(
    lake: Lake, settings: SimilaritySettings, *, trigger: str = AVAILABLE_NOW, progress: Progress
) -> SimilarityRun:
    """Take in all new events, then renew `similar_items` where it names an older version.

    Raises UsageError for a window other than the tables', and CheckpointError for a lost or foreign checkpoint.
    """
    _create_tables(lake, settings)
    checkpoint = _checkpoint(lake, settings)
    run = SimilarityRun()
    # Where there are none yet, whoever recommends waits for them.
    refreshed_at = time.monotonic() if lake.exists(SIMILAR_ITEMS) else -math.inf

    def process(batch: DataFrame, batch_id: int) -> None:
        started = time.monotonic()
        # Held as a whole: what a micro-batch knows of a basket must still be so when it appends.
        with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
            count = absorb(lake, checkpoint, settings.window, batch, batch_id)
        run.micro_batches += 1
        run.seconds.append(time.monotonic() - started)
        progress(f"micro-batch {batch_id}: {count:,} interactions in {run.seconds[-1]:.1f} s")

    stays_up = trigger != AVAILABLE_NOW

    def idle() -> None:
        nonlocal refreshed_at
        # What is soon renewed anyhow would only take the cores from the micro-batches.
        if stays_up and time.monotonic() - refreshed_at > settings.refresh_interval.total_seconds():
            refreshed_at = time.monotonic()
            refresh_similar_items(lake, settings, progress)

    events = lake.stream(
        EVENTS, max_bytes=size_in_bytes(settings.max_bytes_per_batch, "similarity.max_bytes_per_batch")
    ).select(*EVENT_COLUMNS)
    # What was put together or taken out since would be a micro-batch without rows, with commits that say so.
    if stays_up or not is_at_head(lake, checkpoint, EVENTS):
        run_stream(events, checkpoint, process, trigger=trigger, idle=idle)
    run.refreshed = refresh_similar_items(lake, settings, progress)
    return run


def _create_tables(lake: Lake, settings: SimilaritySettings) -> None:
    """Both tables under one application id, also where an earlier start was killed between the two."""
    if lake.exists(CO_INTERACTIONS) and lake.exists(BASKETS):
        return
    # Whoever takes users out of `events` holds it, and waits for this job only where there are tables of its.
    with lake.locks.table(EVENTS.name):
        properties = _first_properties(settings)
        is_half_made = lake.exists(CO_INTERACTIONS) and not lake.exists(BASKETS)
        if is_half_made and lake.last_commit(CO_INTERACTIONS) is None:
            properties = lake.properties(CO_INTERACTIONS)
        lake.create(CO_INTERACTIONS, BASKETS, properties=properties)


def absorb(lake: Lake, checkpoint: Checkpoint, window: int, batch: DataFrame, batch_id: int) -> int:
    """Add one micro-batch of events to `baskets` and `co_interactions`; returns its number of interactions."""
    # A micro-batch has a session of its own: it is divided by its own size, not by that of the whole history.
    lake = lake.in_session(batch.sparkSession)
    fit_partitions(lake.spark, 0)
    new = touches(batch).persist(StorageLevel.MEMORY_AND_DISK)
    counted = new.groupBy("event_date").agg(
        F.count("*").alias("items"), F.count_if(F.col("relation") == VIEWED).alias("interactions")
    )
    found = counted.collect()
    items = {row.event_date: row.items for row in found}
    fit_partitions(lake.spark, sum(items.values()) * _BYTES_PER_ITEM)
    by_date = _are_even(items, lake.spark)
    # Where a date's rows are scattered over many partitions, Delta brings them together before it writes: they would be
    # as many small files, which every later read and commit of the tables pays for.
    lake.spark.conf.set("spark.databricks.delta.optimizeWrite.enabled", not by_date)
    changes = basket_changes(_known_before(lake, new, items, batch_id), new, by_date=by_date).persist(
        StorageLevel.MEMORY_AND_DISK
    )
    note = {
        "job": "similarity",
        "offset": source_offset(lake, checkpoint, batch_id),
        PLANNED_AT: batch_time(lake, checkpoint, batch_id).isoformat(),
    }

    def append(table: Table, rows: DataFrame) -> None:
        stamped = rows.withColumn("batch_id", varying(batch_id, "bigint"))
        lake.append_batch(table, stamped, application=checkpoint.application, batch_id=batch_id, note=note)

    try:
        side_by_side(
            partial(append, CO_INTERACTIONS, changed_contributions(changes, window=window)),
            partial(append, BASKETS, new_items(changes)),
        )
        return sum(row.interactions for row in found)
    finally:
        changes.unpersist()
        new.unpersist()


def _known_before(lake: Lake, new: DataFrame, items: Mapping[date, int], batch_id: int) -> DataFrame:
    """What was known before this micro-batch of the baskets that it has items of."""
    # At a version: of a table as it is now Spark would plan again, after the append, what is cached of it.
    known = lake.read(BASKETS, lake.version(BASKETS)).where(F.col("batch_id") != batch_id)
    few = dates_with_few(items, _FEW_ITEMS)
    on_few = F.col("event_date").isin(few)
    # What came late brings little to many dates: of what is known there, much more than this, nothing is exchanged.
    wanted = known.where(on_few).join(F.broadcast(new.where(on_few).select(*BASKET)), on=BASKET, how="left_semi")
    on_many = F.col("event_date").isin(items.keys() - few)
    known_on_many = known.where(on_many)
    # Most of a backlog's dates are new: to look is cheaper than to compare.
    if len(few) < len(items) and not known_on_many.isEmpty():
        baskets = new.where(on_many).select(*BASKET).distinct()
        wanted = wanted.union(known_on_many.join(baskets, on=BASKET, how="left_semi"))
    return wanted


def _are_even(items: Mapping[date, int], spark: SparkSession) -> bool:
    """Whether dates alone divide the items: they are few, or no date has more of them than its share of a core's."""
    share = sum(items.values()) // (2 * spark.sparkContext.defaultParallelism)
    return max(items.values(), default=0) <= max(_FEW_ITEMS, share)


def refresh_similar_items(lake: Lake, settings: SimilaritySettings, progress: Progress) -> str:
    """Renew `similar_items` where it was computed from other counts or with other settings; returns why, or ''."""
    with lake.locks.reader(), lake.locks.table(SIMILAR_ITEMS.name):
        return _refresh_similar_items(lake, settings, progress)


def _refresh_similar_items(lake: Lake, settings: SimilaritySettings, progress: Progress) -> str:
    version = lake.version(CO_INTERACTIONS)
    reason = _why_refresh(lake, settings)
    if not reason:
        return ""
    counts = lake.read(CO_INTERACTIONS, version)
    newest = counts.agg(F.max("event_date")).collect()[0][0]
    if newest is None and not lake.exists(SIMILAR_ITEMS):
        lake.create(SIMILAR_ITEMS)
        return ""
    progress(f"renewing similar_items: {reason}")
    rows = similar_items(counts, settings, newest=newest)
    note = {"job": "similarity", "co_interactions_version": version}
    lake.replace(SIMILAR_ITEMS, rows, settings=recorded(settings), note=note)
    return reason


def _why_refresh(lake: Lake, settings: SimilaritySettings) -> str:
    done = lake.last_commit(SIMILAR_ITEMS, job="similarity") if lake.exists(SIMILAR_ITEMS) else None
    if done is None:
        return "first run"
    deciding = ("window", "measure", "k", "half_life_days", "min_baskets")
    if not lake.has_recorded(SIMILAR_ITEMS, {key: recorded(settings)[key] for key in deciding}):
        return "the settings have changed"
    return "" if lake.is_same(CO_INTERACTIONS, int(done.note["co_interactions_version"])) else "new events"


def _checkpoint(lake: Lake, settings: SimilaritySettings) -> Checkpoint:
    properties = lake.properties(CO_INTERACTIONS)
    if properties["window"] != str(settings.window):
        raise UsageError(
            f"similarity.window is {settings.window}, the tables were computed with {properties['window']}: "
            f"set it back, or {REBUILD}"
        )
    check_halves(lake, properties[APPLICATION])
    done = lake.last_commit(CO_INTERACTIONS, application=properties[APPLICATION])
    if done is not None and (covered_version(done.note) or 0) > lake.version(EVENTS):
        raise CheckpointError(f"events is older than what similarity has taken in, as from a backup; {REBUILD}")
    open_checkpoint(lake, "similarity", BASKETS, way_out=REBUILD)
    return open_checkpoint(lake, "similarity", CO_INTERACTIONS, way_out=REBUILD)


def check_halves(lake: Lake, application: str) -> None:
    """Raises CheckpointError where `baskets` is not of the micro-batches of `co_interactions`, whose id this is."""
    if lake.properties(BASKETS).get(APPLICATION) != application:
        raise CheckpointError(
            f"baskets and co_interactions do not belong together (an interrupted rebuild?); {REBUILD}"
        )


def start_over(lake: Lake, settings: SimilaritySettings, progress: Progress) -> None:
    """Empty both tables under a new application id. Interrupted in between, they name two ids, which is noticed."""
    _create_tables(lake, settings)
    properties = _first_properties(settings)
    lake.empty(CO_INTERACTIONS, properties)
    lake.empty(BASKETS, properties)
    progress("starting over: baskets and co_interactions are empty now")


def _first_properties(settings: SimilaritySettings) -> dict[str, str]:
    return {APPLICATION: new_application(), "window": str(settings.window)}
