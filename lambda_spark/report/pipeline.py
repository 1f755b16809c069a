"""What `run` and its steps did, in lines for the terminal."""

from __future__ import annotations

from lambda_spark.batch.refresh import TrendRun
from lambda_spark.ingestion.micro_batch import Account
from lambda_spark.serving.refresh import RecommendationRun
from lambda_spark.speed.update import SimilarityRun


def account_lines(account: Account, what: str = "") -> list[str]:
    """The account of the lines of files (or of something else), and the files that need somebody's attention."""
    lines = [
        f"ingest: {what or f'{account.parts} new files'}, {account.lines:,} lines read = {account.events:,} events"
        f" + {account.repeats:,} repeats + {account.rejected:,} rejected"
    ]
    if account.rejected:
        lines.append('  why: ./spark-submit.sh sql "select reasons, count(*) from rejected_events group by reasons"')
    lines += [
        f"  not readable, and not tried again: {file}; mend it and give it a new name" for file in account.unreadable
    ]
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
    if run.written is None:
        return "recommend: up to date"
    whose = "all active users" if run.users is None else f"{run.users:,} users, for whom something had changed,"
    return f"recommend: lists of {whose} written (v{run.written})"
