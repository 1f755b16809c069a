"""Writes the table `job_runs`, which has a row for each run of a job and for each micro-batch of a stream.

The rows of micro-batches come from Spark's progress events.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from lambda_spark.spark import literal_rows
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, JOB_RUNS

_WRITE_EVERY = 60.0
"""Seconds between two appends to `job_runs` by a job that keeps running.

Appends are rare, because one append takes about as long as a micro-batch.
"""
_EVENTS_WITHIN_MS = 10_000
"""Milliseconds to wait at the end of a run for Spark's last progress events."""


class RunLog(StreamingQueryListener):
    """The run and the micro-batches of one process, appended to `job_runs` every minute and at the end.

    No job depends on these rows, because some may be missing. A process that is killed loses the rows that it has not
    appended yet.
    """

    def __init__(self, lake: Lake, job: str) -> None:
        self._lake = lake
        self._job = job
        self._run_id = uuid.uuid4().hex
        self._started_at = datetime.now(UTC)
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        lake.spark.streams.addListener(self)
        threading.Thread(target=self._append_regularly, daemon=True).start()

    def finish(self, outcome: str, detail: str) -> None:
        """Add the row of the run itself, then append all rows that are not in the table yet.

        Args:
            outcome: `done` or `failed`.
            detail: The lines of the summary, or the error.
        """
        # Wait for Spark's listener thread, because it may still have to deliver progress events of this run.
        self._lake.spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(_EVENTS_WITHIN_MS)
        self._lake.spark.streams.removeListener(self)
        self._ended.set()
        seconds = (datetime.now(UTC) - self._started_at).total_seconds()
        run = {"job": self._job, "started_at": self._started_at, "seconds": seconds}
        self._add({**run, "outcome": outcome, "detail": detail})
        self.append()

    def append(self) -> None:
        """Append the collected rows to `job_runs`. If the append fails, the next call appends these rows."""
        with self._lock:
            # Do not create `job_runs` while the lake has no table `events`. Otherwise a first run that fails at once
            # would leave a folder with only `job_runs`.
            if not self._waiting or not self._lake[EVENTS].exists():
                return
            self._lake.create(JOB_RUNS)
            schema = ", ".join(f"{column.name}: {column.type}" for column in JOB_RUNS.columns)
            table = literal_rows(self._lake.spark, self._waiting, schema)
            self._lake[JOB_RUNS].append(table, note={"job": self._job})
            self._waiting = []

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Ignore the start of a query. Spark prescribes the method's name."""

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """Ignore an idle query. Spark prescribes the method's name."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """Ignore the end of a query, because the run's own row records it. Spark prescribes the method's name."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Add the row of a micro-batch. Spark prescribes the method's name."""
        progress = event.progress
        [source] = progress.sources
        self._add(
            {
                "job": progress.name,
                "batch_id": progress.batchId,
                "started_at": progress.timestamp,
                "seconds": progress.batchDuration / 1000,
                "input_rows": progress.numInputRows,
                "messages_behind": messages_behind(source.endOffset, source.latestOffset),
                "outcome": "done",
                "detail": json.dumps(dict(progress.durationMs)),
            }
        )

    def _add(self, row: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting.append({"run_id": self._run_id, **row})

    def _append_regularly(self) -> None:
        while not self._ended.wait(_WRITE_EVERY):
            # Ignore a failure, because a stream should survive a disk that is full for a while. The next append then
            # writes these rows too.
            with suppress(Exception):
                self.append()


def messages_behind(end: str | None, latest: str | None) -> int | None:
    """Count the messages of a Kafka topic that a stream has not read yet.

    Args:
        end: Spark's JSON with the offset after the last message read, for each partition.
        latest: Spark's JSON with the offset after the last message that Kafka has, for each partition.

    Returns:
        The number of messages, or None if the stream does not read Kafka.
    """
    try:
        read, available = json.loads(end or ""), json.loads(latest or "")
        return sum(
            int(offset) - int(read[topic][partition])
            for topic, partitions in available.items()
            for partition, offset in partitions.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
