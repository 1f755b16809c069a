"""The summary lines that the command `run` and its single jobs print."""

from __future__ import annotations

from lambda_spark.batch.refresh import TrendRun
from lambda_spark.ingestion.ingest import Rejection, account_text
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
    lines = [f"ingest: {what or f'{account.parts} new files'}, {account_text(account, 'records read')}"]
    if account.nulled:
        query = (
            "select field, value, count(*) from events lateral view explode(nulled_fields) as field, value group by all"
        )
        lines.append(f"  {account.nulled:,} events have a malformed optional field, which is null now")
        lines.append(f'  which: ./spark-submit.sh sql "{query}"')
    if account.rejected:
        lines.append('  why: ./spark-submit.sh sql "select reasons, count(*) from rejected_events group by reasons"')
    by_reason: dict[str, list[str]] = {}
    for file in account.unreadable:
        by_reason.setdefault(file.reason, []).append(file.path)
    for reason, paths in by_reason.items():
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        lines.append(
            f"  not read: {paths[0]}{others}: {reason}. A file is tried again under another source description"
        )
    lines += [
        f"  changed after it was first seen, or was empty then, and not read again: {file}; "
        "give it a new name, or add --set ingest.reread=changed"
        for file in account.rewritten
    ]
    return lines


def rejection_lines(account: Account, reasons: list[Rejection]) -> list[str]:
    """Say that too many records were rejected, for which reasons, and what to type.

    Args:
        account: The counts of the run.
        reasons: The most frequent reasons.
    """
    share = 100 * account.rejected / account.lines
    lines = [f"  {share:.0f} % of the records were rejected, which is more than ingest.max_rejected_share:"]
    for rejection in reasons:
        keys = f" (a record has {', '.join(rejection.keys)})" if rejection.keys else ""
        lines.append(f"    {rejection.records:,} records: {rejection.reason}{keys}")
    lines.append("  `./spark-submit.sh inspect FILE` looks at a file and proposes a source description")
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
