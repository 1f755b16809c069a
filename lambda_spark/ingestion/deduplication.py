"""Pure functions on DataFrames that drop repeated events."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def twice_seen(valid: DataFrame, known: DataFrame) -> DataFrame:
    """Return the 64-bit hashes of the event ids that occur more than once.

    An event whose hash is not in the result is certainly new. Spark shuffles only the hashes, because hashes are
    smaller than event ids.

    Args:
        valid: Valid events of the micro-batch, with `event_id`.
        known: Stored events that the valid events may repeat, with `event_id`.

    Returns:
        One row per hash that occurs at least twice in both inputs together. The hash is in the column `key`.
    """
    return (
        valid.select(F.xxhash64("event_id").alias("key"))
        .union(known.select(F.xxhash64("event_id").alias("key")))
        .groupBy("key")
        .count()
        .where(F.col("count") > 1)
        .select("key")
    )


def distinct_new(valid: DataFrame, known: DataFrame, twice: DataFrame) -> DataFrame:
    """Select the valid events that are not stored yet, without repeats.

    Most events pass through without a shuffle. Events whose hash is in `twice` are shuffled and compared by their whole
    ids. The new ones among the compared events are then repartitioned by date, so that Spark writes few files.

    Args:
        valid: Valid events of the micro-batch, with `event_id` and `event_date`.
        known: Stored events that the valid events may repeat, with `event_id`.
        twice: The result of `twice_seen`. Spark broadcasts this DataFrame, so it must be small.

    Returns:
        The new events, with the columns of `valid`.
    """
    keyed, known = valid.withColumn("key", F.xxhash64("event_id")), known.withColumn("key", F.xxhash64("event_id"))
    twice = F.broadcast(twice)
    in_doubt = keyed.join(twice, on="key", how="left_semi").dropDuplicates(["event_id"])
    known_in_doubt = known.join(twice, on="key", how="left_semi").select("event_id")
    kept = in_doubt.join(known_in_doubt, on="event_id", how="left_anti").repartition("event_date")
    return keyed.join(twice, on="key", how="left_anti").unionByName(kept).drop("key")
