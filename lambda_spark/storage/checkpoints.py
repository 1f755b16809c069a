"""Finds and checks the checkpoint of a stream, which is the folder where Spark keeps the stream's progress.

Each stream has a random application id. The tables that the stream writes have this id as a property, and the folder of
the checkpoint has this id as its name. So a stream cannot use the checkpoint of another stream by mistake.
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
"""Name of the table property that holds the application id of the stream that writes the table."""
PLANNED_AT = "planned_at"
"""Name of the entry in a commit's metadata with the time at which Spark planned the micro-batch.

If the checkpoint has another time for the same micro-batch, it is not the checkpoint that the table was written with.
"""
PLANNED = "offsets"
"""Subfolder of a checkpoint. Spark writes the end offset of each micro-batch here before the micro-batch begins."""
FILES = "sources/0"
"""Subfolder of a checkpoint. A stream that reads files lists here which files it has found."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The checkpoint of one stream."""

    job: str
    """Name of the stream."""
    application: str
    """Application id of the stream. The stream stores this id in the metadata of each of its commits."""
    location: str
    """Folder of the checkpoint, as a path or a URI."""


def new_application() -> str:
    """Make a random application id for a new stream."""
    return uuid.uuid4().hex


def open_checkpoint(
    lake: Lake, job: str, table: Table, *, advice: str, key: str = APPLICATION, parts: Sequence[str] = (PLANNED,)
) -> Checkpoint:
    """Find the checkpoint of the stream that writes a table, and check that the two belong together.

    Args:
        lake: The lake that holds the table.
        job: Name of the stream.
        table: The table.
        advice: Text for the error message that says what to do about a lost or foreign checkpoint.
        key: The table property that holds the stream's application id.
        parts: The subfolders that a complete checkpoint has.

    Raises:
        CheckpointError: The checkpoint is lost, or the table was written with another checkpoint. If the stream
            continued, it would count events twice.
    """
    application = lake[table].properties()[key]
    checkpoint = Checkpoint(job, application, lake.checkpoint(job, application))
    written = lake[table].last_commit(application=application)
    if written is None and not lake[table].has_log_since(-1):
        # Accept the checkpoint without a check. The stream was idle for so long that Delta has deleted the stream's
        # commits from the table's log.
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
    """Whether a stream has processed every row that was appended to its source table.

    The stream has done so when all planned micro-batches are finished and no later version of the source appended rows.
    From then on, the stream never again reads the current files of the source.
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
    """Return the offset in the stream's source at which a micro-batch ends.

    Spark stores this offset before the micro-batch begins. So a micro-batch that Spark repeats after a failure ends at
    the same offset.
    """
    return _planned(lake, checkpoint, batch_id)[1]


def batch_time(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> datetime:
    """Return the time (UTC) at which Spark planned a micro-batch. A repeated micro-batch keeps this time."""
    milliseconds = _planned(lake, checkpoint, batch_id)[0]["batchTimestampMs"]
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def files_planned(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> dict[str, datetime]:
    """List the files that a micro-batch reads, from the records of Spark's file source in the checkpoint.

    Returns:
        A dictionary from the URI of each file to the time (UTC) at which the file last changed.
    """
    before = source_offset(lake, checkpoint, batch_id - 1)["logOffset"] if batch_id else -1
    files = {}
    for number in range(before + 1, source_offset(lake, checkpoint, batch_id)["logOffset"] + 1):
        log = f"{_folder(checkpoint)}/{FILES}/{number}"
        # Every few micro-batches, Spark names the list of files NUMBER.compact instead of NUMBER. This list also
        # repeats the entries of all earlier lists.
        text = lake.files.read_text(log if lake.files.exists(log) else f"{log}.compact")
        for entry in map(json.loads, text.splitlines()[1:]):
            if entry["batchId"] == number:
                files[entry["path"]] = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
    return files


def _planned(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the metadata of a micro-batch, and the end offset of its only source, as Spark planned them."""
    _, metadata, offset = lake.files.read_text(f"{_folder(checkpoint)}/{PLANNED}/{batch_id}").splitlines()
    return json.loads(metadata), json.loads(offset)


def _micro_batches(lake: Lake, checkpoint: Checkpoint, part: str) -> list[int]:
    """Return the numbers of the micro-batches for which a subfolder of the checkpoint has a file."""
    return [int(name) for name in lake.files.list(f"{_folder(checkpoint)}/{part}") if name.isdigit()]


def _folder(checkpoint: Checkpoint) -> str:
    """Return the path of the checkpoint's folder, relative to the lake's folder."""
    return f"_checkpoints/{checkpoint.job}/{checkpoint.application}"


def covered_version(note: dict[str, Any]) -> int | None:
    """Find the newest version of `events` whose rows a job had processed completely when it made a commit.

    Args:
        note: The JSON object that the job stored in the metadata of this commit.

    Returns:
        The version of `events`. None if the micro-batch of the commit read only some files of the last version that
            it read.
    """
    if "events_version" in note:
        return int(note["events_version"])
    offset = note.get("offset")
    if not isinstance(offset, dict) or offset["index"] != -1 or offset["isStartingVersion"]:
        return None
    return int(offset["reservoirVersion"]) - 1
