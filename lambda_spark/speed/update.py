"""The speed job: a streaming query over `events` that keeps the tables of the speed layer up to date.

The tables are `baskets`, `co_interactions` and `similar_items`. A micro-batch reads stored baskets only on the dates of
its events. It appends rows to `baskets` and `co_interactions`, and changes no stored rows.

Every event counts once, however often the job is killed. A micro-batch that runs again after a crash ignores the rows
that it wrote before the crash, so it computes the same result. The lake skips appends that were already made.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import CheckpointError, UsageError
from lambda_spark.settings import AVAILABLE_NOW, SimilaritySettings, recorded, size_in_bytes
from lambda_spark.spark import column_constant, fit_partitions, run_concurrently, smallest_dates_up_to
from lambda_spark.speed.baskets import BASKET, EVENT_COLUMNS, VIEWED, basket_rows
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

logger = logging.getLogger(__name__)

_FEW_ITEMS = 50_000
"""Largest number of basket items that the job broadcasts or keeps in one partition."""
_BYTES_PER_ITEM = 128
"""Approximate bytes that Spark shuffles per basket item. They decide the number of shuffle partitions."""
REBUILD = "run `similarity --rebuild`, which counts all events again"
"""Advice at the end of error messages. It tells the user how to compute the tables of the speed layer again."""


@dataclass(slots=True)
class SimilarityRun:
    """Summary of one run of the speed job."""

    micro_batches: int = 0
    seconds: list[float] = field(default_factory=list)
    """Duration of each micro-batch in seconds."""
    refreshed: str = ""
    """Why the table `similar_items` was computed again. Empty if it was not."""


def update_similarity(lake: Lake, settings: SimilaritySettings, *, trigger: str = AVAILABLE_NOW) -> SimilarityRun:
    """Count the new events, then compute `similar_items` again if its counts or settings have changed.

    Args:
        lake: The lake.
        settings: The settings of similarity.
        trigger: `available-now` to stop after the events that exist now, or an interval like `10 seconds` to keep
            running.

    Returns:
        A summary of the micro-batches, with the reason why `similar_items` was computed again.

    Raises:
        UsageError: The setting `similarity.window` differs from the value that the tables were computed with.
        CheckpointError: The checkpoint is lost or belongs to other tables. Or `baskets` and `co_interactions` were
            written by different streams. Or `events` is older than the version that this job has counted.
    """
    _create_tables(lake, settings)
    checkpoint = _checked_checkpoint(lake, settings)
    run = SimilarityRun()
    # If `similar_items` does not exist yet, compute it when the stream is first idle, because `recommend` needs it.
    refreshed_at = time.monotonic() if lake[SIMILAR_ITEMS].exists() else -math.inf

    def process(batch: DataFrame, batch_id: int) -> None:
        started = time.monotonic()
        # Lock both tables for the whole micro-batch. No other job may change them between its reads and its appends.
        with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
            count = process_micro_batch(lake, checkpoint, settings.window, batch, batch_id)
        run.micro_batches += 1
        run.seconds.append(time.monotonic() - started)
        logger.info(f"micro-batch {batch_id}: {count:,} interactions in {run.seconds[-1]:.1f} s")

    stays_up = trigger != AVAILABLE_NOW

    def idle() -> None:
        nonlocal refreshed_at
        # Do not compute `similar_items` in the middle of an available-now run. Such a run computes the table at its
        # end, and an earlier computation would only take cores from the micro-batches.
        if stays_up and time.monotonic() - refreshed_at > settings.refresh_interval.total_seconds():
            refreshed_at = time.monotonic()
            refresh_similar_items(lake, settings)

    events = (
        lake[EVENTS]
        .stream(max_bytes=size_in_bytes(settings.max_bytes_per_batch, "similarity.max_bytes_per_batch"))
        .select(*EVENT_COLUMNS)
    )
    # Do not start the stream if it has already read all of `events`. After a compaction of `events` or a deletion, it
    # would otherwise run a micro-batch without rows and commit it.
    if stays_up or not is_at_head(lake, checkpoint, EVENTS):
        run_stream(events, checkpoint, process, trigger=trigger, idle=idle)
    run.refreshed = refresh_similar_items(lake, settings)
    return run


def _create_tables(lake: Lake, settings: SimilaritySettings) -> None:
    """Create `co_interactions` and `baskets` with the same application id.

    If an earlier run was killed after creating only `co_interactions`, `baskets` gets the id of that table.
    """
    if lake[CO_INTERACTIONS].exists() and lake[BASKETS].exists():
        return
    # Take the lock of `events` to wait for a running `forget` job, which holds this lock. `forget` waits for this job
    # only if this job's tables exist.
    with lake.locks.table(EVENTS.name):
        properties = _new_properties(settings)
        is_half_made = lake[CO_INTERACTIONS].exists() and not lake[BASKETS].exists()
        if is_half_made and lake[CO_INTERACTIONS].last_commit() is None:
            properties = lake[CO_INTERACTIONS].properties()
        lake.create(CO_INTERACTIONS, BASKETS, properties=properties)


def process_micro_batch(lake: Lake, checkpoint: Checkpoint, window: int, batch: DataFrame, batch_id: int) -> int:
    """Add one micro-batch of events to `baskets` and `co_interactions`.

    Args:
        lake: The lake.
        checkpoint: The checkpoint of the stream.
        window: Largest number of steps between two items that co-interact.
        batch: The events of the micro-batch.
        batch_id: The number of the micro-batch.

    Returns:
        The number of interactions in the micro-batch.
    """
    # Use the Spark session of the micro-batch, because its number of shuffle partitions must fit the micro-batch.
    lake = lake.in_session(batch.sparkSession)
    fit_partitions(lake.spark, 0)
    new = basket_rows(batch).persist(StorageLevel.MEMORY_AND_DISK)
    counts = new.groupBy("event_date").agg(
        F.count("*").alias("items"), F.count_if(F.col("relation") == VIEWED).alias("interactions")
    )
    counts_by_date = counts.collect()
    items = {row.event_date: row.items for row in counts_by_date}
    fit_partitions(lake.spark, sum(items.values()) * _BYTES_PER_ITEM)
    by_date = _is_balanced_by_date(items, lake.spark)
    # If the rows of a date are spread over many partitions, let Delta gather them before it writes. Otherwise each
    # partition would become a small file, and small files slow down every later read and commit.
    lake.spark.conf.set("spark.databricks.delta.optimizeWrite.enabled", not by_date)
    changes = basket_changes(_known_items_of(lake, new, items, batch_id), new, by_date=by_date).persist(
        StorageLevel.MEMORY_AND_DISK
    )
    note = {
        "job": "similarity",
        "offset": source_offset(lake, checkpoint, batch_id),
        PLANNED_AT: batch_time(lake, checkpoint, batch_id).isoformat(),
    }

    def append(table: Table, rows: DataFrame) -> None:
        stamped = rows.withColumn("batch_id", column_constant(batch_id, "bigint"))
        lake[table].append_batch(stamped, application=checkpoint.application, batch_id=batch_id, note=note)

    try:
        run_concurrently(
            partial(append, CO_INTERACTIONS, changed_contributions(changes, window=window)),
            partial(append, BASKETS, new_items(changes)),
        )
        return sum(row.interactions for row in counts_by_date)
    finally:
        changes.unpersist()
        new.unpersist()


def _known_items_of(lake: Lake, new: DataFrame, items: Mapping[date, int], batch_id: int) -> DataFrame:
    """Read the stored items of the baskets to which this micro-batch adds items.

    Items that this micro-batch itself stored before a crash are left out.
    """
    # Read a fixed version of `baskets`. Otherwise, appending to `baskets` would invalidate the cached DataFrames.
    stored = lake[BASKETS].read(lake[BASKETS].version()).where(F.col("batch_id") != batch_id)
    small_dates = smallest_dates_up_to(items, _FEW_ITEMS)
    is_small = F.col("event_date").isin(small_dates)
    # Late events are spread over many dates, with few on each date. Broadcast their baskets, so that Spark does not
    # shuffle the stored items of these dates.
    baskets_on_small = F.broadcast(new.where(is_small).select(*BASKET))
    known = stored.where(is_small).join(baskets_on_small, on=BASKET, how="left_semi")
    is_large = F.col("event_date").isin(items.keys() - small_dates)
    stored_on_large = stored.where(is_large)
    # First check whether any items are stored for the other dates. The check is cheaper than the join, and a backlog of
    # events rarely has stored items for its dates.
    if len(small_dates) < len(items) and not stored_on_large.isEmpty():
        baskets_on_large = new.where(is_large).select(*BASKET).distinct()
        known = known.union(stored_on_large.join(baskets_on_large, on=BASKET, how="left_semi"))
    return known


def _is_balanced_by_date(items: Mapping[date, int], spark: SparkSession) -> bool:
    """Whether Spark can partition the items by date without one date keeping a core busy for too long.

    Each date may have at most _FEW_ITEMS items, or half of the average number of items per core if that is more.
    """
    share = sum(items.values()) // (2 * spark.sparkContext.defaultParallelism)
    return max(items.values(), default=0) <= max(_FEW_ITEMS, share)


def refresh_similar_items(lake: Lake, settings: SimilaritySettings) -> str:
    """Compute `similar_items` again if its stored rows come from other counts or other settings.

    Returns:
        The reason for computing the table again, or an empty text if it was not computed.
    """
    with lake.locks.reader(), lake.locks.table(SIMILAR_ITEMS.name):
        return _refresh_similar_items(lake, settings)


def _refresh_similar_items(lake: Lake, settings: SimilaritySettings) -> str:
    version, events_version = lake[CO_INTERACTIONS].version(), lake[EVENTS].version()
    reason = _refresh_reason(lake, settings, events_version)
    if not reason:
        return ""
    counts = lake[CO_INTERACTIONS].read(version)
    newest = lake.newest(events_version).date
    if newest is None and not lake[SIMILAR_ITEMS].exists():
        lake.create(SIMILAR_ITEMS)
        return ""
    logger.info(f"renewing similar_items: {reason}")
    rows = similar_items(counts, settings, newest=newest)
    note = {
        "job": "similarity",
        "co_interactions_version": version,
        "events_version": events_version,
        "newest_date": str(newest),
    }
    lake[SIMILAR_ITEMS].replace(rows, settings=recorded(settings), note=note)
    return reason


def _refresh_reason(lake: Lake, settings: SimilaritySettings, events_version: int) -> str:
    last_run = lake[SIMILAR_ITEMS].last_commit(job="similarity") if lake[SIMILAR_ITEMS].exists() else None
    if last_run is None:
        return "first run"
    score_settings = ("window", "measure", "max_neighbours", "half_life_days", "min_baskets")
    if not lake[SIMILAR_ITEMS].has_settings({key: recorded(settings)[key] for key in score_settings}):
        return "the settings have changed"
    if not lake[CO_INTERACTIONS].unchanged_since(int(last_run.note["co_interactions_version"])):
        return "new events"
    # The newest date can change without new counts, for example when the only new events are removals from a cart.
    covered = last_run.note.get("events_version")
    if covered is not None and lake[EVENTS].unchanged_since(covered):
        return ""
    is_same = last_run.note.get("newest_date") == str(lake.newest(events_version).date)
    return "" if is_same else "the newest date has changed"


def _checked_checkpoint(lake: Lake, settings: SimilaritySettings) -> Checkpoint:
    properties = lake[CO_INTERACTIONS].properties()
    if properties["window"] != str(settings.window):
        raise UsageError(
            f"similarity.window is {settings.window}, but the tables were computed with {properties['window']}: "
            f"set it back to {properties['window']}, or {REBUILD}"
        )
    check_halves(lake, properties[APPLICATION])
    newest = lake[CO_INTERACTIONS].last_commit(application=properties[APPLICATION])
    if newest is not None and (covered_version(newest.note) or 0) > lake[EVENTS].version():
        raise CheckpointError(
            f"events is older than the version that similarity has counted, as after a restore from a backup; {REBUILD}"
        )
    open_checkpoint(lake, "similarity", BASKETS, advice=REBUILD)
    return open_checkpoint(lake, "similarity", CO_INTERACTIONS, advice=REBUILD)


def check_halves(lake: Lake, application: str) -> None:
    """Check that the same stream has written `baskets` and `co_interactions`.

    Args:
        lake: The lake.
        application: The application id of `co_interactions`.

    Raises:
        CheckpointError: `baskets` has another application id.
    """
    if lake[BASKETS].properties().get(APPLICATION) != application:
        raise CheckpointError(
            f"baskets and co_interactions do not belong together, as after an interrupted rebuild; {REBUILD}"
        )


def start_over(lake: Lake, settings: SimilaritySettings) -> None:
    """Delete all rows of `baskets` and `co_interactions`, and give both a new application id.

    If this function is interrupted between the two tables, their ids differ. The next run of the job then stops with an
    error.
    """
    _create_tables(lake, settings)
    properties = _new_properties(settings)
    lake[CO_INTERACTIONS].truncate(properties)
    lake[BASKETS].truncate(properties)
    logger.info("emptied baskets and co_interactions, to count all events again")


def _new_properties(settings: SimilaritySettings) -> dict[str, str]:
    return {APPLICATION: new_application(), "window": str(settings.window)}
