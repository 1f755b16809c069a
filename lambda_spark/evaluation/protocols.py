"""What is asked and what would have been right: events split by time into knowledge, queries and targets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.serving.profiles import DEEDS, strength

SESSION = ["user_id", "session"]


@dataclass(frozen=True, slots=True)
class Task:
    """A protocol's questions. Everything that a method may learn from is in `train` and `known`.

    `train`: the interactions before the split, with the columns of `events`. `queries`: query_id, known_items (distinct
    items revealed). `known`: query_id, user_id, product_id, event_type, event_time, what is revealed of each query;
    none for a cold user. `targets`: query_id, product_id, event_type (the strongest), is_repeat (it was revealed).
    """

    split: datetime
    train: DataFrame
    queries: DataFrame
    known: DataFrame
    targets: DataFrame


def split_time(events: DataFrame, share: float) -> datetime | None:
    """The moment before which that share of the sessions begins; None where there are none."""
    starts = in_sessions(events).groupBy(*SESSION).agg(F.unix_micros(F.min("event_time")).alias("start"))
    split: datetime | None = starts.agg(
        F.timestamp_micros(F.percentile("start", F.lit(share)).cast("bigint"))
    ).collect()[0][0]
    return split


def make_task(protocol: str, events: DataFrame, split: datetime, *, max_queries: int) -> Task:
    """The questions of a protocol, at most so many (of more, those with the smallest hash).

    Next item: each session that begins at or after the split is revealed interaction by interaction, and the next one
    is asked for (Hidasi et al., ICLR 2016). Second half: of the distinct items of such a session the first half, by
    their first interaction, is revealed, and what follows is asked for. Future: what each user who comes back, or comes
    first, after the split interacts with then, from all that the user did before. Interactions after the split of
    sessions that began before it are neither learnt from nor asked for, but in the future protocol.
    """
    interactions = in_sessions(events)
    train = interactions.where(F.col("event_time") < F.lit(split))
    if protocol == "future":
        known = train.select("user_id", "product_id", "event_type", "event_time")
        asked = interactions.where(F.col("event_time") >= F.lit(split)).withColumn("query_id", F.col("user_id"))
        chosen = _sample(asked.select("query_id").distinct(), max_queries)
        known = known.join(chosen.select(F.col("query_id").alias("user_id")), on="user_id", how="left_semi")
        known = known.withColumn("query_id", F.col("user_id"))
        asked = asked.join(chosen, on="query_id", how="left_semi")
    else:
        steps = _steps(interactions, split)
        known, asked, chosen = (_next_item if protocol == "next-item" else _second_half)(steps, max_queries)
    return _task(split, train.drop("session"), known, asked, chosen)


def in_sessions(events: DataFrame) -> DataFrame:
    """Interactions with their session; without a session id, a user's date is one."""
    session = F.coalesce(F.nullif("user_session", F.lit("")), F.col("event_date").cast("string"))
    return events.where(F.col("event_type").isin(*DEEDS)).withColumn("session", session)


def _steps(interactions: DataFrame, split: datetime) -> DataFrame:
    """The sessions that begin at or after the split, each interaction numbered from 1, with a hash of its session."""
    whole = Window.partitionBy(*SESSION)
    in_order = whole.orderBy("event_time", "product_id", strength(F.col("event_type")))
    return (
        interactions.withColumn("start", F.min("event_time").over(whole))
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
    asked = steps.where(F.col("step") > 1).withColumn("query_id", F.xxhash64("session_hash", "step"))
    chosen = _sample(asked.select("query_id"), max_queries)
    asked = asked.join(chosen, on="query_id", how="left_semi")
    revealed = asked.select("query_id", *SESSION, F.col("step").alias("until"))
    known = revealed.join(steps, on=SESSION, how="inner").where(F.col("step") < F.col("until"))
    return known, asked, chosen


def _second_half(steps: DataFrame, max_queries: int) -> tuple[DataFrame, DataFrame, DataFrame]:
    first = steps.groupBy(*SESSION, "session_hash", "product_id").agg(F.min("step").alias("first_step"))
    by_step = Window.partitionBy(*SESSION).orderBy("first_step")
    numbered = first.select(
        *SESSION,
        F.col("session_hash").alias("query_id"),
        "first_step",
        F.row_number().over(by_step).alias("nth"),
        F.count("*").over(Window.partitionBy(*SESSION)).alias("items"),
    )
    # With an odd number of items the middle one is asked for.
    cuts = numbered.where((F.col("nth") == F.floor(F.col("items") / 2) + 1) & (F.col("items") > 1))
    cuts = cuts.select("query_id", *SESSION, F.col("first_step").alias("cut"))
    chosen = _sample(cuts.select("query_id"), max_queries)
    parted = cuts.join(chosen, on="query_id", how="left_semi").join(steps, on=SESSION, how="inner")
    return parted.where(F.col("step") < F.col("cut")), parted.where(F.col("step") >= F.col("cut")), chosen


def _sample(queries: DataFrame, max_queries: int) -> DataFrame:
    return queries.orderBy(F.xxhash64("query_id"), "query_id").limit(max_queries)


def _task(split: datetime, train: DataFrame, known: DataFrame, asked: DataFrame, chosen: DataFrame) -> Task:
    known = known.select("query_id", "user_id", "product_id", "event_type", "event_time")
    revealed = known.select("query_id", "product_id").distinct()
    targets = (
        asked.groupBy("query_id", "product_id")
        .agg(F.max_by("event_type", strength(F.col("event_type"))).alias("event_type"))
        .join(revealed.withColumn("is_repeat", F.lit(True)), on=["query_id", "product_id"], how="left")
        .withColumn("is_repeat", F.coalesce("is_repeat", F.lit(False)))
    )
    counts = revealed.groupBy("query_id").agg(F.count("*").alias("known_items"))
    queries = chosen.join(counts, on="query_id", how="left").select(
        "query_id", F.coalesce("known_items", F.lit(0)).alias("known_items")
    )
    return Task(split, train, queries, known, targets)
