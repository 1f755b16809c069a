"""Migration of a lake from an earlier program version: its tables get the names that this version uses."""

from __future__ import annotations

from contextlib import ExitStack

from lambda_spark.errors import LakeError, UsageError
from lambda_spark.operations.quiesce import hold_every_job
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, TABLES, Table


def tables_to_rename(lake: Lake) -> list[Table]:
    """List the tables that the lake still holds under a name from an earlier program version.

    Raises:
        UsageError: There is no lake at this path.
        LakeError: The lake holds a table under both its old and its new name.
    """
    if not lake[EVENTS].exists():
        raise UsageError(f"{lake.path} is no lake, because it has no events table; name another --lake")
    tables = [table for table in TABLES.values() if lake.has_former(table)]
    for table in tables:
        if lake[table].exists():
            raise LakeError(
                f"{lake.path} holds both {table.former_name} and {table.name}, two names of one table, because an "
                "earlier version wrote to this lake after its migration; move one of the two folders away and run "
                "`./spark-submit.sh migrate` again"
            )
    return tables


def migrate(lake: Lake) -> list[Table]:
    """Rename the tables that have another name in this program version. No row changes.

    Returns:
        The renamed tables.

    Raises:
        UsageError: There is no lake at this path.
        LakeError: The lake holds a table under both its old and its new name, or a folder could not be renamed.
        JobRunningError: A job is running on the lake.
    """
    tables = tables_to_rename(lake)
    with ExitStack() as locks:
        hold_every_job(lake, locks)
        for table in tables:
            # Clear the new name: a job that was killed while it created the table may have left an empty log there.
            lake.files.delete(table.name)
            lake.files.rename(table.former_name, table.name)
    return tables
