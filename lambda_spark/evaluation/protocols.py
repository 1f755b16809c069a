"""Protocols split events by time into training data, queries, revealed interactions and targets.

The functions here get tables as arguments. They neither read nor write the lake.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.serving.profiles import interest_level
from lambda_spark.serving.reasons import INTERACTION_WORDS

SESSION = ["user_id", "session"]


@dataclass(frozen=True, slots=True)
class Task:
    """Queries and targets of a protocol. A method may use `train` and `known` only."""

    split: datetime
    train: DataFrame
    """Interactions before the split, with the columns of the table `events`."""
    queries: DataFrame
    """One row per query: query_id, known_items (number of distinct revealed items)."""
    known: DataFrame
    """The revealed interactions (none for a cold user): query_id, user_id, product_id, event_type, event_time."""
    targets: DataFrame
    """query_id, product_id, event_type (strongest held-out interaction), is_repeat (whether also revealed)."""


def split_time(events: DataFrame, share: float) -> datetime | None:
    """Find the time before which the given share of all sessions begins; None without sessions."""
    starts = in_sessions(events).groupBy(*SESSION).agg(F.unix_micros(F.min("event_time")).alias("start"))
    split: datetime | None = starts.agg(
        F.timestamp_micros(F.percentile("start", F.lit(share)).cast("bigint"))
    ).collect()[0][0]
    return split


def make_task(protocol: str, events: DataFrame, split: datetime, *, max_queries: int) -> Task:
    """Make the task of a protocol.

    The protocols differ in what is a query, what it reveals, and what is held out as its targets:

    - `next-item`: A query is a place in a session that begins at or after the split. It reveals the interactions before
      this place. The next interaction is the target.
    - `second-half`: A query is a session that begins at or after the split. Its distinct items are ordered by their
      first interaction and halved. The interactions before the first one with an item of the second half are revealed.
      The other interactions are held out.
    - `future`: A query is a user with interactions after the split, with or without earlier ones. All interactions
      before the split are revealed, and those after the split are held out.

    A session may begin before the split and end after it. The interactions of such a session after the split are used
    only in `future`, where they are held out.

    Args:
        protocol: `next-item`, `second-half` or `future`.
        events: The columns of the table `events`.
        split: The moment that divides the events.
        max_queries: Largest number of queries. If there are more, those with the smallest hashes are taken.

    Returns:
        The task.

    Source:
        `next-item`: Hidasi et al., ICLR 2016.
    """
    interactions = in_sessions(events)
    train = interactions.where(F.col("event_time") < F.lit(split))
    if protocol == "future":
        known = train.select("user_id", "product_id", "event_type", "event_time")
        held_out = interactions.where(F.col("event_time") >= F.lit(split)).withColumn("query_id", F.col("user_id"))
        chosen = _sample(held_out.select("query_id").distinct(), max_queries)
        known = known.join(chosen.select(F.col("query_id").alias("user_id")), on="user_id", how="left_semi")
        known = known.withColumn("query_id", F.col("user_id"))
        held_out = held_out.join(chosen, on="query_id", how="left_semi")
    else:
        steps = _steps(interactions, split)
        known, held_out, chosen = (_next_item if protocol == "next-item" else _second_half)(steps, max_queries)
    return _task(split, train.drop("session"), known, held_out, chosen)


def in_sessions(events: DataFrame) -> DataFrame:
    """Keep only the interactions (views, carts, purchases) and add the session of each.

    Args:
        events: The columns of the table `events`.

    Returns:
        The same columns and the column `session`: the session's id, or the date where the id is null or empty.
    """
    session = F.coalesce(F.nullif("user_session", F.lit("")), F.col("event_date").cast("string"))
    known = F.col("event_type").isin(*INTERACTION_WORDS) & F.col("user_id").isNotNull()
    return events.where(known).withColumn("session", session)


def _steps(interactions: DataFrame, split: datetime) -> DataFrame:
    """Number the interactions of each session that begins at or after the split, and add a hash of the session.

    Returns:
        user_id, session, session_hash, product_id, event_type, event_time, step (from 1).
    """
    by_session = Window.partitionBy(*SESSION)
    in_order = by_session.orderBy("event_time", "product_id", interest_level(F.col("event_type")))
    return (
        interactions.withColumn("start", F.min("event_time").over(by_session))
        .where(F.col("start") >= F.lit(split))
        .select(
            *SESSION,
            F.xxhash64(*SESSION).alias("session_hash"),
            "product_id",
            "event_type",
            "event_time",
            F.row_number().over(in_order).alias("step"),
        )
    )


def _next_item(steps: DataFrame, max_queries: int) -> tuple[DataFrame, DataFrame, DataFrame]:
    """Return the revealed interactions, the held-out ones and the query ids of `next-item`."""
    held_out = steps.where(F.col("step") > 1).withColumn("query_id", F.xxhash64("session_hash", "step"))
    chosen = _sample(held_out.select("query_id"), max_queries)
    held_out = held_out.join(chosen, on="query_id", how="left_semi")
    ends = held_out.select("query_id", *SESSION, F.col("step").alias("end"))
    known = ends.join(steps, on=SESSION, how="inner").where(F.col("step") < F.col("end"))
    return known, held_out, chosen


def _second_half(steps: DataFrame, max_queries: int) -> tuple[DataFrame, DataFrame, DataFrame]:
    """Return the revealed interactions, the held-out ones and the query ids of `second-half`."""
    first = steps.groupBy(*SESSION, "session_hash", "product_id").agg(F.min("step").alias("first_step"))
    by_step = Window.partitionBy(*SESSION).orderBy("first_step")
    numbered = first.select(
        *SESSION,
        F.col("session_hash").alias("query_id"),
        "first_step",
        F.row_number().over(by_step).alias("nth"),
        F.count("*").over(Window.partitionBy(*SESSION)).alias("items"),
    )
    # With an odd number of items, the middle one belongs to the second half.
    cuts = numbered.where((F.col("nth") == F.floor(F.col("items") / 2) + 1) & (F.col("items") > 1))
    cuts = cuts.select("query_id", *SESSION, F.col("first_step").alias("cut"))
    chosen = _sample(cuts.select("query_id"), max_queries)
    halves = cuts.join(chosen, on="query_id", how="left_semi").join(steps, on=SESSION, how="inner")
    return halves.where(F.col("step") < F.col("cut")), halves.where(F.col("step") >= F.col("cut")), chosen


def _sample(queries: DataFrame, max_queries: int) -> DataFrame:
    return queries.orderBy(F.xxhash64("query_id"), "query_id").limit(max_queries)


def _task(split: datetime, train: DataFrame, known: DataFrame, held_out: DataFrame, chosen: DataFrame) -> Task:
    known = known.select("query_id", "user_id", "product_id", "event_type", "event_time")
    revealed = known.select("query_id", "product_id").distinct()
    targets = (
        held_out.groupBy("query_id", "product_id")
        .agg(F.max_by("event_type", interest_level(F.col("event_type"))).alias("event_type"))
        .join(revealed.withColumn("is_repeat", F.lit(True)), on=["query_id", "product_id"], how="left")
        .withColumn("is_repeat", F.coalesce("is_repeat", F.lit(False)))
    )
    counts = revealed.groupBy("query_id").agg(F.count("*").alias("known_items"))
    queries = chosen.join(counts, on="query_id", how="left").select(
        "query_id", F.coalesce("known_items", F.lit(0)).alias("known_items")
    )
    return Task(split, train, queries, known, targets)
