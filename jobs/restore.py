"""The `restore` job. It undoes bad input. All tables return to a given time, then the job reads event files again."""

from contextlib import ExitStack
from datetime import UTC

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.quiesce import hold_every_job
from lambda_spark.operations.restore import plan, restore
from lambda_spark.report.operations import undo_lines
from lambda_spark.report.pipeline import account_lines


def main(job: Job) -> None:
    """Take the lake back to an earlier time. With --dry-run, only print which rows the job would remove.

    Raises:
        UsageError: The tables have no versions that old.
        LakeError: Users were forgotten after that time, a file of that time has been deleted from the lake, or the
            sources lack event files that were read since that time.
        JobRunningError: Another job is running on the lake.
    """
    lake = job.lake()
    moment = job.arguments.to.replace(tzinfo=UTC)
    before = lake.versions(*lake.present())
    sources = job.sources()
    if job.arguments.dry_run:
        with lake.locks.reader():
            undo = plan(lake, moment, sources, job.settings.ingest)
        job.summary(undo_lines(undo), read=before, written={})
        return
    with ExitStack() as locks:
        hold_every_job(lake, locks)
        undo = plan(lake, moment, sources, job.settings.ingest)
        account = restore(lake, job.settings, undo, sources, accept_source=job.arguments.accept_source)
    lines = undo_lines(undo)
    if account is None:
        lines.append("now read the files again: ./spark-submit.sh run SOURCE --set ingest.exclude=NAME")
    else:
        lines += account_lines(account)
    job.summary(lines, read=before, written=lake.written_since(before))


if __name__ == "__main__":
    run_job("restore", main)
