"""Keeping a lake small: old dates expire, many small files become few, and files that nobody needs are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from pyspark.sql import functions as F

from lambda_spark.ingestion.ingest import renew_products
from lambda_spark.operations.forget import check_nothing_pending
from lambda_spark.operations.quiesce import at_rest, cover, finished_batch
from lambda_spark.operations.vacuum import Deleted, unneeded_files, vacuum
from lambda_spark.settings import MaintenanceSettings, Settings
from lambda_spark.speed.co_interactions import folded_baskets, folded_counts
from lambda_spark.storage.lake import CUT, Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    INGESTED_FILES,
    JOB_RUNS,
    REJECTED_EVENTS,
    Table,
)

Progress = Callable[[str], None]

EXPIRING = (BASKETS, CO_INTERACTIONS, EVENTS)
"""What is older than the cut date goes from all of them."""
FOLDED = (BASKETS, CO_INTERACTIONS)
COMPACTED = (EVENTS, REJECTED_EVENTS, INGESTED_FILES, JOB_RUNS)

_FOLDS = {BASKETS.name: folded_baskets, CO_INTERACTIONS.name: folded_counts}

_SMALL = 128 * 2**20
"""A file with fewer bytes is small."""
_DATES_AT_ONCE = 30
"""Dates that are folded in one commit."""


@dataclass(frozen=True, slots=True)
class Part:
    """The files of one date of a table, or of all of it."""

    date: date | None
    files: int
    bytes: int
    small: int
    """So many of the files are small."""


@dataclass(frozen=True, slots=True)
class Expiring:
    """What of a table is older than the cut date."""

    rows: int
    bytes: int
    first: date
    last: date


@dataclass(slots=True)
class Plan:
    """What maintenance would do."""

    cut: date | None
    """Dates before this one expire."""
    expiring: dict[str, Expiring] = field(default_factory=dict)
    """By table."""
    packing: dict[str, list[Part]] = field(default_factory=dict)
    """Table: what of it lies in many files."""
    unneeded: dict[str, Deleted] = field(default_factory=dict)
    """By table, what no version within the retention needs."""


def plan(lake: Lake, settings: MaintenanceSettings) -> Plan:
    """A dry look."""
    planned = Plan(next_cut(lake, settings))
    cut = planned.cut
    for table in _present(lake, EXPIRING):
        old = [part for part in parts_of(lake, table) if _is_expired(part, cut)]
        if old and cut is not None:
            rows = lake.read(table).where(F.col("event_date") < F.lit(cut)).count()
            dates = sorted(part.date for part in old if part.date)
            planned.expiring[table.name] = Expiring(rows, sum(part.bytes for part in old), dates[0], dates[-1])
    for table in _present(lake, (*COMPACTED, *FOLDED)):
        crowded = _crowded(lake, table, settings, cut)
        if crowded:
            planned.packing[table.name] = crowded
    for table in lake.present():
        sizes = unneeded_files(lake, table, settings.retention)
        if sizes:
            planned.unneeded[table.name] = Deleted(len(sizes), sum(sizes.values()))
    return planned


def maintain(lake: Lake, settings: Settings, progress: Progress) -> Plan:
    """Expire, fold, compact and vacuum, in this order; returns what was done of each.

    Each step finds by itself what is left to do, so that a run which was stopped is finished by the next. Raises
    LakeError where a `forget` was interrupted.
    """
    check_nothing_pending(lake)
    chosen = settings.maintenance
    with at_rest(lake, settings, progress), lake.locks.tables(*(table.name for table in _present(lake, FOLDED))):
        done = plan(lake, chosen)
        if done.cut is not None:
            expire(lake, done.cut, progress)
        for table in _present(lake, FOLDED):
            fold(lake, table, [part.date for part in done.packing.get(table.name, []) if part.date], progress)
        for table in _present(lake, COMPACTED):
            compact(lake, table, done.packing.get(table.name, []), progress)
    renew_products(lake)
    if done.unneeded:
        # Only then must readers wait.
        done.unneeded = vacuum(lake, settings, chosen.retention, progress)
    return done


def next_cut(lake: Lake, settings: MaintenanceSettings) -> date | None:
    """The cut date by the settings, counted from the newest event; never before the one recorded. None: keep all."""
    recorded = lake.cut()
    newest: date | None = lake.read(EVENTS).agg(F.max("event_date")).collect()[0][0] if settings.expire_days else None
    if newest is None:
        return recorded
    wanted = newest - timedelta(days=settings.expire_days)
    return wanted if recorded is None else max(recorded, wanted)


def expire(lake: Lake, cut: date, progress: Progress) -> None:
    """Take everything before a date out of the lake, for good. The caller holds it at rest.

    The cut is recorded first: from then on older arrivals are rejected, and older trends are frozen. `events` goes
    last: as long as it has older rows, the next run does it all again.
    """
    expiring = _present(lake, EXPIRING)
    has_older = any(_is_expired(part, cut) for table in expiring for part in parts_of(lake, table))
    if not has_older and lake.cut() is None:
        # A cut before the first event would move the store's beginning.
        return
    if lake.cut() != cut:
        lake.set_properties(EVENTS, {CUT: cut.isoformat()})
    if has_older:
        progress(f"what is older than {cut} expires")
        is_older = F.col("event_date") < F.lit(cut)
        note = {"job": "maintain", "cut": cut.isoformat()}
        for table in expiring:
            lake.delete(table, is_older, note=note)
    cover(lake, "maintain")


def fold(lake: Lake, table: Table, dates: Sequence[date], progress: Progress) -> None:
    """Put the rows of some dates together, one per key, in one file per date. The caller holds the lake at rest.

    Only rows of micro-batches that are in both tables: one that was killed between its two appends is replayed, and
    must find the baskets as they were before it.
    """
    newest = finished_batch(lake)
    for at in range(0, len(dates), _DATES_AT_ONCE):
        some = dates[at : at + _DATES_AT_ONCE]
        rows = lake.read(table, lake.version(table)).where(F.col("event_date").isin(list(some)))
        is_finished = F.col("batch_id") <= newest
        folded = _FOLDS[table.name](rows.where(is_finished)).unionByName(rows.where(~is_finished))
        lake.rewrite_dates(table, folded.repartition("event_date"), some, note={"job": "maintain"}, same_rows=True)
        progress(f"{table.name}: {at + len(some)} of {len(dates)} dates folded")


def compact(lake: Lake, table: Table, parts: Sequence[Part], progress: Progress) -> None:
    """Put many small files into few; no row changes."""
    if not parts:
        return
    dates = [part.date for part in parts if part.date]
    lake.compact(table, dates or None, note={"job": "maintain"})
    progress(f"{table.name}: {sum(part.files for part in parts):,} files put together")


def parts_of(lake: Lake, table: Table) -> list[Part]:
    """The files of a table as it is now, by date."""
    there = lake.files.walk(table.name)
    by_date: dict[date | None, list[int]] = {}
    for path in lake.data_files(table, lake.version(table)):
        partition, _, _ = path.rpartition("/")
        day = date.fromisoformat(partition.removeprefix("event_date=")) if table.partition_by else None
        by_date.setdefault(day, []).append(there[path].bytes if path in there else 0)
    small = {day: [size for size in files if size < _SMALL] for day, files in by_date.items()}
    return [Part(day, len(files), sum(files), len(small[day])) for day, files in by_date.items()]


def _crowded(lake: Lake, table: Table, settings: MaintenanceSettings, cut: date | None) -> list[Part]:
    """What of a table, that stays, lies in many small files."""
    parts = [part for part in parts_of(lake, table) if not _is_expired(part, cut)]
    return sorted((part for part in parts if part.small >= settings.min_files), key=lambda part: str(part.date))


def _is_expired(part: Part, cut: date | None) -> bool:
    return cut is not None and part.date is not None and part.date < cut


def _present(lake: Lake, tables: Iterable[Table]) -> list[Table]:
    return [table for table in tables if lake.exists(table)]
