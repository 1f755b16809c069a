"""The `migrate` job: the tables of a lake from an earlier version get the names of this version."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.migrate import migrate, tables_to_rename
from lambda_spark.storage.lake import Lake


def main(job: Job) -> None:
    """Rename the tables, or with --dry-run only list them.

    Raises:
        UsageError: There is no lake.
        LakeError: The lake holds a table by both names.
        JobRunningError: A job is running on the lake.
    """
    lake = Lake(job.spark, job.arguments.lake)
    tables = tables_to_rename(lake) if job.arguments.dry_run else migrate(lake)
    verb = "would be renamed" if job.arguments.dry_run else "renamed"
    lines = [f"{verb}: {table.former_name} to {table.name}" for table in tables]
    job.summary(lines or ["nothing to migrate: every table has its name of this version"], read={}, written={})


if __name__ == "__main__":
    run_job("migrate", main)
