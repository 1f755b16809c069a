"""Runs a streaming query until it has read all rows of its source, or until it is stopped."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from lambda_spark.settings import AVAILABLE_NOW
from lambda_spark.spark import same_partitions
from lambda_spark.storage.checkpoints import Checkpoint


def run_stream(
    rows: DataFrame,
    checkpoint: Checkpoint,
    process: Callable[[DataFrame, int], None],
    *,
    trigger: str,
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Run a streaming query.

    Args:
        rows: The streaming DataFrame that the query reads.
        checkpoint: The stream's checkpoint.
        process: Called with each micro-batch and its number.
        trigger: `available-now` ends the query when it has read all that the source holds. With an interval like
            `10 seconds`, the query runs until the process ends.
        idle: Called about once a second while the query runs.

    Raises:
        Exception: The error that `process` raised, instead of the long text into which Spark turns that error.
    """
    failures: list[Exception] = []

    def process_guarded(batch: DataFrame, batch_id: int) -> None:
        try:
            same_partitions(rows.sparkSession, batch)
            process(batch, batch_id)
        except Exception as error:
            failures.append(error)
            raise

    writer = rows.writeStream.foreachBatch(process_guarded).option("checkpointLocation", checkpoint.location)
    writer = writer.queryName(checkpoint.job)
    if trigger == AVAILABLE_NOW:
        query = writer.trigger(availableNow=True).start()
    else:
        query = writer.trigger(processingTime=trigger).start()
    try:
        _await(query, idle)
    except Exception:
        if failures:
            raise failures[0] from None
        raise
    finally:
        query.stop()


def _await(query: StreamingQuery, idle: Callable[[], None]) -> None:
    while not query.awaitTermination(1):
        idle()
