"""Measures every recommendation method on one task, and compares each with the recommender."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.errors import LeakError, UsageError
from lambda_spark.evaluation import metrics
from lambda_spark.evaluation.methods import RECOMMEND, all_methods, learnt_views
from lambda_spark.evaluation.protocols import Task, make_task, split_time
from lambda_spark.serving.catalogue import trending_products
from lambda_spark.settings import Settings

logger = logging.getLogger(__name__)

CUTS = (5, 10, 20)
DEPTH = max(CUTS)
COMPARED = ("hr", "mrr", "ndcg")
"""Metrics whose difference from the recommender's metric gets a confidence interval."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the metrics need to know about one method's lists, as pandas objects on the driver."""

    method: str
    repeats: bool
    """Whether revealed items may be in the lists and among the targets."""
    hits: pd.DataFrame
    """The targets that the lists hold: query_id, product_id, rank."""
    recommended: pd.Series
    """Number of lists that hold a product, by product_id."""
    diversity: float
    """Mean share of the product pairs of a list that belong to two different categories."""


def evaluate(events: DataFrame, settings: Settings, protocol: str, *, share: float, max_queries: int) -> pd.DataFrame:
    """Measure every method on a protocol, with and without repeats, on all targets and on slices of the targets.

    Args:
        events: The columns of the table `events`.
        settings: Settings of the trends, the similarity and the recommendations.
        protocol: `next-item`, `second-half` or `future`; see `make_task`.
        share: Share of the sessions that begin before the split.
        max_queries: Largest number of queries.

    Returns:
        method, protocol, repeats, slice, queries, targets, metric (like `hr@20`), value, difference (from the
        recommender's value), low and high (95 % interval of the difference). The last three columns are filled only
        for COMPARED metrics of the other methods, on all targets.

    Raises:
        UsageError: There are no sessions, or the split leaves nothing to learn from or nothing to predict.
        LeakError: The training data reaches the split.
    """
    with evaluation_task(protocol, events, share, max_queries) as task:
        targets = _targets(task)
        train_counts = _counts(task.train)
        if targets.empty or train_counts.empty:
            raise UsageError(
                f"the split at {task.split:%Y-%m-%d %H:%M:%S} leaves nothing to learn from before it or nothing to "
                "predict after it; choose another --split"
            )
        logger.info(
            f"{protocol}: {targets['query_id'].nunique():,} queries with {len(targets):,} targets after "
            f"{task.split:%Y-%m-%d %H:%M:%S}, {int(train_counts.sum()):,} interactions before it"
        )
        outcomes = []
        with learnt_views(task.train, settings) as views:
            rising = _rising(views.trends)
            categories = views.products.select("product_id", "category_code")
            for name, lists in all_methods(task, views, settings, k=DEPTH):
                for repeats in (False, True):
                    outcomes.append(_outcome(name, repeats, lists(repeats), task, categories))
                logger.info(f"{protocol}: measured {name}")
        rows = pd.concat(list(_measured(outcomes, targets, train_counts, rising)), ignore_index=True)
    rows.insert(1, "protocol", protocol)
    return rows


@contextmanager
def evaluation_task(protocol: str, events: DataFrame, share: float, max_queries: int) -> Iterator[Task]:
    """Make the task of a protocol and keep it cached for as long as the context lasts.

    Args:
        protocol: `next-item`, `second-half` or `future`; see `make_task`.
        events: The columns of the table `events`.
        share: Share of the sessions that begin before the split.
        max_queries: Largest number of queries.

    Yields:
        The task.

    Raises:
        UsageError: There are no sessions.
        LeakError: The training data reaches the split.
    """
    split = split_time(events, share)
    if split is None:
        raise UsageError("there are no sessions (views, carts or purchases) to evaluate on; ingest event files first")
    task = make_task(protocol, events, split, max_queries=max_queries)
    parts = [
        rows.persist(StorageLevel.MEMORY_AND_DISK) for rows in (task.train, task.queries, task.known, task.targets)
    ]
    try:
        check_no_leak(task)
        yield task
    finally:
        for rows in parts:
            rows.unpersist()


def check_no_leak(task: Task) -> None:
    """Check that everything a method learns from happened before the split.

    Raises:
        LeakError: A training event happened at the split or after it.
    """
    newest = task.train.agg(F.max("event_time")).collect()[0][0]
    if newest is not None and newest >= task.split:
        raise LeakError(
            f"the training data reaches {newest}, beyond the split at {task.split}, so that methods would learn what "
            "they have to predict; report this as a bug of the protocol"
        )


def _pandas(rows: DataFrame) -> pd.DataFrame:
    return pd.DataFrame(rows.toPandas())


def _counts(rows: DataFrame) -> pd.Series:
    """Count rows by product_id."""
    return _pandas(rows.groupBy("product_id").count()).set_index("product_id")["count"]


def _targets(task: Task) -> pd.DataFrame:
    """Collect the targets, with the columns that divide the targets into slices.

    A product without an interaction before the split is cold. The popular products are the fewest products that
    together have half of the interactions before the split. All others are the tail. The slice `warm` holds all
    targets that are not cold.

    Returns:
        query_id, product_id, event_type, is_repeat, popularity (popular, tail or cold), history (number of distinct
        revealed items: 0, 1, 2-4 or 5+).
    """
    counts = task.train.groupBy("product_id").agg(F.count("*").alias("count"))
    more_popular = Window.orderBy(F.desc("count"), "product_id").rowsBetween(Window.unboundedPreceding, -1)
    everything = Window.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    is_popular = F.coalesce(F.sum("count").over(more_popular), F.lit(0)) * 2 < F.sum("count").over(everything)
    classes = counts.select("product_id", F.when(is_popular, "popular").otherwise("tail").alias("popularity"))
    n = F.col("known_items")
    history = F.when(n == 0, "0").when(n == 1, "1").when(n <= 4, "2-4").otherwise("5+")
    return _pandas(
        task.targets.join(classes, on="product_id", how="left")
        .join(task.queries, on="query_id", how="inner")
        .select(
            "query_id",
            "product_id",
            "event_type",
            "is_repeat",
            F.coalesce("popularity", F.lit("cold")).alias("popularity"),
            history.alias("history"),
        )
    )


def _rising(trends: DataFrame) -> pd.Index:
    rows = trending_products(trends).where(F.col("direction") == "rising").select("product_id")
    return pd.Index(_pandas(rows)["product_id"])


def _outcome(name: str, repeats: bool, lists: DataFrame, task: Task, categories: DataFrame) -> Outcome:
    lists = lists.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        hits = lists.join(task.targets, on=["query_id", "product_id"], how="inner")
        if not repeats:
            hits = hits.where(~F.col("is_repeat"))
        by_category = (
            lists.join(F.broadcast(categories), on="product_id", how="left")
            .groupBy("query_id", "category_code")
            .agg(F.count("*").alias("n"))
            .groupBy("query_id")
            .agg(F.sum("n").alias("length"), F.sum(F.col("n") * (F.col("n") - 1)).alias("alike"))
            .where(F.col("length") > 1)
            .agg(F.avg(F.lit(1.0) - F.col("alike") / (F.col("length") * (F.col("length") - 1))))
        )
        return Outcome(
            name,
            repeats,
            _pandas(hits.select("query_id", "product_id", "rank")),
            _counts(lists),
            by_category.collect()[0][0] or 0.0,
        )
    finally:
        lists.unpersist()


def _measured(
    outcomes: list[Outcome], targets: pd.DataFrame, train_counts: pd.Series, rising: pd.Index
) -> Iterator[pd.DataFrame]:
    for repeats in (False, True):
        counted_targets = targets if repeats else targets[~targets["is_repeat"]]
        recommender = next(
            outcome for outcome in outcomes if outcome.method == RECOMMEND and outcome.repeats == repeats
        )
        for name, part in _slices(counted_targets):
            counts = part.groupby("query_id").size()
            if counts.empty:
                continue
            reference = _by_query(recommender, part, counts)
            for outcome in outcomes:
                if outcome.repeats == repeats:
                    measured = reference if outcome is recommender else _by_query(outcome, part, counts)
                    rows = _rows(measured, reference if name == "all" and outcome is not recommender else None)
                    if name == "all":
                        rows += _beyond_accuracy(outcome, train_counts, rising)
                    figures = ["value", "difference", "low", "high"]
                    frame = pd.DataFrame(rows, columns=["metric", *figures]).astype(dict.fromkeys(figures, float))
                    frame.insert(0, "method", outcome.method)
                    for at, (column, value) in enumerate(
                        {"repeats": repeats, "slice": name, "queries": len(counts), "targets": len(part)}.items(), 1
                    ):
                        frame.insert(at, column, value)
                    yield frame


def _slices(targets: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "all", targets
    for column in ("event_type", "popularity", "history"):
        for value, part in targets.groupby(column):
            yield f"{column}={value}", part
    yield "popularity=warm", targets[targets["popularity"] != "cold"]


def _by_query(outcome: Outcome, targets: pd.DataFrame, counts: pd.Series) -> dict[int, pd.DataFrame]:
    hits = outcome.hits.merge(targets[["query_id", "product_id"]], on=["query_id", "product_id"])
    return {k: metrics.ranking_metrics(counts, hits, k) for k in CUTS}


Row = tuple[str, float, float | None, float | None, float | None]
"""One measured metric: its name, value, difference from the recommender, and the interval's low and high ends."""


def _rows(measured: dict[int, pd.DataFrame], reference: dict[int, pd.DataFrame] | None) -> list[Row]:
    rows: list[Row] = []
    for k, by_query in measured.items():
        for metric in metrics.RANKING:
            interval: tuple[float | None, ...] = (None, None, None)
            if reference is not None and metric in COMPARED:
                interval = metrics.mean_difference(by_query[metric].to_numpy(), reference[k][metric].to_numpy())
            rows.append((f"{metric}@{k}", float(by_query[metric].mean()), *interval))  # type: ignore[arg-type]
    return rows


def _beyond_accuracy(outcome: Outcome, train_counts: pd.Series, rising: pd.Index) -> list[Row]:
    lists = outcome.recommended
    if lists.empty:
        return []
    values = {
        "coverage": metrics.catalogue_coverage(lists, len(train_counts)),
        "gini": metrics.gini_index(lists, len(train_counts)),
        "novelty": metrics.novelty(lists, train_counts),
        "diversity": outcome.diversity,
        "rising": float(lists[lists.index.isin(rising)].sum() / lists.sum()),
    }
    return [(f"{name}@{DEPTH}", value, None, None, None) for name, value in values.items()]
