"""History of a lake: what each job wrote, when, and from which versions.

Each job adds metadata, called a note, to its commits in the tables' Delta logs. The history is read from these notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lambda_spark.storage.delta_log import commit_note, commit_numbers, commit_operation, commit_time
from lambda_spark.storage.lake import Lake


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history: a version of a table."""

    time: datetime
    """When the version was committed (UTC)."""
    job: str
    """The job that wrote the version. Empty for a commit that only creates a table or changes a property."""
    table: str
    version: int
    operation: str
    """Delta's name of the operation, like `WRITE`."""
    read: str
    """The versions and offsets that this table version was computed from, in words."""


def history(lake: Lake, limit: int) -> list[Entry]:
    """List the newest versions of all tables.

    Args:
        lake: The lake to look at.
        limit: Largest number of entries to return.

    Returns:
        The entries, newest first.
    """
    entries = [
        _entry(lake, table.name, version)
        for table in lake.present()
        for version in commit_numbers(lake.files, table.name)[-limit:]
    ]
    return sorted(entries, key=lambda entry: (entry.time, entry.table, entry.version), reverse=True)[:limit]


def _entry(lake: Lake, table: str, version: int) -> Entry:
    note = commit_note(lake.files, table, version) or {}
    return Entry(
        commit_time(lake.files, table, version),
        str(note.get("job", "")),
        table,
        version,
        commit_operation(lake.files, table, version),
        _versions_read(note),
    )


def _versions_read(note: dict[str, Any]) -> str:
    """Describe in words what a commit read: the table versions, the stream offset and the dates in its metadata."""
    words = [f"{name} v{version}" for name, version in note.get("versions", {}).items()]
    words += [f"{key.removesuffix('_version')} v{value}" for key, value in note.items() if key.endswith("_version")]
    offset = note.get("offset")
    if isinstance(offset, dict) and not words:
        words.append(f"events before v{offset['reservoirVersion']}")
    if "batch_id" in note:
        words.append(f"micro-batch {note['batch_id']}")
    words += [f"{key} {note[key]}" for key in ("cut", "to") if key in note]
    return ", ".join(words)
