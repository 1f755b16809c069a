"""What recommendations are held against: published methods in their plain form, each from its paper's formula. Pure.

Every method takes a task and returns candidates: query_id, product_id, score, the more the better; what was revealed
may be among them. `best_of` makes lists of candidates.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.evaluation.protocols import SESSION, Task, in_sessions

LONGEST_SESSION = 50
"""Distinct items of a session, the latest, that count in pairs of all with all: a crawler's would be millions."""
LAST_ITEMS = 5
"""Of how many last items the original project's method took the neighbours."""
SAMPLED_SESSIONS, NEIGHBOUR_SESSIONS = 1000, 100
"""Session-kNN: the most recent sessions with a common item, and how many of the most similar among them vote."""

Method = Callable[[Task], DataFrame]


def best_of(candidates: DataFrame, task: Task, *, k: int, repeats: bool) -> DataFrame:
    """Each query's `k` best candidates: query_id, product_id, rank. Without repeats, none that was revealed."""
    if not repeats:
        revealed = task.known.select("query_id", "product_id").distinct()
        candidates = candidates.join(revealed, on=["query_id", "product_id"], how="left_anti")
    best_first = Window.partitionBy("query_id").orderBy(F.desc("score"), F.asc("product_id"))
    ranked = candidates.where(F.col("score") > 0).withColumn("rank", F.row_number().over(best_first))
    return ranked.where(F.col("rank") <= k).select("query_id", "product_id", "rank")


def popularity(counts: DataFrame, *, depth: int) -> Method:
    """The same products for everyone: those with the highest `score` in `counts` (product_id, score), so many."""

    def candidates(task: Task) -> DataFrame:
        first = counts.orderBy(F.desc("score"), "product_id").limit(depth)
        return task.queries.select("query_id").crossJoin(F.broadcast(first))

    return candidates


def association_rules(task: Task) -> DataFrame:
    """Sessions with both the last item and the other (rules of size two; Agrawal et al., SIGMOD 1993)."""
    return _from_neighbours(task, pair_counts(task.train), F.col("both").cast("double"), last_items=1)


def cosine(task: Task) -> DataFrame:
    """Σ over the revealed items of both/√(n_i·n_j) (item-item of Sarwar et al., WWW 2001, on sessions)."""
    return _from_neighbours(task, pair_counts(task.train), F.col("both") / F.sqrt(F.col("n_i") * F.col("n_j")))


def jaccard(task: Task) -> DataFrame:
    """Σ over the last five items of both/(n_i + n_j - both): what the original project did."""
    score = F.col("both") / (F.col("n_i") + F.col("n_j") - F.col("both"))
    return _from_neighbours(task, pair_counts(task.train), score, last_items=LAST_ITEMS)


def session_knn(task: Task) -> DataFrame:
    """VSKNN: similar sessions vote (Ludewig & Jannach, User Modeling and User-Adapted Interaction 28, 2018).

    Revealed interactions 1 … n weigh i/n, an item as its last one; a session's similarity is the sum over common items
    by n. An item's score is the sum of the similarities of the voting sessions that have it, each divided by how many
    interactions ago the latest common item was (1: the last).
    """
    order = Window.partitionBy("query_id").orderBy("event_time", "product_id")
    numbered = task.known.select(
        "query_id",
        "product_id",
        F.row_number().over(order).alias("position"),
        F.count("*").over(Window.partitionBy("query_id")).alias("length"),
    )
    distinct = numbered.groupBy("query_id", "product_id", "length").agg(F.max("position").alias("position"))
    sessions = session_items(task.train)
    common = (
        distinct.join(sessions, on="product_id", how="inner")
        .groupBy("query_id", *SESSION, "length", "session_time")
        .agg(
            F.sum("position").alias("weight"),
            (F.col("length") - F.max("position") + 1).alias("steps_ago"),
        )
        .withColumn("similarity", F.col("weight") / F.col("length") / F.col("length"))
    )
    newest = Window.partitionBy("query_id").orderBy(F.desc("session_time"), *SESSION)
    nearest = Window.partitionBy("query_id").orderBy(F.desc("similarity"), F.desc("session_time"), *SESSION)
    voting = (
        common.withColumn("age", F.row_number().over(newest))
        .where(F.col("age") <= SAMPLED_SESSIONS)
        .withColumn("place", F.row_number().over(nearest))
        .where(F.col("place") <= NEIGHBOUR_SESSIONS)
    )
    return (
        voting.select("query_id", *SESSION, (F.col("similarity") / F.col("steps_ago")).alias("vote"))
        .join(sessions, on=SESSION, how="inner")
        .groupBy("query_id", "product_id")
        .agg(F.sum("vote").alias("score"))
    )


def session_items(train: DataFrame) -> DataFrame:
    """Distinct items of the sessions: user_id, session, product_id, session_time (its last interaction)."""
    last = F.max(F.max("event_time")).over(Window.partitionBy(*SESSION))
    return (
        in_sessions(train)
        .groupBy(*SESSION, "product_id")
        .agg(F.max("event_time").alias("item_time"), last.alias("session_time"))
    )


def pair_counts(train: DataFrame) -> DataFrame:
    """Sessions of every two items: item_i, item_j, both, n_i, n_j; every pair in both directions, and every item with
    itself, so that where repeats count these methods repeat too."""
    latest = Window.partitionBy(*SESSION).orderBy(F.desc("item_time"), "product_id")
    items = session_items(train).withColumn("place", F.row_number().over(latest))
    items = items.where(F.col("place") <= LONGEST_SESSION).select(*SESSION, "product_id")
    counts = items.groupBy("product_id").agg(F.count("*").alias("n"))
    pairs = (
        items.withColumnRenamed("product_id", "item_i")
        .join(items.withColumnRenamed("product_id", "item_j"), on=SESSION, how="inner")
        .groupBy("item_i", "item_j")
        .agg(F.count("*").alias("both"))
    )
    return pairs.join(
        counts.select(F.col("product_id").alias("item_i"), F.col("n").alias("n_i")), on="item_i", how="inner"
    ).join(counts.select(F.col("product_id").alias("item_j"), F.col("n").alias("n_j")), on="item_j", how="inner")


def _from_neighbours(task: Task, pairs: DataFrame, score: Column, last_items: int | None = None) -> DataFrame:
    """The sum of a score over the revealed items, or over the last ones of them."""
    items = task.known.groupBy("query_id", "product_id").agg(F.max("event_time").alias("latest"))
    if last_items is not None:
        latest = Window.partitionBy("query_id").orderBy(F.desc("latest"), "product_id")
        items = items.withColumn("place", F.row_number().over(latest)).where(F.col("place") <= last_items)
    return (
        items.select("query_id", F.col("product_id").alias("item_i"))
        .join(pairs.select("item_i", "item_j", score.alias("score")), on="item_i", how="inner")
        .groupBy("query_id", F.col("item_j").alias("product_id"))
        .agg(F.sum("score").alias("score"))
    )
