"""The summary lines that the command `run` and its single jobs print."""

from __future__ import annotations

from lambda_spark.batch.refresh import TrendRun
from lambda_spark.ingestion.micro_batch import Account
from lambda_spark.newest import SetAside
from lambda_spark.serving.refresh import RecommendationRun
from lambda_spark.speed.update import SimilarityRun


def account_lines(account: Account, what: str = "") -> list[str]:
    """Describe how many of the lines read became events, repeats or rejects, and name files that need attention.

    Args:
        account: The counts of lines, and the files that need attention.
        what: Name of the source, printed first. If empty, the number of new files is printed instead.
    """
    lines = [
        f"ingest: {what or f'{account.parts} new files'}, {account.lines:,} lines read = {account.events:,} events"
        f" + {account.repeats:,} repeats + {account.rejected:,} rejected"
    ]
    if account.rejected:
        lines.append('  why: ./spark-submit.sh sql "select reasons, count(*) from rejected_events group by reasons"')
    lines += [
        f"  unreadable, and not tried again: {file}; repair it and give it a new name" for file in account.unreadable
    ]
    lines += [
        f"  changed after it was first seen, or was empty then, and not read again: {file}; give it a new name"
        for file in account.rewritten
    ]
    return lines


def set_aside_lines(aside: SetAside | None) -> list[str]:
    """Say which events are set aside, why, and how to see them. Without such events there is no line."""
    if aside is None:
        return []
    is_one = aside.events == 1
    dates = f"{aside.first}" if aside.first == aside.last else f"{aside.first} to {aside.last}"
    return [
        f"{aside.events:,} {'event' if is_one else 'events'} set aside: {'it lies' if is_one else 'they lie'} "
        f"{aside.days_after:,} days{'' if aside.first == aside.last else ' or more'} after all others ({dates}) and "
        f"{'counts' if is_one else 'count'} nowhere until more events of such dates arrive",
        f"  which: ./spark-submit.sh sql \"select * from events where event_date >= '{aside.first}'\"",
    ]


def trend_line(run: TrendRun) -> str:
    """Describe how many time buckets of the trend tables were recomputed, and why."""
    buckets = "all buckets" if run.buckets is None else f"{run.buckets} buckets"
    return f"trends: {buckets} recomputed ({run.reason})"


def similarity_line(run: SimilarityRun) -> str:
    """Describe the micro-batches of the speed layer, and why `similar_items` was renewed."""
    renewed = f"similar_items renewed ({run.refreshed})" if run.refreshed else "similar_items up to date"
    return f"similarity: {run.micro_batches} micro-batches, {renewed}"


def recommendation_line(run: RecommendationRun) -> str:
    """Describe whether the recommendations were written."""
    if run.written is None:
        return "recommend: up to date"
    return f"recommend: lists of all active users written (v{run.written})"
