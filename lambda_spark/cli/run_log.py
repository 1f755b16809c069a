"""What jobs did, for `job_runs`: their runs, and their streams' micro-batches by Spark's own progress events."""

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
"""Seconds between two appends of a job that stays up: each costs about a micro-batch's time."""
_HEARD_WITHIN_MS = 10_000


class RunLog(StreamingQueryListener):
    """Gathers what one process does on a lake and appends it to `job_runs`, at its end and every minute until then.

    It is a log, not an account: what a killed process had not appended yet is missing, and nothing depends on it.
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
        """Add the run itself and append what has gathered."""
        # Progress is told by another thread of Spark's; what it has still to say belongs to this run.
        self._lake.spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(_HEARD_WITHIN_MS)
        self._lake.spark.streams.removeListener(self)
        self._ended.set()
        seconds = (datetime.now(UTC) - self._started_at).total_seconds()
        run = {"job": self._job, "started_at": self._started_at, "seconds": seconds}
        self._note({**run, "outcome": outcome, "detail": detail})
        self.append()

    def append(self) -> None:
        with self._lock:
            # A first run that fails at once leaves no table behind: a lake begins with its events.
            if not self._waiting or not self._lake.exists(EVENTS):
                return
            self._lake.create(JOB_RUNS)
            schema = ", ".join(f"{column.name}: {column.type}" for column in JOB_RUNS.columns)
            table = literal_rows(self._lake.spark, self._waiting, schema)
            self._lake.append(JOB_RUNS, table, note={"job": self._job})
            self._waiting = []

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Spark's name; nothing to note yet."""

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """Spark's name; nothing has happened."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """Spark's name; the run's own row says how it ended."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Spark's name; after every micro-batch."""
        progress = event.progress
        [source] = progress.sources
        self._note(
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

    def _note(self, row: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting.append({"run_id": self._run_id, **row})

    def _append_regularly(self) -> None:
        while not self._ended.wait(_WRITE_EVERY):
            # What cannot be appended now waits for the next time: a stream outlives a disk that is full for a while.
            with suppress(Exception):
                self.append()


def messages_behind(end: str | None, latest: str | None) -> int | None:
    """How many messages of a topic lie after what was read; None where the offsets are not Kafka's."""
    try:
        read, there = json.loads(end or ""), json.loads(latest or "")
        return sum(
            int(offset) - int(read[topic][partition])
            for topic, partitions in there.items()
            for partition, offset in partitions.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
