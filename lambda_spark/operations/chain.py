"""The whole chain in one session: ingest, then both layers, then the lists."""

from __future__ import annotations

from lambda_spark.batch.refresh import TrendRun
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.errors import JobRunningError
from lambda_spark.events.ingest import Account, ingest
from lambda_spark.job import Job
from lambda_spark.lake import Lake
from lambda_spark.serving.refresh import RecommendationRun
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.speed.stream import SimilarityRun
from lambda_spark.speed.stream import update as update_similarity


def run_chain(job: Job, lake: Lake, sources: list[str]) -> None:
    """Each step once; a step that a live stream is doing on this lake is left to it. Ends with the summary."""
    before = _table_versions(lake)
    lines = []
    job.say(f"Spark {job.spark.version} on {job.spark.sparkContext.master}, lake {lake.path}")
    job.say(f"ingest: looking for new files in {', '.join(sources)}")
    try:
        with lake.locks.job("ingest"):
            lines += account_lines(ingest(lake, sources, job.settings.ingest, progress=job.step("ingest")))
    except JobRunningError as running:
        lines.append(f"ingest left to the live job: {running}")
    with lake.locks.job("trends"):
        lines.append(trend_line(refresh_trends(lake, job.settings.trends, progress=job.step("trends"))))
    try:
        with lake.locks.job("similarity"):
            similarity = update_similarity(lake, job.settings.similarity, progress=job.step("similarity"))
            lines.append(similarity_line(similarity))
    except JobRunningError as running:
        lines.append(f"similarity left to the live job: {running}")
    with lake.locks.job("recommend"):
        run = refresh_recommendations(lake, job.settings.recommendations, progress=job.step("recommend"))
        lines.append(recommendation_line(run))
    after = _table_versions(lake)
    written = {name: version for name, version in after.items() if before.get(name) != version}
    job.summary(lines, read=run.versions_read, written=written)


def account_lines(account: Account) -> list[str]:
    """The account of the lines, and the files that need somebody's attention."""
    lines = [
        f"ingest: {account.files} new files, {account.lines:,} lines read = {account.events:,} events"
        f" + {account.repeats:,} repeats + {account.rejected:,} rejected"
    ]
    if account.rejected:
        lines.append('  why: ./spark-submit.sh sql "select reasons, count(*) from rejected_events group by reasons"')
    lines += [f"  not readable: {file}" for file in account.unreadable]
    lines += [
        f"  changed (or grew from empty) after it was first seen, not read again: {file}; give it a new name"
        for file in account.rewritten
    ]
    return lines


def trend_line(run: TrendRun) -> str:
    buckets = "all buckets" if run.buckets is None else f"{run.buckets} buckets"
    return f"trends: {buckets} recomputed ({run.reason})"


def similarity_line(run: SimilarityRun) -> str:
    renewed = f"similar_items renewed ({run.refreshed})" if run.refreshed else "similar_items up to date"
    return f"similarity: {run.micro_batches} micro-batches, {renewed}"


def recommendation_line(run: RecommendationRun) -> str:
    return (
        "recommend: up to date"
        if run.written is None
        else f"recommend: lists of all active users written (v{run.written})"
    )


def _table_versions(lake: Lake) -> dict[str, int]:
    return lake.versions(*lake.present())
