"""Which events are new: each once, and none that is known. Pure: DataFrames in, a DataFrame out."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def twice_seen(valid: DataFrame, known: DataFrame) -> DataFrame:
    """The 64-bit hashes (`key`) of event ids that come more than once among the valid events and the known ones.

    An event whose hash is not among them is new for sure. Only numbers are exchanged.
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
    """The valid events that are not known, each once; `twice` is what `twice_seen` returns, and small.

    Most events are passed through where they are; those few alone are exchanged and compared by their whole ids, and
    then lie together by date, so that they make few files.
    """
    keyed, known = valid.withColumn("key", F.xxhash64("event_id")), known.withColumn("key", F.xxhash64("event_id"))
    twice = F.broadcast(twice)
    in_doubt = keyed.join(twice, on="key", how="left_semi").dropDuplicates(["event_id"])
    known_in_doubt = known.join(twice, on="key", how="left_semi").select("event_id")
    kept = in_doubt.join(known_in_doubt, on="event_id", how="left_anti").repartition("event_date")
    return keyed.join(twice, on="key", how="left_anti").unionByName(kept).drop("key")
