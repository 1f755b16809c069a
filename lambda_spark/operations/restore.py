"""Restore of a lake to an earlier time, to undo a bad feed.

After a Delta RESTORE, the tables' logs still name the micro-batches that were undone. Delta would silently skip a new
micro-batch with the same application id and number. So the streams start over with new application ids.

All files are read again, except those that the setting `ingest.exclude` matches. A Kafka topic is read again by the
next job that reads the topic. Lines that the lake still has are dropped as repeats.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from urllib.parse import unquote

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.file_source import FileSource, is_excluded
from lambda_spark.ingestion.ingest import check_description, ingest, who_comes_back
from lambda_spark.ingestion.micro_batch import INGEST_TABLES, Account
from lambda_spark.ingestion.source import KAFKA
from lambda_spark.operations.forget import check_nothing_pending
from lambda_spark.operations.maintain import expire
from lambda_spark.operations.quiesce import renew_views, similarity_settings
from lambda_spark.settings import IngestSettings, Settings
from lambda_spark.source_description import REES46
from lambda_spark.speed.update import start_over, update_similarity
from lambda_spark.storage.checkpoints import APPLICATION, new_application
from lambda_spark.storage.delta_log import commit_numbers, commit_time
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.lake import RETENTION_CUTOFF, Lake
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS, INGESTION_LOG, Table

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Undo:
    """What a restore takes back."""

    moment: datetime
    """The time to go back to (UTC)."""
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Two versions by table: the present version and the version to go back to."""
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Number of rows by table: in the present version and in the version to go back to."""
    files: list[str] = field(default_factory=list)
    """Event files that were read after `moment`."""
    topics: list[str] = field(default_factory=list)
    """Kafka topics that were read after `moment`."""
    lost: list[str] = field(default_factory=list)
    """Files read after `moment` that would not be read again. Their events would be lost."""
    changed: list[str] = field(default_factory=list)
    """Files read after `moment` whose content has changed since. The restore would read the present content."""
    come_back: str = ""
    """A warning about forgotten users who may come back; empty where no user was forgotten."""
    retention_cutoff: date | None = None
    """The lake's retention cutoff. A restore does not move it back."""


def plan(lake: Lake, moment: datetime, sources: Sequence[str], settings: IngestSettings) -> Undo:
    """Find out what a restore would take back, and change nothing.

    Args:
        lake: The lake to look at.
        moment: The time to go back to (UTC).
        sources: Folders and files that the restore would read again; may be empty.
        settings: How event files are found and read.

    Raises:
        UsageError: The moment is earlier than a table's log, or a source does not exist.
        LakeError: Users were forgotten after the moment and would come back, a vacuum has deleted files that are
            needed, or a run of `forget` was interrupted.
    """
    check_nothing_pending(lake)
    undo = Undo(moment, retention_cutoff=lake.retention_cutoff(), come_back=who_comes_back(lake))
    for table in INGEST_TABLES:
        now, then = lake[table].version(), lake[table].latest_version_with_same_rows(_version_at(lake, table, moment))
        undo.versions[table.name] = (now, then)
        _check_readable(lake, table, then)
        undo.rows[table.name] = (lake[table].read(now).count(), lake[table].read(then).count())
    notes = [
        lake[table].note_of(version) or {}
        for table in INGEST_TABLES
        for version in range(undo.versions[table.name][1] + 1, undo.versions[table.name][0] + 1)
    ]
    if any(note.get("job") == "forget" for note in notes):
        raise LakeError(
            f"users were forgotten after {moment:%Y-%m-%d %H:%M:%S} UTC and would come back; name a later --to TIME"
        )
    # Also read the cutoff from the commits' metadata, because an interrupted restore may have reset the table property.
    cutoffs = [date.fromisoformat(note["cut"]) for note in notes if note.get("cut")]
    undo.retention_cutoff = max([*cutoffs, *([undo.retention_cutoff] if undo.retention_cutoff else [])], default=None)
    read = _read_since(lake, *undo.versions[INGESTION_LOG.name])
    undo.files = [unquote(source) for source in read if not source.startswith(KAFKA)]
    undo.topics = sorted({source.removeprefix(KAFKA).split("/")[0] for source in read if source.startswith(KAFKA)})
    undo.lost = _lost(lake, undo.files, sources, settings)
    if sources:
        changed = {file.path for file in _file_source(lake, sources, settings).stale(frozenset())}
        undo.changed = [path for path in undo.files if path in changed]
    return undo


def _file_source(lake: Lake, sources: Sequence[str], settings: IngestSettings) -> FileSource:
    return FileSource(lake, list(sources), settings, FieldMapping(lake.spark, REES46))


def _read_since(lake: Lake, now: int, then: int) -> list[str]:
    """List the files and Kafka ranges that were read between two versions of `ingestion_log`."""
    read, before = (lake[INGESTION_LOG].read(version).select("source", "ingest_batch") for version in (now, then))
    return [row.source for row in read.exceptAll(before).select("source").distinct().orderBy("source").collect()]


def _lost(lake: Lake, files: Sequence[str], sources: Sequence[str], settings: IngestSettings) -> list[str]:
    """List the files that a restore would not read again although no pattern excludes them.

    If sources are given, the result is the files outside the sources. Otherwise it is the files that no longer exist.
    """
    included = [path for path in files if not is_excluded(path, settings.exclude)]
    if not sources:
        return [path for path in included if not FileSystem(lake.spark, path).exists()]
    present = _file_source(lake, sources, settings).present()
    return [path for path in included if path not in present]


def restore(
    lake: Lake, settings: Settings, undo: Undo, sources: list[str], *, accept_source: bool = False
) -> Account | None:
    """Take the lake back to an earlier time, read the sources again and rebuild the views.

    The streams' checkpoints are deleted first. So after an interruption, the job `ingest` reads all files again, and
    the job `similarity` asks for a rebuild. Another restore to the same time repeats every step.

    Args:
        lake: The lake to change.
        settings: All settings.
        undo: What `plan` returned for this lake and these sources.
        sources: Folders and files to read again; may be empty.
        accept_source: Whether the source description may differ from the one that the lake was read with.

    Returns:
        Counts of the lines that were read again; None without sources.

    Raises:
        LakeError: Files would not be read again, and their events would be lost. Nothing has been changed.
        UsageError: The source description differs. Nothing has been changed.
    """
    if undo.lost:
        some = ", ".join(path.removeprefix("file:") for path in undo.lost[:3])
        raise LakeError(
            f"{len(undo.lost)} files that were read after {undo.moment:%Y-%m-%d %H:%M:%S} UTC would not be read again, "
            f"so their events would be lost ({some}{', …' if len(undo.lost) > 3 else ''}): put the files back, name "
            "their folder too, or leave them out with --set ingest.exclude=NAME"
        )
    if sources and not accept_source:
        check_description(lake, settings.source)
    kept = {} if undo.retention_cutoff is None else {RETENTION_CUTOFF: undo.retention_cutoff.isoformat()}
    with lake.locks.tables(*(table.name for table in INGEST_TABLES)):
        lake.files.delete("_checkpoints")
        for table in INGEST_TABLES:
            now, then = undo.versions[table.name]
            if not lake[table].unchanged_since(then):
                note = {"job": "restore", "to": undo.moment.isoformat(), **kept}
                lake[table].restore(then, note=note)
            logger.info(f"{table.name}: v{now} restored to v{then}")
        lake[EVENTS].set_properties({APPLICATION: new_application(), **kept})
        if undo.retention_cutoff is not None:
            expire(lake, undo.retention_cutoff)
    account = ingest(lake, sources, settings.ingest, settings.source, accept_source=True) if sources else None
    if lake[CO_INTERACTIONS].exists():
        chosen = similarity_settings(lake, settings)
        start_over(lake, chosen)
        update_similarity(lake, chosen)
    renew_views(lake, settings)
    return account


def _version_at(lake: Lake, table: Table, moment: datetime) -> int:
    """Return the newest version of a table that was committed no later than a time (UTC)."""
    commits = commit_numbers(lake.files, table.name)
    for version in reversed(commits):
        if commit_time(lake.files, table.name, version) <= moment:
            return version
    first = commit_time(lake.files, table.name, commits[0])
    raise UsageError(
        f"the table {table.name} can't go back before {first:%Y-%m-%d %H:%M:%S} UTC, because its log begins there; "
        "name a later --to TIME"
    )


def _check_readable(lake: Lake, table: Table, version: int) -> None:
    stored = lake.files.walk(table.name)
    if not all(path in stored for path in lake[table].data_files(version)):
        raise LakeError(
            f"version {version} of {table.name} can't be read any more, because a vacuum has deleted its files "
            "(maintenance.retention says how far back the lake can go); name a later --to TIME"
        )
