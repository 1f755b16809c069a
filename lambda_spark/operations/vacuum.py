"""Deleting the files that nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from lambda_spark.operations.quiesce import at_rest_unread, renew_views
from lambda_spark.settings import Settings
from lambda_spark.storage.delta_log import commit_numbers, commit_time, files_brought
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import Table


@dataclass(frozen=True, slots=True)
class Deleted:
    """Files of a table that are gone, or would be."""

    files: int
    bytes: int


def vacuum(lake: Lake, settings: Settings, retention: timedelta, progress: Callable[[str], None]) -> dict[str, Deleted]:
    """Delete the files that no version within the retention needs; returns what is gone, by table.

    Waits until nobody reads, and first brings every view up to date: what it was computed from may go, and `verify`
    and the next run need that.
    """
    deleted = {}
    with at_rest_unread(lake, settings, progress):
        renew_views(lake, settings, progress)
        with lake.locks.tables(*(table.name for table in lake.present())):
            for table in lake.present():
                # Delta would look through every folder, and commit that it began and that it ended.
                unneeded = unneeded_files(lake, table, retention)
                if not unneeded:
                    continue
                lake.vacuum(table, retention)
                left = lake.files.walk(table.name)
                gone = [size for path, size in unneeded.items() if path not in left]
                if gone:
                    deleted[table.name] = Deleted(len(gone), sum(gone))
                    progress(f"{table.name}: {len(gone):,} files deleted")
    return deleted


def unneeded_files(lake: Lake, table: Table, retention: timedelta) -> dict[str, int]:
    """The files, and their bytes, that no version within the retention needs: paths below the table.

    What was written within the retention stays, as with Delta: it may be of a commit that is still to come.
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
    needed = set(lake.data_files(table, oldest))
    for version in recent:
        needed |= files_brought(lake.files, table.name, version)
    return {path: size for path, size in old.items() if path not in needed}
