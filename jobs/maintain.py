"""The `maintain` job. It compacts small files, deletes unneeded files, and deletes expired events."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.maintain import maintain, plan
from lambda_spark.report.operations import maintenance_lines


def main(job: Job) -> None:
    """Maintain the lake. With --dry-run, only print what the job would do.

    Raises:
        LakeError: A `forget` was interrupted on this lake and must be finished first.
        JobRunningError: Another `maintain` is running on the lake.
    """
    lake = job.lake()
    before = lake.versions(*lake.present())
    if job.arguments.dry_run:
        with lake.locks.reader():
            planned = plan(lake, job.settings.maintenance)
        job.summary(maintenance_lines(planned, dry_run=True), read=before, written={})
        return
    with lake.locks.job("maintain"):
        done = maintain(lake, job.settings)
    job.summary(maintenance_lines(done, dry_run=False), read=before, written=lake.written_since(before))


if __name__ == "__main__":
    run_job("maintain", main)
