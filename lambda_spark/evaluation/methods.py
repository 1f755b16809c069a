"""The recommendation methods to compare: the recommender as in production, and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.batch.refresh import compute, extent_of
from lambda_spark.evaluation import baselines
from lambda_spark.evaluation.protocols import Task
from lambda_spark.ingestion.products import product_attributes
from lambda_spark.newest import newest_of
from lambda_spark.serving.catalogue import trending_products
from lambda_spark.serving.inputs import Views, newest_views
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.refresh import lists_for
from lambda_spark.settings import RecommendationSettings, Repeat, Settings, SimilaritySettings, recorded
from lambda_spark.speed.baskets import basket_items
from lambda_spark.speed.co_interactions import all_contributions
from lambda_spark.speed.scores import similar_items

RECOMMEND = "recommend"
"""Name of the recommender itself, which every other method is compared with."""

Lists = Callable[[bool], DataFrame]
"""Function that is told whether repeats count, and returns lists: query_id, product_id, rank."""


@contextmanager
def learnt_views(train: DataFrame, settings: Settings) -> Iterator[Views]:
    """Compute the tables that the serving layer would read if the lake held only the given events.

    Args:
        train: Interactions, with the columns of the table `events`.
        settings: Settings of the trends and the similarity.

    Yields:
        The views. Their tables are cached for as long as the context lasts.
    """
    with ExitStack() as stack:

        def cached(rows: DataFrame) -> DataFrame:
            stack.callback(rows.persist(StorageLevel.MEMORY_AND_DISK).unpersist)
            return rows

        newest_date = newest_of(train).date
        extent = extent_of(train, newest_date=newest_date)
        assert extent is not None, "a split leaves sessions before it"
        known_until = F.timestamp_micros(F.lit(extent.newest))
        tables = stack.enter_context(compute(train, settings.trends, extent, known_until))
        yield newest_views(
            dict.fromkeys(("events", "products", "similar_items", "trends"), 0),
            events=train,
            newest_date=newest_date,
            products=cached(product_attributes(train, newest_date)),
            similar_items=cached(learnt_similar_items(train, settings.similarity)),
            trends=tables.trends,
            demand=cached(tables.demand.select("bucket_start", "signal", "product_id", "events")),
            bucket_length=recorded(settings.trends)["bucket"],
        )


def learnt_similar_items(train: DataFrame, settings: SimilaritySettings) -> DataFrame:
    """Compute the rows that the speed layer would write to `similar_items` for the given events.

    Args:
        train: Interactions, with the columns of the table `events`.
        settings: Settings of the similarity.

    Returns:
        The columns of the table `similar_items`.
    """
    counts = all_contributions(basket_items(train), window=settings.window)
    return similar_items(counts, settings, newest=newest_of(train).date)


def served_lists(task: Task, views: Views, settings: RecommendationSettings, *, k: int, repeat: Repeat) -> DataFrame:
    """Make the lists that `recommend` would serve to the visitor of each query.

    A visitor's purchases are never recommended, as in production. Revealed items that the training data lacks become
    products without attributes, because production would have ingested those items.

    Args:
        task: The task.
        views: The views learnt from the task's training data.
        settings: Settings of the recommendations; `k` and `repeat` replace its `list_length` and `repeat`.
        k: Length of a list.
        repeat: Whether a list may hold the items of the visitor's profile.

    Returns:
        query_id, product_id, rank (from 1).
    """
    serving = replace(settings, list_length=k, repeat=repeat)
    revealed = task.known.select("product_id").distinct()
    unknown = revealed.join(views.products.select("product_id"), on="product_id", how="left_anti")
    views = replace(views, products=views.products.unionByName(unknown, allowMissingColumns=True))
    visitors = task.known.withColumn("user_id", F.col("query_id"))
    query_users = task.queries.select(F.col("query_id").alias("user_id"))
    users = query_users.join(profiles(visitors, serving), on="user_id", how="left")
    return lists_for(users, views, serving).select(F.col("user_id").alias("query_id"), "product_id", "rank")


def all_methods(task: Task, views: Views, settings: Settings, *, k: int) -> Iterator[tuple[str, Lists]]:
    """Go through every method, the recommender first.

    Args:
        task: The task.
        views: The views learnt from the task's training data.
        settings: Settings of the recommender.
        k: Length of a list.

    Yields:
        A method's name and lists. Use the lists before asking for the next method, which frees the cached rows.
    """
    plain = replace(settings, recommendations=replace(settings.recommendations, trend_weight=0.0))
    for name, chosen in ((RECOMMEND, settings), ("recommend without trends", plain)):
        yield (
            name,
            lambda repeats, chosen=chosen.recommendations: served_lists(  # type: ignore[misc]
                task, views, chosen, k=k, repeat="boost" if repeats else "exclude"
            ),
        )
    views_ever = task.train.groupBy("product_id").agg(F.count("*").alias("score"))
    in_bucket = views.demand.where((F.col("signal") == "view") & (F.col("bucket_start") == views.bucket))
    in_bucket = in_bucket.select("product_id", F.col("events").alias("score"))
    rising = trending_products(views.trends).where(F.col("direction") == "rising")
    depth = k + baselines.LONGEST_SESSION
    for name, method in (
        ("session-knn", baselines.session_knn),
        ("association rules", baselines.association_rules),
        ("cosine", baselines.cosine),
        ("jaccard, last five", baselines.jaccard),
        ("most popular", baselines.popularity(views_ever, depth=depth)),
        ("popular in last bucket", baselines.popularity(in_bucket, depth=depth)),
        (
            "trending",
            baselines.popularity(rising.select("product_id", (F.lit(1.0) / F.col("rank")).alias("score")), depth=depth),
        ),
    ):
        candidates = method(task).persist(StorageLevel.MEMORY_AND_DISK)
        yield (
            name,
            lambda repeats, candidates=candidates: baselines.best_of(  # type: ignore[misc]
                candidates, task, k=k, repeats=repeats
            ),
        )
        candidates.unpersist()
