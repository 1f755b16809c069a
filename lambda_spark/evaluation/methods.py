"""The methods that are compared: the recommender as it serves, and the baselines. Each gives lists for a task."""

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
from lambda_spark.serving.catalogue import moving_products
from lambda_spark.serving.inputs import Views, newest_views
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.refresh import lists_for
from lambda_spark.settings import RecommendationSettings, Repeat, Settings, SimilaritySettings, recorded
from lambda_spark.speed.baskets import basket_items
from lambda_spark.speed.co_interactions import all_contributions
from lambda_spark.speed.scores import similar_items

RECOMMEND = "recommend"
"""The recommender itself: what every other method is compared with."""

Lists = Callable[[bool], DataFrame]
"""With or without repeats → query_id, product_id, rank."""


@contextmanager
def learnt_views(train: DataFrame, settings: Settings) -> Iterator[Views]:
    """What serving would read had the layers run on these events and no others."""
    with ExitStack() as stack:

        def kept(rows: DataFrame) -> DataFrame:
            stack.callback(rows.persist(StorageLevel.MEMORY_AND_DISK).unpersist)
            return rows

        extent = extent_of(train)
        assert extent is not None, "a split leaves sessions before it"
        known_until = F.timestamp_micros(F.lit(extent.newest))
        tables = stack.enter_context(compute(train, settings.trends, extent, known_until))
        yield newest_views(
            dict.fromkeys(("events", "products", "similar_items", "trends"), 0),
            events=train,
            products=kept(product_attributes(train)),
            similar_items=kept(learnt_similar_items(train, settings.similarity)),
            trends=tables.trends,
            demand=kept(tables.demand.select("bucket_start", "signal", "product_id", "events")),
            bucket_length=recorded(settings.trends)["bucket"],
        )


def learnt_similar_items(train: DataFrame, settings: SimilaritySettings) -> DataFrame:
    """What the speed layer would have made of these events."""
    newest = train.agg(F.max("event_date")).collect()[0][0]
    return similar_items(all_contributions(basket_items(train), window=settings.window), settings, newest=newest)


def served_lists(task: Task, views: Views, settings: RecommendationSettings, *, k: int, repeat: Repeat) -> DataFrame:
    """What `recommend` would serve each query's visitor: query_id, product_id, rank.

    A visitor's purchases are left out as in production, whatever `repeat` says of the rest. What is revealed is among
    the products, as in production too, where it would have been ingested: nothing else is known of it.
    """
    serving = replace(settings, k=k, repeat=repeat)
    revealed = task.known.select("product_id").distinct()
    unknown = revealed.join(views.products.select("product_id"), on="product_id", how="left_anti")
    views = replace(views, products=views.products.unionByName(unknown, allowMissingColumns=True))
    visitors = task.known.withColumn("user_id", F.col("query_id"))
    asked = task.queries.select(F.col("query_id").alias("user_id"))
    users = asked.join(profiles(visitors, serving), on="user_id", how="left")
    return lists_for(users, views, serving).select(F.col("user_id").alias("query_id"), "product_id", "rank")


def all_methods(task: Task, views: Views, settings: Settings, *, k: int) -> Iterator[tuple[str, Lists]]:
    """Every method with its name; the recommender first."""
    plain = replace(settings, recommendations=replace(settings.recommendations, trend_weight=0.0))
    for name, chosen in ((RECOMMEND, settings), ("recommend without trends", plain)):
        yield (
            name,
            lambda repeats, chosen=chosen.recommendations: served_lists(  # type: ignore[misc]
                task, views, chosen, k=k, repeat="own-row" if repeats else "exclude"
            ),
        )
    views_ever = task.train.groupBy("product_id").agg(F.count("*").alias("score"))
    in_bucket = views.demand.where((F.col("signal") == "view") & (F.col("bucket_start") == views.bucket))
    in_bucket = in_bucket.select("product_id", F.col("events").alias("score"))
    rising = moving_products(views.trends).where(F.col("direction") == "rising")
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
        yield name, lambda repeats, found=candidates: baselines.best_of(found, task, k=k, repeats=repeats)  # type: ignore[misc]
        candidates.unpersist()
