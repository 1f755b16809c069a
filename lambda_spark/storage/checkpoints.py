"""The checkpoints of streams.

Each stream has an application id, which is recorded as a property of the tables that the stream writes and is the name
of its checkpoint's folder. So a checkpoint cannot be used with the tables of another stream.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lambda_spark.errors import CheckpointError
from lambda_spark.storage.delta_log import appends_rows
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import Table

APPLICATION = "application"
"""Table property with the application id of the stream that writes the table."""
PLANNED_AT = "planned_at"
"""Entry of a commit's note: when Spark planned the micro-batch. Another checkpoint would have another time."""
PLANNED = "offsets"
"""Folder in a checkpoint to which Spark writes a micro-batch's end offset before the micro-batch begins."""
FILES = "sources/0"
"""Folder in a checkpoint in which a stream that reads files lists the files that it has found."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The checkpoint of one stream."""

    job: str
    """Name of the stream."""
    application: str
    """Application id, which each commit of the stream has in its note."""
    location: str
    """Folder of the checkpoint, a path or a URI."""


def new_application() -> str:
    """Make a new application id."""
    return uuid.uuid4().hex


def open_checkpoint(
    lake: Lake, job: str, table: Table, *, advice: str, key: str = APPLICATION, parts: Sequence[str] = (PLANNED,)
) -> Checkpoint:
    """Open the checkpoint of the stream that writes a table.

    Args:
        lake: The lake of the table.
        job: Name of the stream.
        table: The table.
        advice: What to do about a lost or foreign checkpoint, for the error message.
        key: The table property that holds the stream's application id.
        parts: The subfolders that a complete checkpoint has.

    Raises:
        CheckpointError: The checkpoint is lost, or its micro-batches are not those that wrote the table. A stream that
            continued would count events twice.
    """
    application = lake[table].properties()[key]
    checkpoint = Checkpoint(job, application, lake.checkpoint(job, application))
    written = lake[table].last_commit(application=application)
    if written is None and not lake[table].has_log_since(-1):
        # Accept the checkpoint: the stream was idle for so long that its commits are no longer in the table's log.
        return checkpoint
    planned, finished = (_micro_batches(lake, checkpoint, part) for part in (PLANNED, "commits"))
    batch_id = -1 if written is None else int(written.note["batch_id"])
    if written is not None and not all(lake.files.list(f"{_folder(checkpoint)}/{part}") for part in parts):
        raise CheckpointError(f"the checkpoint of {job} is lost ({checkpoint.location}); {advice}")
    is_another = f"the checkpoint of {job} is not the one that {table.name} was written with"
    if not max(finished, default=-1) <= batch_id <= max(planned, default=-1):
        has = "has none" if written is None else f"is at {batch_id}"
        raise CheckpointError(
            f"{is_another}: it is at micro-batch {max(planned + finished)}, the table {has}; {advice}"
        )
    planned_at = None if written is None else written.note.get(PLANNED_AT)
    if planned_at is not None and planned_at != batch_time(lake, checkpoint, batch_id).isoformat():
        raise CheckpointError(f"{is_another}: its micro-batch {batch_id} was planned at another time; {advice}")
    return checkpoint


def is_at_head(lake: Lake, checkpoint: Checkpoint, source: Table) -> bool:
    """Whether a stream has processed every row that was appended to its source.

    This holds when all planned micro-batches are finished and no later version of the source appended rows. The stream
    then never again reads the files that the source has now.
    """
    planned = _micro_batches(lake, checkpoint, PLANNED)
    if not planned:
        return lake[source].read(lake[source].version()).isEmpty()
    if not lake.files.exists(f"{_folder(checkpoint)}/commits/{max(planned)}"):
        return False
    covered = covered_version({"offset": source_offset(lake, checkpoint, max(planned))})
    if covered is None:
        return False
    later = range(covered + 1, lake[source].version() + 1)
    return not any(appends_rows(lake.files, source.name, version) for version in later)


def source_offset(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> dict[str, Any]:
    """Return the source offset at which a micro-batch ends.

    Spark stores this offset before the micro-batch begins, so a repeated micro-batch ends at the same offset.
    """
    return _planned(lake, checkpoint, batch_id)[1]


def batch_time(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> datetime:
    """Return when a micro-batch was planned (UTC). A repeated micro-batch has the same time."""
    milliseconds = _planned(lake, checkpoint, batch_id)[0]["batchTimestampMs"]
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def files_planned(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> dict[str, datetime]:
    """List the files of a micro-batch, as Spark's file source recorded them in the checkpoint.

    Returns:
        The time of each file's last change (UTC), by the file's URI.
    """
    before = source_offset(lake, checkpoint, batch_id - 1)["logOffset"] if batch_id else -1
    files = {}
    for number in range(before + 1, source_offset(lake, checkpoint, batch_id)["logOffset"] + 1):
        log = f"{_folder(checkpoint)}/{FILES}/{number}"
        # Every few micro-batches Spark writes a file NUMBER.compact instead, with the entries of all earlier files too.
        text = lake.files.read_text(log if lake.files.exists(log) else f"{log}.compact")
        for entry in map(json.loads, text.splitlines()[1:]):
            if entry["batchId"] == number:
                files[entry["path"]] = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
    return files


def _planned(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what Spark planned for a micro-batch: its metadata, and the end offset of its only source."""
    _, metadata, offset = lake.files.read_text(f"{_folder(checkpoint)}/{PLANNED}/{batch_id}").splitlines()
    return json.loads(metadata), json.loads(offset)


def _micro_batches(lake: Lake, checkpoint: Checkpoint, part: str) -> list[int]:
    """Return the numbers of the micro-batches that have a file in a subfolder of the checkpoint."""
    return [int(name) for name in lake.files.list(f"{_folder(checkpoint)}/{part}") if name.isdigit()]


def _folder(checkpoint: Checkpoint) -> str:
    """Return the checkpoint's folder, relative to the lake."""
    return f"_checkpoints/{checkpoint.job}/{checkpoint.application}"


def covered_version(note: dict[str, Any]) -> int | None:
    """Find the newest version of `events` whose rows a commit has processed completely.

    Args:
        note: The JSON object that the job stored in the commit.

    Returns:
        The version; None where the commit's micro-batch read only some of the files of its last version.
    """
    if "events_version" in note:
        return int(note["events_version"])
    offset = note.get("offset")
    if not isinstance(offset, dict) or offset["index"] != -1 or offset["isStartingVersion"]:
        return None
    return int(offset["reservoirVersion"]) - 1
