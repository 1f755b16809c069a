"""Maintenance of a lake: expires old rows, compacts small files, and deletes files that no table version needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from pyspark.sql import functions as F

from lambda_spark.ingestion.ingest import renew_products
from lambda_spark.operations.forget import check_nothing_pending
from lambda_spark.operations.quiesce import at_rest, finished_batch, mark_events_covered
from lambda_spark.operations.vacuum import Deleted, unneeded_files, vacuum
from lambda_spark.settings import MaintenanceSettings, Settings
from lambda_spark.speed.co_interactions import compacted_baskets, compacted_counts
from lambda_spark.storage.lake import RETENTION_CUTOFF, Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    INGESTION_LOG,
    JOB_RUNS,
    REJECTED_EVENTS,
    Table,
)

logger = logging.getLogger(__name__)

EXPIRING = (BASKETS, CO_INTERACTIONS, EVENTS)
"""Tables whose rows from before the retention cutoff date are deleted, in this order."""
FOLDED = (BASKETS, CO_INTERACTIONS)
"""Tables that are compacted to one row per key and date."""
COMPACTED = (EVENTS, REJECTED_EVENTS, INGESTION_LOG, JOB_RUNS)
"""Tables whose small files are merged into larger ones. Their rows stay the same."""

_FOLDS = {BASKETS.name: compacted_baskets, CO_INTERACTIONS.name: compacted_counts}

_SMALL = 128 * 2**20
"""A file counts as small if its size is below this number of bytes."""
_DATES_AT_ONCE = 30
"""Largest number of dates that one commit compacts, in the tables that are compacted to one row per key."""


@dataclass(frozen=True, slots=True)
class Part:
    """Number and size of the files of one date of a table, or of a whole table that is not partitioned by date."""

    date: date | None
    """The date; None for a table that is not partitioned by date."""
    files: int
    bytes: int
    small: int
    """Number of small files among these files."""


@dataclass(frozen=True, slots=True)
class Expiring:
    """The rows of a table that are older than the retention cutoff."""

    rows: int
    bytes: int
    """Size of all files of the dates of these rows."""
    first: date
    """The oldest date of these rows."""
    last: date
    """The newest date of these rows."""


@dataclass(slots=True)
class Plan:
    """What maintenance would do, or has done."""

    retention_cutoff: date | None
    """Rows from before this date expire; None if all rows are kept."""
    expiring: dict[str, Expiring] = field(default_factory=dict)
    """The rows that expire, by table."""
    packing: dict[str, list[Part]] = field(default_factory=dict)
    """What to compact, by table: the dates that have many small files. A table without dates is compacted whole."""
    unneeded: dict[str, Deleted] = field(default_factory=dict)
    """Number and size of the files that no version within the retention time needs, by table."""


def plan(lake: Lake, settings: MaintenanceSettings) -> Plan:
    """Find out what `maintain` would do, and change nothing."""
    planned = Plan(next_cut(lake, settings))
    retention_cutoff = planned.retention_cutoff
    for table in _present(lake, EXPIRING):
        old = [part for part in parts_of(lake, table) if _is_expired(part, retention_cutoff)]
        if old and retention_cutoff is not None:
            rows = lake[table].read().where(F.col("event_date") < F.lit(retention_cutoff)).count()
            dates = sorted(part.date for part in old if part.date)
            planned.expiring[table.name] = Expiring(rows, sum(part.bytes for part in old), dates[0], dates[-1])
    for table in _present(lake, (*COMPACTED, *FOLDED)):
        crowded = _crowded(lake, table, settings, retention_cutoff)
        if crowded:
            planned.packing[table.name] = crowded
    for table in lake.present():
        sizes = unneeded_files(lake, table, settings.retention)
        if sizes:
            planned.unneeded[table.name] = Deleted(len(sizes), sum(sizes.values()))
    return planned


def maintain(lake: Lake, settings: Settings) -> Plan:
    """Keep a lake small in four steps.

    The steps are: delete expired rows, compact to one row per key and date, compact small files, and vacuum. If a run
    is stopped, the next run finishes the work, because each step first checks what is left to do.

    Returns:
        What was done.

    Raises:
        LakeError: A run of `forget` was interrupted.
        CheckpointError: The similarity stream cannot continue.
    """
    check_nothing_pending(lake)
    chosen = settings.maintenance
    with at_rest(lake, settings), lake.locks.tables(*(table.name for table in _present(lake, FOLDED))):
        done = plan(lake, chosen)
        if done.retention_cutoff is not None:
            expire(lake, done.retention_cutoff)
        for table in _present(lake, FOLDED):
            fold(lake, table, [part.date for part in done.packing.get(table.name, []) if part.date])
        for table in _present(lake, COMPACTED):
            compact(lake, table, done.packing.get(table.name, []))
    renew_products(lake)
    if done.unneeded:
        # Vacuum only if a file is unneeded, because a vacuum waits until nobody reads, and keeps new readers out.
        done.unneeded = vacuum(lake, settings, chosen.retention)
    return done


def next_cut(lake: Lake, settings: MaintenanceSettings) -> date | None:
    """Compute the retention cutoff: the newest date of the store minus `expire_days`.

    Returns:
        The computed cutoff, or the cutoff recorded in the lake if that is later. None if all dates are kept.
    """
    recorded = lake.retention_cutoff()
    newest = lake.newest(lake[EVENTS].version()).date if settings.expire_days else None
    if newest is None:
        return recorded
    cutoff = newest - timedelta(days=settings.expire_days)
    return cutoff if recorded is None else max(recorded, cutoff)


def expire(lake: Lake, retention_cutoff: date) -> None:
    """Delete all rows from before a date for good. The caller must hold the lake with `at_rest`.

    The cutoff is recorded first. From then on, older events are rejected on arrival, and older trends stay unchanged.
    The rows of `events` are deleted last. So after an interruption, the next run still finds old rows in `events` and
    repeats every step.

    Args:
        lake: The lake to change.
        retention_cutoff: The first date whose rows are kept.
    """
    expiring = _present(lake, EXPIRING)
    has_older = any(_is_expired(part, retention_cutoff) for table in expiring for part in parts_of(lake, table))
    if not has_older and lake.retention_cutoff() is None:
        # Record no cutoff before the first event, because trends treat the cutoff as the store's first date.
        return
    if lake.retention_cutoff() != retention_cutoff:
        lake[EVENTS].set_properties({RETENTION_CUTOFF: retention_cutoff.isoformat()})
    if has_older:
        logger.info(f"deleting the rows before {retention_cutoff}: they have expired")
        is_older = F.col("event_date") < F.lit(retention_cutoff)
        note = {"job": "maintain", "cut": retention_cutoff.isoformat()}
        for table in expiring:
            lake[table].delete(is_older, note=note)
    mark_events_covered(lake, "maintain")


def fold(lake: Lake, table: Table, dates: Sequence[date]) -> None:
    """Compact some dates to one row per key, in one file per date. The caller must hold the lake with `at_rest`.

    A micro-batch that was killed between its appends is in only one of the two `FOLDED` tables. The rows of such a
    micro-batch stay unchanged, because its replay must find the baskets as they were before the micro-batch.

    Args:
        lake: The lake to change.
        table: One of `FOLDED`.
        dates: The dates to compact.
    """
    newest = finished_batch(lake)
    for at in range(0, len(dates), _DATES_AT_ONCE):
        some = dates[at : at + _DATES_AT_ONCE]
        rows = lake[table].read(lake[table].version()).where(F.col("event_date").isin(list(some)))
        is_finished = F.col("batch_id") <= newest
        compacted = _FOLDS[table.name](rows.where(is_finished)).unionByName(rows.where(~is_finished))
        lake[table].rewrite_dates(compacted.repartition("event_date"), some, note={"job": "maintain"}, same_rows=True)
        logger.info(f"{table.name}: {at + len(some)} of {len(dates)} dates compacted to one row per key")


def compact(lake: Lake, table: Table, parts: Sequence[Part]) -> None:
    """Compact small files into few large ones. No row changes.

    Args:
        lake: The lake to change.
        table: One of `COMPACTED`.
        parts: The dates to compact, or the single entry of a table that is not partitioned by date.
    """
    if not parts:
        return
    dates = [part.date for part in parts if part.date]
    lake[table].compact(dates or None, note={"job": "maintain"})
    logger.info(f"{table.name}: {sum(part.files for part in parts):,} files compacted into fewer")


def parts_of(lake: Lake, table: Table) -> list[Part]:
    """Count and measure the files of a table's newest version, by date."""
    stored = lake.files.walk(table.name)
    by_date: dict[date | None, list[int]] = {}
    for path in lake[table].data_files(lake[table].version()):
        partition, _, _ = path.rpartition("/")
        day = date.fromisoformat(partition.removeprefix("event_date=")) if table.partition_by else None
        by_date.setdefault(day, []).append(stored[path].bytes if path in stored else 0)
    small = {day: [size for size in files if size < _SMALL] for day, files in by_date.items()}
    return [Part(day, len(files), sum(files), len(small[day])) for day, files in by_date.items()]


def _crowded(lake: Lake, table: Table, settings: MaintenanceSettings, retention_cutoff: date | None) -> list[Part]:
    """Find the dates of a table that have many small files and have not expired."""
    parts = [part for part in parts_of(lake, table) if not _is_expired(part, retention_cutoff)]
    return sorted((part for part in parts if part.small >= settings.min_files), key=lambda part: str(part.date))


def _is_expired(part: Part, retention_cutoff: date | None) -> bool:
    return retention_cutoff is not None and part.date is not None and part.date < retention_cutoff


def _present(lake: Lake, tables: Iterable[Table]) -> list[Table]:
    return [table for table in tables if lake[table].exists()]
