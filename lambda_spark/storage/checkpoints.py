"""Streams and their checkpoints.

A stream writes under an application id. The id is a property of the tables it writes and the name of its checkpoint's
folder, so that neither can be mistaken for another's.
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
PLANNED_AT = "planned_at"
"""Entry of a micro-batch's note: when Spark planned it, by which its checkpoint is known again."""
PLANNED = "offsets"
"""Folder of a checkpoint: where each micro-batch ends, written before it begins."""
FILES = "sources/0"
"""Folder of a checkpoint: the files that a stream of files has found."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The checkpoint of one stream: where it is and the application id that its commits carry."""

    job: str
    application: str
    location: str


def new_application() -> str:
    return uuid.uuid4().hex


def open_checkpoint(
    lake: Lake, job: str, table: Table, *, way_out: str, key: str = APPLICATION, parts: Sequence[str] = (PLANNED,)
) -> Checkpoint:
    """The checkpoint that a table's rows came through; `key` is the property that holds its application id, and without
    each of the `parts`, folders in it, it is no checkpoint.

    Raises CheckpointError, naming the way out, where the checkpoint is lost or is not as far as the table: going on
    would count events twice.
    """
    application = lake.properties(table)[key]
    checkpoint = Checkpoint(job, application, lake.checkpoint(job, application))
    written = lake.last_commit(table, application=application)
    if written is None and not lake.has_log_since(table, -1):
        # The stream has been idle for so long that the log has forgotten what it wrote.
        return checkpoint
    planned, finished = (_micro_batches(lake, checkpoint, part) for part in (PLANNED, "commits"))
    batch_id = -1 if written is None else int(written.note["batch_id"])
    if written is not None and not all(lake.files.list(f"{_folder(checkpoint)}/{part}") for part in parts):
        raise CheckpointError(f"the checkpoint of {job} is lost ({checkpoint.location}); {way_out}")
    is_another = f"the checkpoint of {job} is not the one that {table.name} was written with"
    if not max(finished, default=-1) <= batch_id <= max(planned, default=-1):
        has = "has none" if written is None else f"is at {batch_id}"
        raise CheckpointError(
            f"{is_another}: it is at micro-batch {max(planned + finished)}, the table {has}; {way_out}"
        )
    planned_at = None if written is None else written.note.get(PLANNED_AT)
    if planned_at is not None and planned_at != batch_time(lake, checkpoint, batch_id).isoformat():
        raise CheckpointError(f"{is_another}: its micro-batch {batch_id} was planned at another time; {way_out}")
    return checkpoint


def is_at_head(lake: Lake, checkpoint: Checkpoint, source: Table) -> bool:
    """Whether a stream has finished all micro-batches that it planned, and they take in all that was appended to its
    source: nothing older will be read from the source's files again."""
    planned = _micro_batches(lake, checkpoint, PLANNED)
    if not planned:
        return lake.read(source, lake.version(source)).isEmpty()
    if not lake.files.exists(f"{_folder(checkpoint)}/commits/{max(planned)}"):
        return False
    covered = covered_version({"offset": source_offset(lake, checkpoint, max(planned))})
    if covered is None:
        return False
    later = range(covered + 1, lake.version(source) + 1)
    return not any(appends_rows(lake.files, source.name, version) for version in later)


def source_offset(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> dict[str, Any]:
    """Where in its source a micro-batch ends, as Spark planned it; a replay of the batch ends there too."""
    return _planned(lake, checkpoint, batch_id)[1]


def batch_time(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> datetime:
    """When a micro-batch was planned (UTC); a replay of the batch has the same time."""
    milliseconds = _planned(lake, checkpoint, batch_id)[0]["batchTimestampMs"]
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def files_planned(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> dict[str, datetime]:
    """The URI of every file of a micro-batch, as Spark's file source noted them, and when it had been changed (UTC)."""
    before = source_offset(lake, checkpoint, batch_id - 1)["logOffset"] if batch_id else -1
    found = {}
    for number in range(before + 1, source_offset(lake, checkpoint, batch_id)["logOffset"] + 1):
        log = f"{_folder(checkpoint)}/{FILES}/{number}"
        # Every few, Spark writes one with all that came before in it.
        text = lake.files.read_text(log if lake.files.exists(log) else f"{log}.compact")
        for entry in map(json.loads, text.splitlines()[1:]):
            if entry["batchId"] == number:
                found[entry["path"]] = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
    return found


def _planned(lake: Lake, checkpoint: Checkpoint, batch_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Spark wrote about a micro-batch before it began: its circumstances, and where its only source ends."""
    _, circumstances, offset = lake.files.read_text(f"{_folder(checkpoint)}/{PLANNED}/{batch_id}").splitlines()
    return json.loads(circumstances), json.loads(offset)


def _micro_batches(lake: Lake, checkpoint: Checkpoint, part: str) -> list[int]:
    """The numbers of the micro-batches that a folder of the checkpoint has a file of."""
    return [int(name) for name in lake.files.list(f"{_folder(checkpoint)}/{part}") if name.isdigit()]


def _folder(checkpoint: Checkpoint) -> str:
    """Where the checkpoint is in the lake."""
    return f"_checkpoints/{checkpoint.job}/{checkpoint.application}"


def covered_version(note: dict[str, Any]) -> int | None:
    """The version of `events` that a table has taken in as a whole, by a commit's note; None where its micro-batch
    ended within a version."""
    if "events_version" in note:
        return int(note["events_version"])
    offset = note.get("offset")
    if not isinstance(offset, dict) or offset["index"] != -1 or offset["isStartingVersion"]:
        return None
    return int(offset["reservoirVersion"]) - 1
