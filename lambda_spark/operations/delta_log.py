"""A table's log, read as the Delta protocol describes its files.

Delta's own `history` starts Spark jobs, which costs a small run more than its work; and Delta leaves out a check: by
trial a log that lost a commit reads as a shorter table, without an error.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from lambda_spark.errors import LakeError
from lambda_spark.operations.files import FileSystem

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")


def commit_numbers(files: FileSystem, table: str) -> list[int]:
    """The versions whose commit files are still there, oldest first; empty where there is no such table."""
    names = files.list(f"{table}/_delta_log")
    return sorted(int(match[1]) for name in names if (match := _COMMIT.fullmatch(name)))


def commit_note(files: FileSystem, table: str, version: int) -> dict[str, Any] | None:
    """What the job that wrote a version noted in its metadata, or None."""
    for line in files.read_text(f"{table}/_delta_log/{version:020}.json").splitlines():
        text = json.loads(line).get("commitInfo", {}).get("userMetadata")
        if text:
            return dict(json.loads(text))
    return None


def commit_rows(files: FileSystem, table: str, version: int) -> tuple[datetime, int]:
    """When a version was written (UTC) and how many rows its job wrote."""
    for line in files.read_text(f"{table}/_delta_log/{version:020}.json").splitlines():
        info = json.loads(line).get("commitInfo")
        if info:
            rows = int(info.get("operationMetrics", {}).get("numOutputRows", 0))
            return datetime.fromtimestamp(info["timestamp"] / 1000, UTC), rows
    raise LakeError(f"table {table}: commit {version} in {files.root}/{table}/_delta_log says nothing about itself")


def check_log(files: FileSystem, table: str) -> None:
    """Raises LakeError where a table's log has a gap, an empty commit, or no beginning."""
    sizes = files.sizes(f"{table}/_delta_log")
    commits = {int(match[1]): size for name, size in sizes.items() if (match := _COMMIT.fullmatch(name))}
    if not commits:
        return
    checkpoints = [int(match[1]) for name in sizes if (match := _CHECKPOINT.fullmatch(name))]
    newest = max(commits)
    first_needed = max((version for version in checkpoints if version <= newest), default=-1) + 1
    for version in range(first_needed, newest + 1):
        if not commits.get(version):
            what = "is empty" if version in commits else "is missing"
            raise LakeError(
                f"table {table}: commit {version} {what} in {files.root}/{table}/_delta_log, so rows are lost; "
                "bring that file back from a backup, or ingest the sources again into a fresh lake"
            )


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
