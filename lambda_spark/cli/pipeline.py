"""The whole chain in one session: ingest, then both layers, then the lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.cli.job import Job
from lambda_spark.errors import JobRunningError
from lambda_spark.ingestion.ingest import ingest, ingest_topic
from lambda_spark.ingestion.kafka_source import stream_name
from lambda_spark.report.pipeline import account_lines, recommendation_line, similarity_line, trend_line
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.settings import AVAILABLE_NOW
from lambda_spark.spark import fit_partitions
from lambda_spark.speed.update import update as update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS


def ingest_as_told(
    job: Job, lake: Lake, sources: list[str], *, trigger: str = AVAILABLE_NOW, progress: Callable[[str], None]
) -> list[str]:
    """Read what is new in the files, or in the topic where the command line says so; returns the account's lines.

    Raises JobRunningError where another process reads the same.
    """
    ingestion, kafka = job.settings.ingest, job.settings.kafka
    if not job.reads_kafka:
        with lake.locks.job("ingest"):
            return account_lines(ingest(lake, sources, ingestion, trigger=trigger, progress=progress))
    with lake.locks.job(stream_name(kafka.topic)):
        from_start = job.arguments.from_start
        account = ingest_topic(lake, kafka, ingestion, from_start=from_start, trigger=trigger, progress=progress)
    return account_lines(account, f"topic {kafka.topic}")


def run_chain(
    job: Job,
    lake: Lake,
    sources: list[str],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    waiting: Callable[[str], None] | None = None,
) -> None:
    """Each step once, trends also for a span of time where one is given; ends with the summary.

    Ingestion or similarity that another process is at is left to it; for another step's, `waiting` says to wait, else
    JobRunningError is raised.
    """
    before = lake.versions(*lake.present())
    lines = []
    job.say(f"Spark {job.spark.version} on {job.spark.sparkContext.master}, lake {lake.path}")
    looked_for = f"messages in {job.settings.kafka.topic}" if job.reads_kafka else f"files in {', '.join(sources)}"
    job.say(f"ingest: looking for new {looked_for}")
    try:
        lines += ingest_as_told(job, lake, sources, progress=job.step("ingest"))
    except JobRunningError as running:
        lines.append(f"ingest left to the live job: {running}")
    fit_partitions(job.spark, lake.size(EVENTS))
    with lake.locks.job("trends", waiting=waiting):
        trends = refresh_trends(lake, job.settings.trends, start=start, end=end, progress=job.step("trends"))
        lines.append(trend_line(trends))
    try:
        with lake.locks.job("similarity"):
            similarity = update_similarity(lake, job.settings.similarity, progress=job.step("similarity"))
            lines.append(similarity_line(similarity))
    except JobRunningError as running:
        lines.append(f"similarity left to the live job: {running}")
    with lake.locks.job("recommend", waiting=waiting):
        run = refresh_recommendations(lake, job.settings.recommendations, progress=job.step("recommend"))
        lines.append(recommendation_line(run))
    job.summary(lines, read=run.versions_read, written=lake.written_since(before))
