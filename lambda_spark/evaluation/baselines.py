"""Published recommendation methods in their plain form, which the recommender is compared with.

Each method follows its paper's formula. A method takes a task and returns scored products: query_id, product_id and
score, where a higher score is better. These candidates may include items that the query reveals. `best_of` turns
candidates into lists. The functions neither read nor write the lake.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.evaluation.protocols import SESSION, Task, in_sessions

LONGEST_SESSION = 50
"""Only this many latest distinct items of a session are paired with one another.

Without this limit, the session of one crawler would give millions of pairs.
"""
LAST_ITEMS = 5
"""`jaccard` scores products by this many last items of a query, as the original project did."""
SAMPLED_SESSIONS, NEIGHBOUR_SESSIONS = 1000, 100
"""For `session_knn`: how many latest sessions with a common item are compared, and how many most similar ones vote."""

Method = Callable[[Task], DataFrame]
"""Function that takes a task and returns its candidates: query_id, product_id, score."""


def best_of(candidates: DataFrame, task: Task, *, k: int, repeats: bool) -> DataFrame:
    """Rank the best candidates of each query.

    Args:
        candidates: query_id, product_id, score. Only a candidate with a score above 0 is listed.
        task: The task that the candidates were made for.
        k: Largest length of a list.
        repeats: Whether a list may hold items that the query reveals.

    Returns:
        query_id, product_id, rank (from 1). The highest score comes first, then the smallest product_id.
    """
    if not repeats:
        revealed = task.known.select("query_id", "product_id").distinct()
        candidates = candidates.join(revealed, on=["query_id", "product_id"], how="left_anti")
    best_first = Window.partitionBy("query_id").orderBy(F.desc("score"), F.asc("product_id"))
    ranked = candidates.where(F.col("score") > 0).withColumn("rank", F.row_number().over(best_first))
    return ranked.where(F.col("rank") <= k).select("query_id", "product_id", "rank")


def popularity(counts: DataFrame, *, depth: int) -> Method:
    """Make a method that gives every query the same products.

    Args:
        counts: product_id, score.
        depth: Number of products to give. The products with the highest scores are given.

    Returns:
        The method.
    """

    def candidates(task: Task) -> DataFrame:
        first = counts.orderBy(F.desc("score"), "product_id").limit(depth)
        return task.queries.select("query_id").crossJoin(F.broadcast(first))

    return candidates


def association_rules(task: Task) -> DataFrame:
    """Score a product by the number of sessions that hold both it and the query's last item.

    Returns:
        query_id, product_id, score (sessions, at least 1).

    Source:
        Association rules of size two, Agrawal et al., SIGMOD 1993.
    """
    return _from_neighbours(task, pair_counts(task.train), F.col("both").cast("double"), last_items=1)


def cosine(task: Task) -> DataFrame:
    """Score a product j by Σ both/√(n_i·n_j) over the revealed items i.

    `both` is the number of sessions with i and j, n_i and n_j the numbers of sessions with each of them.

    Returns:
        query_id, product_id, score (above 0).

    Source:
        Item-item similarity of Sarwar et al., WWW 2001, here on sessions.
    """
    return _from_neighbours(task, pair_counts(task.train), F.col("both") / F.sqrt(F.col("n_i") * F.col("n_j")))


def jaccard(task: Task) -> DataFrame:
    """Score a product j by Σ both/(n_i + n_j - both) over the last five revealed items i.

    `both` is the number of sessions with i and j, n_i and n_j the numbers of sessions with each of them.

    Returns:
        query_id, product_id, score (above 0).

    Source:
        The method of the original project.
    """
    score = F.col("both") / (F.col("n_i") + F.col("n_j") - F.col("both"))
    return _from_neighbours(task, pair_counts(task.train), score, last_items=LAST_ITEMS)


def session_knn(task: Task) -> DataFrame:
    """Score a product by the votes of similar sessions (VSKNN).

    The i-th of n revealed interactions weighs i/n. An item weighs as much as its last interaction. A session's
    similarity to the query is the sum of the weights of their common items, divided by n. A session's vote is its
    similarity divided by the steps back to the latest common item, where the query's last interaction is 1 step back.
    A product's score is the sum of the votes of the sessions that hold the product.

    Returns:
        query_id, product_id, score (above 0).

    Source:
        Ludewig & Jannach, User Modeling and User-Adapted Interaction 28, 2018.
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
    """List the distinct items of each session.

    Returns:
        user_id, session, product_id, item_time (last interaction with the item) and session_time (last interaction of
        the session).
    """
    last = F.max(F.max("event_time")).over(Window.partitionBy(*SESSION))
    return (
        in_sessions(train)
        .groupBy(*SESSION, "product_id")
        .agg(F.max("event_time").alias("item_time"), last.alias("session_time"))
    )


def pair_counts(train: DataFrame) -> DataFrame:
    """Count the sessions that hold two items.

    Returns:
        item_i, item_j, both (sessions with both items), n_i and n_j (sessions with each). Each pair has a row in both
        directions. Each item is also paired with itself, so that a method can list revealed items where repeats count.
    """
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
    """Score a product by the sum of its pair scores with the revealed items, or with the last few revealed items."""
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
