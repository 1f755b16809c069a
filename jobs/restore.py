"""Undo a bad feed: the lake as it was at a time, and from there on again."""

from contextlib import ExitStack
from datetime import UTC

from lambda_spark.cli.job import Job, run_job
from lambda_spark.ingestion.kafka_source import stream_name, topics_read
from lambda_spark.operations.restore import plan, restore
from lambda_spark.report.operations import undo_lines
from lambda_spark.report.pipeline import account_lines
from lambda_spark.storage.tables import EVENTS

EVERY_WRITER = ("ingest", "trends", "similarity", "recommend", "maintain", "forget", "restore")


def main(job: Job) -> None:
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
        for name in (*map(stream_name, topics_read(lake.properties(EVENTS))), *EVERY_WRITER):
            locks.enter_context(lake.locks.job(name))
        undo = plan(lake, moment, sources, job.settings.ingest)
        account = restore(lake, job.settings, undo, sources, job.say)
    lines = undo_lines(undo)
    if account is None:
        lines.append("now read the files again: ./spark-submit.sh run SOURCE --set ingest.exclude=NAME")
    else:
        lines += account_lines(account)
    job.summary(lines, read=before, written=lake.written_since(before))


if __name__ == "__main__":
    run_job("restore", main)
