"""The status of a lake as text for a person, a program or Prometheus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from lambda_spark.operations.status import Status
from lambda_spark.report.pipeline import set_aside_lines
from lambda_spark.text import strip_control_characters, table

_SIZES = ("B", "kB", "MB", "GB", "TB")


def status_tables(status: Status) -> str:
    """Format the status as tables for the terminal: tables, steps, streams and jobs. Times are UTC."""
    parts = [
        f"{strip_control_characters(status.lake)} at {_time(status.at)} UTC: {status.lines:,} records read, "
        f"{100 * status.rejected_share:.2f} % of them rejected",
        *(["\n".join(set_aside_lines(status.set_aside))] if status.set_aside else []),
        table(
            [
                {
                    "table": entry.table,
                    "rows": f"{entry.rows:,}",
                    "newest": _time(entry.newest),
                    "size": _size(entry.bytes),
                    "files": entry.files,
                    "version": entry.version,
                    "written": _time(entry.written_at),
                }
                for entry in status.tables
            ]
        ),
    ]
    groups = (
        [
            {"step": step.step, "processed": f"events v{step.events_version}", "lag": _duration(step.lag_seconds)}
            for step in status.steps
        ],
        [
            {
                "stream": stream.stream,
                "last micro-batch": _time(stream.last_batch_at),
                "seconds": f"{stream.seconds:.1f}",
                "worst": f"{stream.worst_seconds:.1f}",
                "messages behind": "-" if stream.messages_behind is None else f"{stream.messages_behind:,}",
            }
            for stream in status.streams
        ],
        [
            {
                "job": job.job,
                "last run": _time(job.started_at),
                "seconds": f"{job.seconds:.1f}",
                "outcome": job.outcome,
            }
            for job in status.jobs
        ],
    )
    return "\n\n".join([*parts, *(table(rows) for rows in groups if rows)])


def status_json(status: Status) -> str:
    """Format the status as one JSON object. Times are ISO 8601 in UTC."""
    whole = asdict(status) | {"rejected_share": status.rejected_share}
    return json.dumps(whole, default=lambda value: (_utc(value) if isinstance(value, datetime) else value).isoformat())


def prometheus_text(status: Status) -> str:
    """Format the status in Prometheus's text format, as gauges whose names begin with `lambda_spark_`.

    A gauge without values is left out. Times are epoch seconds.
    """
    # Import the Prometheus client here, because only a command with --prometheus needs it.
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, description: str, label: str, values: Iterable[tuple[str, float | None]]) -> None:
        known = [(label_value, value) for label_value, value in values if value is not None]
        if not known:
            return
        metric = Gauge(f"lambda_spark_{name}", description, [label] if label else [], registry=registry)
        for label_value, value in known:
            (metric.labels(label_value) if label else metric).set(value)

    def seconds(value: datetime | None) -> float | None:
        return None if value is None else _utc(value).timestamp()

    tables, steps, streams, jobs = status.tables, status.steps, status.streams, status.jobs
    gauge("status_timestamp_seconds", "When the status was read.", "", [("", seconds(status.at))])
    gauge("lines_read", "Lines and messages ever read.", "", [("", status.lines)])
    gauge("lines_rejected", "Lines and messages that became a rejected event.", "", [("", status.rejected)])
    set_aside = status.set_aside.events if status.set_aside else 0
    gauge("events_set_aside", "Events that are few and long after all others.", "", [("", set_aside)])
    gauge("table_rows", "Rows of a table.", "table", [(entry.table, entry.rows) for entry in tables])
    gauge("table_bytes", "Size of a table's newest version.", "table", [(entry.table, entry.bytes) for entry in tables])
    gauge(
        "table_files", "Files of a table's newest version.", "table", [(entry.table, entry.files) for entry in tables]
    )
    gauge(
        "table_newest_timestamp_seconds",
        "Event time of the newest data in a table.",
        "table",
        [(entry.table, seconds(entry.newest)) for entry in tables],
    )
    gauge(
        "table_written_timestamp_seconds",
        "When a table was last written.",
        "table",
        [(entry.table, seconds(entry.written_at)) for entry in tables],
    )
    gauge(
        "step_lag_seconds",
        "Seconds since the oldest events that a step has not processed arrived; 0 if there are none.",
        "step",
        [(step.step, step.lag_seconds) for step in steps],
    )
    gauge(
        "stream_batch_seconds",
        "Median seconds of a stream's latest micro-batches.",
        "stream",
        [(stream.stream, stream.seconds) for stream in streams],
    )
    gauge(
        "stream_last_batch_timestamp_seconds",
        "Start of a stream's last micro-batch.",
        "stream",
        [(stream.stream, seconds(stream.last_batch_at)) for stream in streams],
    )
    gauge(
        "stream_messages_behind",
        "Messages that Kafka had beyond a stream's last micro-batch.",
        "stream",
        [(stream.stream, stream.messages_behind) for stream in streams],
    )
    gauge(
        "job_last_run_timestamp_seconds",
        "Start of a job's last run.",
        "job",
        [(job.job, seconds(job.started_at)) for job in jobs],
    )
    gauge("job_seconds", "Seconds of a job's last run.", "job", [(job.job, job.seconds) for job in jobs])
    gauge(
        "job_succeeded",
        "Whether a job's last run was done (1) or failed (0).",
        "job",
        [(job.job, job.outcome == "done") for job in jobs],
    )
    return generate_latest(registry).decode()


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically, so that a reader finds either the whole old or the whole new content.

    Args:
        file: The file to write or replace.
        text: The file's new content.

    Raises:
        OSError: The file cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _utc(moment: datetime) -> datetime:
    """Return a time with its time zone. A time from Spark has no zone and is UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{_utc(moment):%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float) -> str:
    """Format a duration like `3 h 5 min`, or as `none` for 0 seconds."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{seconds:.0f} s" if seconds else "none"


def _size(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(_SIZES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_SIZES[unit]}" if unit else f"{size:.0f} B"
