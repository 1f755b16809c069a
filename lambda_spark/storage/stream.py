"""Runs a Spark streaming query until the query has read all rows of its source, or until it is stopped."""

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
    """Run a Spark streaming query and process its micro-batches one by one.

    Args:
        rows: The streaming DataFrame that the query reads.
        checkpoint: The stream's checkpoint.
        process: Function that gets each micro-batch and the micro-batch's number.
        trigger: With `available-now`, the query ends when it has read all rows of the source. With an interval like
            `10 seconds`, the query runs until the process ends.
        idle: Function that is called about once a second while the query runs.

    Raises:
        Exception: The error that `process` raised. Spark's own version of this error is dropped, because it is a long
            text.
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
