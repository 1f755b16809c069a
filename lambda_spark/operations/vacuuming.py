"""Deleting the files that nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from lambda_spark.lake import Lake
from lambda_spark.operations.draining import at_rest, renew_views
from lambda_spark.settings import Settings


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
    with lake.locks.no_readers(), at_rest(lake, settings, progress):
        renew_views(lake, settings, progress)
        with lake.locks.tables(*(table.name for table in lake.present())):
            for table in lake.present():
                before = lake.files.walk(table.name)
                lake.vacuum(table, retention)
                left = lake.files.walk(table.name)
                gone = [size for path, size in before.items() if path not in left]
                if gone:
                    deleted[table.name] = Deleted(len(gone), sum(gone))
                    progress(f"{table.name}: {len(gone):,} files deleted")
    return deleted
