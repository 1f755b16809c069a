"""Reads the log of a Delta table file by file, as the Delta protocol describes it.

The project does not use Delta to read logs, for two reasons. First, Delta's `history` starts Spark jobs, which take
longer than all other work of a small run. Second, Delta does not check for lost commits. In a trial, one commit of a
table's log was deleted. Delta then read the table without an error, but with fewer rows.

In all functions, `files` is the lake's file system and `table` is the name of a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame

from lambda_spark.errors import LakeError
from lambda_spark.storage.file_system import FileSystem

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")


def commit_numbers(files: FileSystem, table: str) -> list[int]:
    """Return the versions of a table whose commit files exist, oldest first. Empty if the table does not exist."""
    names = files.list(f"{table}/_delta_log")
    return sorted(int(match[1]) for name in names if (match := _COMMIT.fullmatch(name)))


def commit_note(files: FileSystem, table: str, version: int) -> dict[str, Any] | None:
    """Return the JSON object that a job stored in the metadata of a version's commit. None if it stored none."""
    text = _info(files, table, version).get("userMetadata")
    return dict(json.loads(text)) if text else None


def commit_time(files: FileSystem, table: str, version: int) -> datetime:
    """Return the time (UTC) at which a version of a table was written."""
    millis = int(_info(files, table, version).get("timestamp", 0))
    return datetime.fromtimestamp(millis / 1000, UTC)


def commit_operation(files: FileSystem, table: str, version: int) -> str:
    """Return Delta's name for the operation that wrote a version of a table, like `WRITE` or `MERGE`."""
    return str(_info(files, table, version).get("operation", ""))


def rows_written(files: FileSystem, table: str, version: int) -> int | None:
    """Return the number of rows that a version's commit wrote. None if the commit does not record the number."""
    rows = _info(files, table, version).get("operationMetrics", {}).get("numOutputRows")
    return None if rows is None else int(rows)


def _info(files: FileSystem, table: str, version: int) -> dict[str, Any]:
    return next(
        (dict(action["commitInfo"]) for action in _actions(files, table, version) if "commitInfo" in action), {}
    )


def appends_rows(files: FileSystem, table: str, version: int) -> bool:
    """Whether a version added rows to a table and removed none.

    A stream with Delta's option `skipChangeCommits` reads only such versions.
    """
    changed = _changed(files, table, version)
    return "add" in changed and "remove" not in changed


def dates_taken_out(files: FileSystem, table: str, version: int) -> list[date]:
    """Return the event dates from which a version removed rows. `event_date` must partition the table."""
    removed = (action["remove"] for action in _actions(files, table, version) if "remove" in action)
    return sorted({date.fromisoformat(file["partitionValues"]["event_date"]) for file in removed if file["dataChange"]})


def files_brought(files: FileSystem, table: str, version: int) -> set[str]:
    """Return the data files and change data files that a version added. Paths are relative to the table's folder."""
    actions = _actions(files, table, version)
    return {unquote(action[kind]["path"]) for action in actions for kind in ("add", "cdc") if kind in action}


def latest_version_with_same_rows(files: FileSystem, table: str, version: int) -> int:
    """Find the newest version of a table that has the same rows as the given version.

    Some commits make a new version without a change of rows: they compact files, set properties or only store metadata.
    """
    while files.exists(_file(table, version + 1)) and not _changed(files, table, version + 1):
        version += 1
    return version


def _changed(files: FileSystem, table: str, version: int) -> set[str]:
    """Return the set of what a version did to the table's rows: `add`, `remove`, both or nothing."""
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
    """Check that a table's log is complete.

    Raises:
        LakeError: A commit that the newest version needs is missing or empty. The newest version needs all commits
            after the newest Delta checkpoint. Without a Delta checkpoint, it needs all commits.
    """
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
    """Return the total size of a version's data files in bytes.

    Delta's checksum file holds this size. The result is 0 if the version has no checksum file.
    """
    return int(_checksum(files, table, version).get("tableSizeBytes", 0))


def files_of(rows: DataFrame) -> DataFrame:
    """List the data files of a version of a table, as Delta's log describes them.

    Args:
        rows: The whole version, as Spark's Delta reader returns it.

    Returns:
        One row per data file, with the columns of Delta's action `add`.
    """
    relation = rows._jdf.queryExecution().analyzed().collectLeaves().head()
    return DataFrame(relation.relation().location().getSnapshot().allFiles().toDF(), rows.sparkSession)


def table_properties(files: FileSystem, table: str, version: int) -> dict[str, str] | None:
    """Return the table properties of a version from Delta's checksum file. None if this file does not exist."""
    metadata = _checksum(files, table, version).get("metadata")
    return None if metadata is None else dict(metadata["configuration"])


def _checksum(files: FileSystem, table: str, version: int) -> dict[str, Any]:
    """Read the checksum file in which Delta describes a version of a table. Empty if this file does not exist."""
    checksum = f"{table}/_delta_log/{version:020}.crc"
    return dict(json.loads(files.read_text(checksum))) if files.exists(checksum) else {}


def first_properties(files: FileSystem, table: str) -> dict[str, str]:
    """Return the properties with which a table was created. Empty if the log no longer has the first commit."""
    first = f"{table}/_delta_log/{0:020}.json"
    if not files.exists(first):
        return {}
    for line in files.read_text(first).splitlines():
        metadata = json.loads(line).get("metaData")
        if metadata:
            return dict(metadata["configuration"])
    return {}
