"""A table's log, read as the Delta protocol describes its files.

Delta's own `history` starts Spark jobs, which costs a small run more than its work; and Delta leaves out a check: by
trial a log that lost a commit reads as a shorter table, without an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

from lambda_spark.errors import LakeError
from lambda_spark.storage.file_system import FileSystem

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")


def commit_numbers(files: FileSystem, table: str) -> list[int]:
    """The versions whose commit files are still there, oldest first; empty where there is no such table."""
    names = files.list(f"{table}/_delta_log")
    return sorted(int(match[1]) for name in names if (match := _COMMIT.fullmatch(name)))


def commit_note(files: FileSystem, table: str, version: int) -> dict[str, Any] | None:
    """What the job that wrote a version noted in its metadata, or None."""
    text = _info(files, table, version).get("userMetadata")
    return dict(json.loads(text)) if text else None


def commit_time(files: FileSystem, table: str, version: int) -> datetime:
    """When a version was written (UTC)."""
    millis = int(_info(files, table, version).get("timestamp", 0))
    return datetime.fromtimestamp(millis / 1000, UTC)


def commit_operation(files: FileSystem, table: str, version: int) -> str:
    """What Delta calls the operation that wrote a version, like `WRITE` or `MERGE`."""
    return str(_info(files, table, version).get("operation", ""))


def rows_written(files: FileSystem, table: str, version: int) -> int | None:
    """How many rows a version brought; None where its commit does not say."""
    rows = _info(files, table, version).get("operationMetrics", {}).get("numOutputRows")
    return None if rows is None else int(rows)


def _info(files: FileSystem, table: str, version: int) -> dict[str, Any]:
    return next(
        (dict(action["commitInfo"]) for action in _actions(files, table, version) if "commitInfo" in action), {}
    )


def appends_rows(files: FileSystem, table: str, version: int) -> bool:
    """Whether a version brought rows and took none out: what a stream with `skipChangeCommits` reads."""
    changed = _changed(files, table, version)
    return "add" in changed and "remove" not in changed


def dates_taken_out(files: FileSystem, table: str, version: int) -> list[date]:
    """The dates of a table, partitioned by `event_date`, that a version took rows out of."""
    removed = (action["remove"] for action in _actions(files, table, version) if "remove" in action)
    return sorted({date.fromisoformat(file["partitionValues"]["event_date"]) for file in removed if file["dataChange"]})


def files_brought(files: FileSystem, table: str, version: int) -> set[str]:
    """The files that a version added, change files too: paths below the table."""
    actions = _actions(files, table, version)
    return {unquote(action[kind]["path"]) for action in actions for kind in ("add", "cdc") if kind in action}


def newest_with_same_rows(files: FileSystem, table: str, version: int) -> int:
    """The newest version whose rows are those of this one: compaction, properties and notes change none."""
    while files.exists(_file(table, version + 1)) and not _changed(files, table, version + 1):
        version += 1
    return version


def _changed(files: FileSystem, table: str, version: int) -> set[str]:
    """`add` or `remove`, or both, where a version brought or took out rows."""
    return {
        kind
        for action in _actions(files, table, version)
        for kind in ("add", "remove")
        if action.get(kind, {}).get("dataChange")
    }


def _actions(files: FileSystem, table: str, version: int) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in files.read_text(_file(table, version)).splitlines() if line)


def _file(table: str, version: int) -> str:
    return f"{table}/_delta_log/{version:020}.json"


def check_log(files: FileSystem, table: str) -> None:
    """Raises LakeError where a table's log has a gap, an empty commit, or no beginning."""
    names = files.list(f"{table}/_delta_log")
    commits = {int(match[1]) for name in names if (match := _COMMIT.fullmatch(name))}
    if not commits:
        return
    checkpoints = [int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))]
    newest = max(commits)
    first_needed = max((version for version in checkpoints if version <= newest), default=-1) + 1
    for version in range(first_needed, newest + 1):
        if version not in commits or not files.size(_file(table, version)):
            what = "is empty" if version in commits else "is missing"
            raise LakeError(
                f"table {table}: commit {version} {what} in {files.root}/{table}/_delta_log, so rows are lost; "
                "bring that file back from a backup, or ingest the sources again into a fresh lake"
            )


def table_bytes(files: FileSystem, table: str, version: int) -> int:
    """The size of a version's data files by Delta's checksum file; 0 where there is none."""
    return int(_checksum(files, table, version).get("tableSizeBytes", 0))


def table_properties(files: FileSystem, table: str, version: int) -> dict[str, str] | None:
    """A version's properties by Delta's checksum file; None where there is none."""
    metadata = _checksum(files, table, version).get("metadata")
    return None if metadata is None else dict(metadata["configuration"])


def _checksum(files: FileSystem, table: str, version: int) -> dict[str, Any]:
    """What Delta's checksum file says of a version as a whole; empty where there is none."""
    checksum = f"{table}/_delta_log/{version:020}.crc"
    return dict(json.loads(files.read_text(checksum))) if files.exists(checksum) else {}


def first_properties(files: FileSystem, table: str) -> dict[str, str]:
    """The properties that a table was created with; empty where its first commit is gone."""
    first = f"{table}/_delta_log/{0:020}.json"
    if not files.exists(first):
        return {}
    for line in files.read_text(first).splitlines():
        metadata = json.loads(line).get("metaData")
        if metadata:
            return dict(metadata["configuration"])
    return {}
