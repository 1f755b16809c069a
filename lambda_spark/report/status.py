"""The status of a lake for a person, for a program, and for Prometheus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lambda_spark.operations.status import Status
from lambda_spark.text import clean, table

_SIZES = ("B", "kB", "MB", "GB", "TB")


def status_tables(status: Status) -> str:
    """Tables, steps, streams and jobs, each as a table of text; times are UTC."""
    parts = [
        f"{clean(status.lake)} at {_time(status.at)} UTC: {status.lines:,} lines read, "
        f"{100 * status.rejected_share:.2f} % of them rejected",
        table(
            [
                {
                    "table": one.table,
                    "rows": f"{one.rows:,}",
                    "newest": _time(one.newest),
                    "size": _size(one.bytes),
                    "files": one.files,
                    "version": one.version,
                    "written": _time(one.written_at),
                }
                for one in status.tables
            ]
        ),
    ]
    groups = (
        [
            {"step": one.step, "took in": f"events v{one.events_version}", "lag": _duration(one.lag_seconds)}
            for one in status.steps
        ],
        [
            {
                "stream": one.stream,
                "last micro-batch": _time(one.last_batch_at),
                "seconds": f"{one.seconds:.1f}",
                "worst": f"{one.worst_seconds:.1f}",
                "messages behind": "-" if one.messages_behind is None else f"{one.messages_behind:,}",
            }
            for one in status.streams
        ],
        [
            {
                "job": one.job,
                "last run": _time(one.started_at),
                "seconds": f"{one.seconds:.1f}",
                "outcome": one.outcome,
            }
            for one in status.jobs
        ],
    )
    return "\n\n".join([*parts, *(table(rows) for rows in groups if rows)])


def status_json(status: Status) -> str:
    """One object; times as ISO 8601 in UTC."""
    whole = asdict(status) | {"rejected_share": status.rejected_share}
    return json.dumps(whole, default=lambda value: _utc(value).isoformat())


def prometheus_text(status: Status) -> str:
    """Gauges in Prometheus's text format."""
    lines: list[str] = []

    def gauge(name: str, meaning: str, label: str, values: Iterable[tuple[str, Any]]) -> None:
        name = f"lambda_spark_{name}"
        samples = [(of, value) for of, value in values if value is not None]
        if samples:
            lines.extend((f"# HELP {name} {meaning}", f"# TYPE {name} gauge"))
        lines.extend(
            f"{name}{{{label}={json.dumps(of)}}} {float(value)!r}" if label else f"{name} {float(value)!r}"
            for of, value in samples
        )

    def seconds(value: datetime | None) -> float | None:
        return None if value is None else _utc(value).timestamp()

    tables, steps, streams, jobs = status.tables, status.steps, status.streams, status.jobs
    gauge("status_timestamp_seconds", "When this was found out.", "", [("", seconds(status.at))])
    gauge("lines_read", "Lines and messages ever read.", "", [("", status.lines)])
    gauge("lines_rejected", "Those that became a rejected event.", "", [("", status.rejected)])
    gauge("table_rows", "Rows of a table.", "table", [(one.table, one.rows) for one in tables])
    gauge("table_bytes", "Size of a table's newest version.", "table", [(one.table, one.bytes) for one in tables])
    gauge("table_files", "Files of a table's newest version.", "table", [(one.table, one.files) for one in tables])
    gauge(
        "table_newest_timestamp_seconds",
        "Event time of what is newest in a table.",
        "table",
        [(one.table, seconds(one.newest)) for one in tables],
    )
    gauge(
        "table_written_timestamp_seconds",
        "When a table was last written.",
        "table",
        [(one.table, seconds(one.written_at)) for one in tables],
    )
    gauge(
        "step_lag_seconds",
        "How long the oldest events that a step has not taken in have been waiting.",
        "step",
        [(one.step, one.lag_seconds) for one in steps],
    )
    gauge(
        "stream_batch_seconds",
        "Median seconds of a stream's latest micro-batches.",
        "stream",
        [(one.stream, one.seconds) for one in streams],
    )
    gauge(
        "stream_last_batch_timestamp_seconds",
        "Start of a stream's last micro-batch.",
        "stream",
        [(one.stream, seconds(one.last_batch_at)) for one in streams],
    )
    gauge(
        "stream_messages_behind",
        "Messages that Kafka had beyond a stream's last micro-batch.",
        "stream",
        [(one.stream, one.messages_behind) for one in streams],
    )
    gauge(
        "job_last_run_timestamp_seconds",
        "Start of a job's last run.",
        "job",
        [(one.job, seconds(one.started_at)) for one in jobs],
    )
    gauge("job_seconds", "Seconds of a job's last run.", "job", [(one.job, one.seconds) for one in jobs])
    gauge(
        "job_succeeded",
        "Whether a job's last run was done (1) or failed (0).",
        "job",
        [(one.job, one.outcome == "done") for one in jobs],
    )
    return "\n".join(lines) + "\n"


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _utc(moment: datetime) -> datetime:
    """Spark's times come without a zone and are UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{_utc(moment):%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float) -> str:
    """Like `3 h 5 min`; `none` for no time."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{seconds:.0f} s" if seconds else "none"


def _size(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(_SIZES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_SIZES[unit]}" if unit else f"{size:.0f} B"
