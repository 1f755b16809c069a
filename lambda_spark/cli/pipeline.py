"""Runs `ingest`, `trends`, `similarity` and `recommend` one after the other in one Spark session."""

from __future__ import annotations

import logging
from datetime import datetime

from lambda_spark.batch.refresh import update_trends
from lambda_spark.cli.job import Job
from lambda_spark.errors import JobRunningError
from lambda_spark.ingestion.ingest import ingest, ingest_topic, main_rejections
from lambda_spark.ingestion.kafka_source import stream_name
from lambda_spark.report.pipeline import (
    account_lines,
    recommendation_line,
    rejection_lines,
    set_aside_lines,
    similarity_line,
    trend_line,
)
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import AVAILABLE_NOW
from lambda_spark.spark import fit_partitions
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS

logger = logging.getLogger(__name__)


def ingest_from_arguments(
    job: Job, lake: Lake, sources: list[str], *, trigger: str = AVAILABLE_NOW
) -> tuple[list[str], int]:
    """Write new events into the lake, from files or from the Kafka topic that the command line asks for.

    Args:
        job: The job, with its command line and settings.
        lake: The lake to write.
        sources: Folders or files to read. A Kafka topic needs none.
        trigger: The value of the option `--trigger`, which tells when a micro-batch starts.

    Returns:
        Lines for the job's summary, which count the records by what became of them. And the exit code, which is 1 if
        a file needs the user's attention or too many records were rejected. The lines
        also name the lake's events that are set aside.

    Raises:
        JobRunningError: Another process is ingesting files into this lake, or is reading the same topic.
    """
    settings, kafka, accept = job.settings, job.settings.kafka, getattr(job.arguments, "accept_source", False)
    if job.reads_kafka:
        with lake.locks.job(stream_name(kafka.topic)):
            account = ingest_topic(
                lake,
                kafka,
                settings.ingest,
                settings.source,
                accept_source=accept,
                from_start=job.arguments.from_start,
                trigger=trigger,
            )
    else:
        with lake.locks.job("ingest"):
            account = ingest(lake, sources, settings.ingest, settings.source, accept_source=accept, trigger=trigger)
    lines = account_lines(account, f"topic {kafka.topic}" if job.reads_kafka else "")
    too_many = account.rejected > settings.ingest.max_rejected_share * account.lines
    if too_many:
        lines += rejection_lines(account, main_rejections(lake, account))
    with lake.locks.reader():
        lines += set_aside_lines(lake.newest(lake[EVENTS].version()).set_aside)
    return lines, int(too_many or account.needs_attention)


def run_chain(
    job: Job,
    lake: Lake,
    sources: list[str],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    wait: bool = False,
) -> int:
    """Run `ingest`, `trends`, `similarity` and `recommend` once each, and print the summary.

    If another process runs `ingest` or `similarity` on this lake, leave that work to the other process.

    Args:
        job: The job that runs the four steps.
        lake: The lake to read and write.
        sources: Folders or files with events.
        start: Recompute older trends too, from this time on.
        end: Recompute older trends too, up to this time.
        wait: Whether to wait while another process computes trends or recommendations.

    Returns:
        The exit code: 1 if a file needs the user's attention or too many records were rejected, else 0.

    Raises:
        JobRunningError: Another process computes trends or recommendations, and `wait` is false.
    """
    before = lake.versions(*lake.present())
    lines: list[str] = []
    code = 0
    logger.info(f"Spark {job.spark.version} on {job.spark.sparkContext.master}, lake {lake.path}")
    source = f"messages in {job.settings.kafka.topic}" if job.reads_kafka else f"files in {', '.join(sources)}"
    logger.info(f"ingest: looking for new {source}")
    try:
        lines, code = ingest_from_arguments(job, lake, sources)
    except JobRunningError as running:
        lines.append(f"ingest is left to the live job: {running}")
    fit_partitions(job.spark, lake[EVENTS].size())
    with lake.locks.job("trends", wait=wait):
        trends = update_trends(lake, job.settings.trends, start=start, end=end)
        lines.append(trend_line(trends))
    try:
        with lake.locks.job("similarity"):
            similarity = update_similarity(lake, job.settings.similarity)
            lines.append(similarity_line(similarity))
    except JobRunningError as running:
        lines.append(f"similarity is left to the live job: {running}")
    with lake.locks.job("recommend", wait=wait):
        run = update_recommendations(lake, job.settings.recommendations)
        lines.append(recommendation_line(run))
    job.summary(lines, read=run.versions_read, written=lake.written_since(before))
    return code
