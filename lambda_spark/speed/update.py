"""The speed job: a streaming query over `events` that keeps the tables of the speed layer up to date.

The tables are `baskets`, `co_interactions` and `similar_items`. A micro-batch reads only the dates of its
events, and only appends. A micro-batch that is run again after a crash reads the same rows as before, because it leaves
out the rows that it wrote itself. The lake skips appends that were already made. So every event counts once, however
often the job is killed.
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
"""Up to this number, basket items are few enough to broadcast, or to keep in one partition."""
_BYTES_PER_ITEM = 128
"""Approximate shuffle bytes per basket item, from which the shuffle partitions of a micro-batch are set."""
REBUILD = "run `similarity --rebuild`, which counts all events again"
"""Advice for the end of an error message: how to compute the tables of the speed layer again."""


@dataclass(slots=True)
class SimilarityRun:
    """Summary of one run of the speed job."""

    micro_batches: int = 0
    seconds: list[float] = field(default_factory=list)
    """Duration of each micro-batch."""
    refreshed: str = ""
    """Why `similar_items` was renewed; empty where it was not."""


def update_similarity(lake: Lake, settings: SimilaritySettings, *, trigger: str = AVAILABLE_NOW) -> SimilarityRun:
    """Count all new events, then renew `similar_items` if it was computed from an older version of the counts.

    Args:
        lake: The lake.
        settings: The settings of similarity.
        trigger: `available-now` to stop after the events that exist now, or an interval to stay up.

    Returns:
        A summary: the micro-batches, and why `similar_items` was renewed.

    Raises:
        UsageError: The window is not the one that the tables were computed with.
        CheckpointError: The checkpoint is lost or belongs to other tables, the tables do not belong together, or
            `events` is older than the version that was counted.
    """
    _create_tables(lake, settings)
    checkpoint = _checked_checkpoint(lake, settings)
    run = SimilarityRun()
    # If `similar_items` does not exist yet, renew it at the first idle moment, because `recommend` waits for it.
    refreshed_at = time.monotonic() if lake[SIMILAR_ITEMS].exists() else -math.inf

    def process(batch: DataFrame, batch_id: int) -> None:
        started = time.monotonic()
        # Lock both tables for the whole micro-batch, because the items that it reads must not change until it appends.
        with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
            count = process_micro_batch(lake, checkpoint, settings.window, batch, batch_id)
        run.micro_batches += 1
        run.seconds.append(time.monotonic() - started)
        logger.info(f"micro-batch {batch_id}: {count:,} interactions in {run.seconds[-1]:.1f} s")

    stays_up = trigger != AVAILABLE_NOW

    def idle() -> None:
        nonlocal refreshed_at
        # Do not renew `similar_items` in the middle of an available-now run. The run renews it at its end, and an
        # earlier renewal would only take cores from the micro-batches.
        if stays_up and time.monotonic() - refreshed_at > settings.refresh_interval.total_seconds():
            refreshed_at = time.monotonic()
            refresh_similar_items(lake, settings)

    events = (
        lake[EVENTS]
        .stream(max_bytes=size_in_bytes(settings.max_bytes_per_batch, "similarity.max_bytes_per_batch"))
        .select(*EVENT_COLUMNS)
    )
    # Skip the stream if it has already read all of `events`. After a compaction or a deletion, the stream would
    # otherwise run a micro-batch without rows, and make commits for it.
    if stays_up or not is_at_head(lake, checkpoint, EVENTS):
        run_stream(events, checkpoint, process, trigger=trigger, idle=idle)
    run.refreshed = refresh_similar_items(lake, settings)
    return run


def _create_tables(lake: Lake, settings: SimilaritySettings) -> None:
    """Create `co_interactions` and `baskets` with one application id, even if an earlier run was killed in between."""
    if lake[CO_INTERACTIONS].exists() and lake[BASKETS].exists():
        return
    # Wait for a running `forget`, which holds the lock of `events`. `forget` waits for this job only if the tables of
    # this job exist.
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
        window: The most steps between two items that co-interact.
        batch: The events of the micro-batch.
        batch_id: The number of the micro-batch.

    Returns:
        The number of interactions in the micro-batch.
    """
    # Use the micro-batch's own session, so that its shuffle partitions fit its size, not that of the whole history.
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
    # Let Delta gather the rows of each date before it writes, if they are spread over many partitions. Each partition
    # would otherwise become a small file, which makes every later read and commit of the tables slower.
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
    """Read the items that were stored before this micro-batch, in the baskets that it touches."""
    # Read a fixed version, because the append of this micro-batch would otherwise invalidate the cached plan.
    stored = lake[BASKETS].read(lake[BASKETS].version()).where(F.col("batch_id") != batch_id)
    small_dates = smallest_dates_up_to(items, _FEW_ITEMS)
    is_small = F.col("event_date").isin(small_dates)
    # Late events are few per date but touch many dates. Broadcast them, so that stored data is not shuffled.
    baskets_on_small = F.broadcast(new.where(is_small).select(*BASKET))
    known = stored.where(is_small).join(baskets_on_small, on=BASKET, how="left_semi")
    is_large = F.col("event_date").isin(items.keys() - small_dates)
    stored_on_large = stored.where(is_large)
    # Check for any stored row first. Most dates of a backlog have none, and the check is cheaper than the join.
    if len(small_dates) < len(items) and not stored_on_large.isEmpty():
        baskets_on_large = new.where(is_large).select(*BASKET).distinct()
        known = known.union(stored_on_large.join(baskets_on_large, on=BASKET, how="left_semi"))
    return known


def _is_balanced_by_date(items: Mapping[date, int], spark: SparkSession) -> bool:
    """Whether partitions by date are balanced: no date exceeds both _FEW_ITEMS and half of a core's share."""
    share = sum(items.values()) // (2 * spark.sparkContext.defaultParallelism)
    return max(items.values(), default=0) <= max(_FEW_ITEMS, share)


def refresh_similar_items(lake: Lake, settings: SimilaritySettings) -> str:
    """Renew `similar_items` if it was computed from other counts or with other settings.

    Returns:
        The reason, or an empty text where nothing was renewed.
    """
    with lake.locks.reader(), lake.locks.table(SIMILAR_ITEMS.name):
        return _refresh_similar_items(lake, settings)


def _refresh_similar_items(lake: Lake, settings: SimilaritySettings) -> str:
    version = lake[CO_INTERACTIONS].version()
    reason = _refresh_reason(lake, settings)
    if not reason:
        return ""
    counts = lake[CO_INTERACTIONS].read(version)
    newest = counts.agg(F.max("event_date")).collect()[0][0]
    if newest is None and not lake[SIMILAR_ITEMS].exists():
        lake.create(SIMILAR_ITEMS)
        return ""
    logger.info(f"renewing similar_items: {reason}")
    rows = similar_items(counts, settings, newest=newest)
    note = {"job": "similarity", "co_interactions_version": version}
    lake[SIMILAR_ITEMS].replace(rows, settings=recorded(settings), note=note)
    return reason


def _refresh_reason(lake: Lake, settings: SimilaritySettings) -> str:
    last_run = lake[SIMILAR_ITEMS].last_commit(job="similarity") if lake[SIMILAR_ITEMS].exists() else None
    if last_run is None:
        return "first run"
    score_settings = ("window", "measure", "max_neighbours", "half_life_days", "min_baskets")
    if not lake[SIMILAR_ITEMS].has_settings({key: recorded(settings)[key] for key in score_settings}):
        return "the settings have changed"
    return "" if lake[CO_INTERACTIONS].unchanged_since(int(last_run.note["co_interactions_version"])) else "new events"


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
    """Check that `baskets` and `co_interactions` were written by the same stream.

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

    If this is interrupted between the two tables, their ids differ, and the next run refuses them.
    """
    _create_tables(lake, settings)
    properties = _new_properties(settings)
    lake[CO_INTERACTIONS].truncate(properties)
    lake[BASKETS].truncate(properties)
    logger.info("emptied baskets and co_interactions, to count all events again")


def _new_properties(settings: SimilaritySettings) -> dict[str, str]:
    return {APPLICATION: new_application(), "window": str(settings.window)}
