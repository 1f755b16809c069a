"""Deletion of the files that no recent version of a table needs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from lambda_spark.operations.quiesce import at_rest_unread, renew_views
from lambda_spark.settings import Settings
from lambda_spark.storage.delta_log import commit_numbers, commit_time, files_brought
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deleted:
    """Number and size of a table's files that were deleted, or in a dry run would be."""

    files: int
    bytes: int


def vacuum(lake: Lake, settings: Settings, retention: timedelta) -> dict[str, Deleted]:
    """Delete the files that no table version within the retention time needs.

    The function waits until nobody reads the lake, renews every view and then deletes files. The views are renewed
    because each view was computed from certain table versions. `verify` and the next run need those versions.

    Args:
        lake: The lake to clean.
        settings: All settings.
        retention: How far back table versions stay readable.

    Returns:
        The deleted files by table name. Tables without deleted files are left out.

    Raises:
        CheckpointError: The similarity stream cannot continue.
    """
    deleted = {}
    with at_rest_unread(lake, settings):
        renew_views(lake, settings)
        with lake.locks.tables(*(table.name for table in lake.present())):
            for table in lake.present():
                # Skip a table without unneeded files, because Delta would list all its folders and add two commits.
                unneeded = unneeded_files(lake, table, retention)
                if not unneeded:
                    continue
                lake[table].vacuum(retention)
                remaining = lake.files.walk(table.name)
                gone = [size for path, size in unneeded.items() if path not in remaining]
                if gone:
                    deleted[table.name] = Deleted(len(gone), sum(gone))
                    logger.info(f"{table.name}: {len(gone):,} files deleted")
    return deleted


def unneeded_files(lake: Lake, table: Table, retention: timedelta) -> dict[str, int]:
    """Find the files of a table that no version within the retention time needs.

    Recent files, written within the retention time, are not included, because a job may be about to commit them.
    Delta's own vacuum has the same rule.

    Returns:
        The size in bytes of each file, by the file's path below the table's folder.
    """
    since = datetime.now(UTC) - retention
    old = {
        path: file.bytes
        for path, file in lake.files.walk(table.name).items()
        if file.modified_at < since and not path.startswith("_delta_log/")
    }
    if not old:
        return {}
    commits = commit_numbers(lake.files, table.name)
    recent = list(takewhile(lambda version: commit_time(lake.files, table.name, version) > since, reversed(commits)))
    oldest = max((version for version in commits if version not in recent), default=commits[0])
    needed = set(lake[table].data_files(oldest))
    for version in recent:
        needed |= files_brought(lake.files, table.name, version)
    return {path: size for path, size in old.items() if path not in needed}
