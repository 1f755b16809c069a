"""The `migrate` job. It renames tables that an earlier version of the project made to their current names."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.migrate import migrate, tables_to_rename
from lambda_spark.storage.lake import Lake


def main(job: Job) -> None:
    """Rename the tables that have an old name. With --dry-run, only list these tables.

    Raises:
        UsageError: There is no lake.
        LakeError: The lake holds both a table with the old name and one with the current name.
        JobRunningError: Another job is running on the lake.
    """
    lake = Lake(job.spark, job.arguments.lake)
    tables = tables_to_rename(lake) if job.arguments.dry_run else migrate(lake)
    verb = "would be renamed" if job.arguments.dry_run else "renamed"
    lines = [f"{verb}: {table.former_name} to {table.name}" for table in tables]
    job.summary(lines or ["nothing to migrate: every table has its name of this version"], read={}, written={})


if __name__ == "__main__":
    run_job("migrate", main)
