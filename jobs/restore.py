"""The `restore` job: it undoes bad input. The lake returns to its state at a given time and reads its sources again."""

from contextlib import ExitStack
from datetime import UTC

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.quiesce import hold_every_job
from lambda_spark.operations.restore import plan, restore
from lambda_spark.report.operations import undo_lines
from lambda_spark.report.pipeline import account_lines


def main(job: Job) -> None:
    """Restore the lake to an earlier time, or with --dry-run print which rows that would remove.

    Raises:
        UsageError: The lake does not go back that far.
        LakeError: Users were forgotten after that time, the lake no longer has a file of that time, or the sources lack
            event files that were read since.
        JobRunningError: A job is running on the lake.
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
        account = restore(lake, job.settings, undo, sources)
    lines = undo_lines(undo)
    if account is None:
        lines.append("now read the files again: ./spark-submit.sh run SOURCE --set ingest.exclude=NAME")
    else:
        lines += account_lines(account)
    job.summary(lines, read=before, written=lake.written_since(before))


if __name__ == "__main__":
    run_job("restore", main)
