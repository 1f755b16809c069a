"""Undoing a bad feed: the lake as it was at a time, and from there on again without it.

The log still tells of the micro-batches that RESTORE takes back, so one that is read again under its old id would be
skipped in silence: the streams begin anew, with new application ids. All files are read again, and by the next job that
reads it a topic too; what is there already is dropped as a repeat, and the files of `ingest.exclude` stay out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from urllib.parse import unquote

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.ingestion.file_source import FileSource, is_excluded
from lambda_spark.ingestion.ingest import ingest, who_comes_back
from lambda_spark.ingestion.micro_batch import INGEST_TABLES, Account
from lambda_spark.ingestion.source import KAFKA
from lambda_spark.operations.forget import check_nothing_pending
from lambda_spark.operations.maintain import expire
from lambda_spark.operations.quiesce import renew_views, similarity_settings
from lambda_spark.settings import IngestSettings, Settings
from lambda_spark.speed.update import start_over, update
from lambda_spark.storage.checkpoints import APPLICATION, new_application
from lambda_spark.storage.delta_log import commit_numbers, commit_time
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.lake import CUT, Lake
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS, INGESTED_FILES, Table

Progress = Callable[[str], None]


@dataclass(slots=True)
class Undo:
    """What a restore takes back."""

    moment: datetime
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Table: its version now, and the one it goes back to."""
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Table: its rows now, and then."""
    files: list[str] = field(default_factory=list)
    """The files that were read since,"""
    topics: list[str] = field(default_factory=list)
    """the topics,"""
    lost: list[str] = field(default_factory=list)
    """the files among them that would not be read again,"""
    changed: list[str] = field(default_factory=list)
    """and those that have changed since, and would be read as they are now."""
    come_back: str = ""
    """What to know of users who were forgotten."""
    cut: date | None = None
    """The lake's cut date, which stays."""


def plan(lake: Lake, moment: datetime, sources: Sequence[str], settings: IngestSettings) -> Undo:
    """A dry look at going back to a time (UTC), and reading the sources again (where there are any).

    Raises UsageError for a time before the lake, and LakeError where users were forgotten since, who would come back,
    or where a vacuum has deleted what is needed.
    """
    check_nothing_pending(lake)
    undo = Undo(moment, cut=lake.cut(), come_back=who_comes_back(lake))
    for table in INGEST_TABLES:
        now, then = lake.version(table), lake.newest_alike(table, _version_at(lake, table, moment))
        undo.versions[table.name] = (now, then)
        _check_readable(lake, table, then)
        undo.rows[table.name] = (lake.read(table, now).count(), lake.read(table, then).count())
    notes = [
        lake.note_of(table, version) or {}
        for table in INGEST_TABLES
        for version in range(undo.versions[table.name][1] + 1, undo.versions[table.name][0] + 1)
    ]
    if any(note.get("job") == "forget" for note in notes):
        raise LakeError(
            f"users were forgotten since {moment:%Y-%m-%d %H:%M:%S} UTC and would come back; name a later time"
        )
    # Also from the notes: a restore that was interrupted has taken the property back.
    cuts = [date.fromisoformat(note["cut"]) for note in notes if note.get("cut")]
    undo.cut = max([*cuts, *([undo.cut] if undo.cut else [])], default=None)
    read = _read_since(lake, *undo.versions[INGESTED_FILES.name])
    undo.files = [unquote(source) for source in read if not source.startswith(KAFKA)]
    undo.topics = sorted({source.removeprefix(KAFKA).split("/")[0] for source in read if source.startswith(KAFKA)})
    undo.lost = _lost(lake, undo.files, sources, settings)
    if sources:
        changed = FileSource(lake, list(sources), settings).not_read_again(frozenset())
        undo.changed = [path for path in undo.files if path.removeprefix("file:") in changed]
    return undo


def _read_since(lake: Lake, now: int, then: int) -> list[str]:
    """The files, and parts of topics, that were read between two versions of `ingested_files`."""
    read, before = (lake.read(INGESTED_FILES, version).select("source", "ingest_batch") for version in (now, then))
    return [row.source for row in read.exceptAll(before).select("source").distinct().orderBy("source").collect()]


def _lost(lake: Lake, files: Sequence[str], sources: Sequence[str], settings: IngestSettings) -> list[str]:
    """Which of the files are neither below the sources (anywhere, where none is named) nor excluded."""
    wanted = [path for path in files if not is_excluded(path, settings.exclude)]
    if not sources:
        return [path for path in wanted if not FileSystem(lake.spark, path).exists()]
    present = FileSource(lake, list(sources), settings).present()
    return [path for path in wanted if path not in present]


def restore(lake: Lake, settings: Settings, undo: Undo, sources: list[str], progress: Progress) -> Account | None:
    """Go back, read the sources again (where there are any), and rebuild the views; returns the account of the reading.

    The checkpoints go first: whatever is interrupted after that, `ingest` reads all files again and `similarity` asks
    for its rebuild. Started again with the same time, it does all of it again.

    Raises LakeError, before anything is changed, where what was read since would not be read again.
    """
    if undo.lost:
        some = ", ".join(path.removeprefix("file:") for path in undo.lost[:3])
        raise LakeError(
            f"{len(undo.lost)} files that were read since would not be read again, and their events would be lost "
            f"({some}{', …' if len(undo.lost) > 3 else ''}): bring them back, name their folder too, or, to do without "
            "them, --set ingest.exclude=NAME"
        )
    kept = {} if undo.cut is None else {CUT: undo.cut.isoformat()}
    with lake.locks.tables(*(table.name for table in INGEST_TABLES)):
        lake.files.delete("_checkpoints")
        for table in INGEST_TABLES:
            now, then = undo.versions[table.name]
            if not lake.is_same(table, then):
                note = {"job": "restore", "to": undo.moment.isoformat(), **kept}
                lake.restore(table, then, note=note)
            progress(f"{table.name}: v{now} taken back to v{then}")
        lake.set_properties(EVENTS, {APPLICATION: new_application(), **kept})
        if undo.cut is not None:
            expire(lake, undo.cut, progress)
    account = ingest(lake, sources, settings.ingest, progress=progress) if sources else None
    if lake.exists(CO_INTERACTIONS):
        chosen = similarity_settings(lake, settings)
        start_over(lake, chosen, progress)
        update(lake, chosen, progress=progress)
    renew_views(lake, settings, progress)
    return account


def _version_at(lake: Lake, table: Table, moment: datetime) -> int:
    commits = commit_numbers(lake.files, table.name)
    for version in reversed(commits):
        if commit_time(lake.files, table.name, version) <= moment:
            return version
    first = commit_time(lake.files, table.name, commits[0])
    raise UsageError(f"table {table.name} can't go back before {first:%Y-%m-%d %H:%M:%S} UTC, where its log begins")


def _check_readable(lake: Lake, table: Table, version: int) -> None:
    there = lake.files.walk(table.name)
    if not all(path in there for path in lake.data_files(table, version)):
        raise LakeError(
            f"version {version} of {table.name} can't be read any more: a vacuum has deleted its files "
            "(maintenance.retention says how far back the lake can go); name a later time"
        )
