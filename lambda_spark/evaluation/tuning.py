"""Searches for better settings, one setting after another, within a time budget.

The search uses only the events before the evaluation's split, and splits them once more. A setting changes only if the
gain is statistically sure, so that a small store keeps its settings. An interrupted search can continue, because each
trial is recorded and the order of trials is always the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.evaluation import metrics
from lambda_spark.evaluation.evaluate import DEPTH, evaluation_task
from lambda_spark.evaluation.methods import learnt_similar_items, learnt_views, served_lists
from lambda_spark.evaluation.protocols import Task
from lambda_spark.serving.inputs import Views
from lambda_spark.settings import Settings

logger = logging.getLogger(__name__)

METRIC = "ndcg"
"""The metric to maximise, over the first `DEPTH` places. The nearer a hit is to the top, the more it counts."""

CANDIDATES: dict[str, tuple[Any, ...]] = {
    "similarity.measure": ("confidence", "cosine", "jaccard", "llr"),
    "similarity.window": (1, 3, 5, 6),
    "similarity.half_life_days": (0.0, 7.0, 30.0, 90.0),
    "similarity.min_baskets": (1, 2, 3),
    "similarity.max_neighbours": (10, 20, 50),
    "recommendations.profile_items": (3, 5, 10, 20),
    "recommendations.profile_decay": (0.3, 0.5, 0.7, 1.0),
    "recommendations.cart_weight": (1.0, 2.0, 4.0),
    "recommendations.purchase_weight": (1.0, 3.0, 6.0),
    "recommendations.trend_weight": (0.0, 0.2, 0.5, 1.0),
    "recommendations.repeat": ("exclude", "allow", "boost"),
    "recommendations.repeat_weight": (0.3, 0.6, 1.0, 2.0),
}
"""The values to try, in this order. The last two settings are judged with repeats counted, the others without."""
REPEAT, REPEAT_WEIGHT = "recommendations.repeat", "recommendations.repeat_weight"


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one value of one setting."""

    setting: str
    candidate: Any
    value: float
    """Mean of the metric with this value."""
    difference: float
    """Mean difference from the metric of the same queries with the setting unchanged."""
    low: float
    """Lower end of the difference's 95 % interval."""
    high: float
    """Upper end of the difference's 95 % interval."""
    queries: int


@dataclass(slots=True)
class Tuning:
    """The result of a search."""

    protocol: str
    begun_with: Settings
    chosen: Settings
    split: datetime
    """Time of the inner split, which divides the events before the outer split. The search uses only those events."""
    finished: bool = False
    trials: list[Trial] = field(default_factory=list)
    outcome: dict[bool, Trial] = field(default_factory=dict)
    """The chosen settings compared with the first settings after the outer split, by whether repeats count.

    Empty if the settings did not change or the search did not finish.
    """


Recall = Callable[[Settings, str, Any], Trial | None]
"""Function that takes settings, a setting's name and its candidate, and returns an earlier run's trial, or None."""
Keep = Callable[[Settings, Trial], None]
"""Function that takes settings and a trial of these settings, and records the trial."""


def tune(
    events: DataFrame,
    settings: Settings,
    protocol: str,
    *,
    share: float,
    max_queries: int,
    minutes: float,
    recall: Recall,
    keep: Keep,
) -> Tuning:
    """Try each setting's candidates in turn, with the other settings at their best values so far.

    The events before the outer split are split again at the same share. Each candidate is judged on the queries after
    this inner split. At the end the chosen settings are compared with the first ones on the queries after the outer
    split, which took no part in the choice.

    Args:
        events: The columns of the table `events`.
        settings: The settings to begin with.
        protocol: `next-item`, `second-half` or `future`; see `make_task`.
        share: Share of the sessions that begin before a split.
        max_queries: Largest number of queries after a split.
        minutes: Time budget. A trial that has begun is finished.
        recall: Finds a trial that an earlier run recorded.
        keep: Records a trial for later runs.

    Returns:
        The trials and the chosen settings. `finished` is false where the budget ended the search.

    Raises:
        UsageError: There are no sessions before a split.
        LeakError: The training data reaches a split.
    """
    deadline = time.monotonic() + 60 * minutes
    with evaluation_task(protocol, events, share, max_queries) as outer:
        with evaluation_task(protocol, outer.train, share, max_queries) as inner, _bench(inner, settings) as bench:
            tuning = Tuning(protocol, settings, settings, inner.split)
            tuning.finished = _search(tuning, bench, deadline, recall, keep)
        if tuning.finished and tuning.chosen != settings:
            logger.info("measuring the chosen settings on the events after the outer split")
            with _bench(outer, settings) as bench:
                for repeats in (False, True):
                    first, chosen = bench(settings, repeats), bench(tuning.chosen, repeats)
                    tuning.outcome[repeats] = _trial("all", "chosen", chosen, first)
    return tuning


def with_value(settings: Settings, name: str, value: Any) -> Settings:
    """Return the settings with another value for the setting named `section.key`."""
    section, key = name.split(".")
    return replace(settings, **{section: replace(getattr(settings, section), **{key: value})})


def value_of(settings: Settings, name: str) -> Any:
    """Return the value of the setting named `section.key`."""
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def _search(tuning: Tuning, bench: Bench, deadline: float, recall: Recall, keep: Keep) -> bool:
    """Run the search and write its trials and chosen settings to `tuning`. Return False if the time ran out first."""
    for name, candidates in CANDIDATES.items():
        base = with_value(tuning.chosen, REPEAT, "boost") if name == REPEAT_WEIGHT else tuning.chosen
        repeats = name in (REPEAT, REPEAT_WEIGHT)
        best: Trial | None = None
        for candidate in candidates:
            if candidate == value_of(base, name):
                continue
            settings = with_value(base, name, candidate)
            trial = recall(settings, name, candidate)
            if trial is None:
                if time.monotonic() > deadline:
                    return False
                trial = _trial(name, candidate, bench(settings, repeats), bench(base, repeats))
                keep(settings, trial)
            tuning.trials.append(trial)
            logger.info(
                f"{name} = {candidate}: {METRIC}@{DEPTH} {trial.value:.4f}, "
                f"difference {trial.low:+.4f} to {trial.high:+.4f}"
            )
            if trial.low > 0 and (best is None or trial.value > best.value):
                best = trial
        # Only show the evidence for `repeat`, because the store decides whether to offer seen products again.
        if best is not None and name != REPEAT:
            tuning.chosen = with_value(tuning.chosen, name, best.candidate)
    return True


def _trial(name: str, candidate: Any, values: pd.Series, reference: pd.Series) -> Trial:
    difference, low, high = metrics.mean_difference(values.to_numpy(), reference.to_numpy())
    return Trial(name, candidate, float(values.mean()), difference, low, high, len(values))


Bench = Callable[[Settings, bool], pd.Series]
"""Function that takes settings and whether repeats count, and returns the metric by query_id."""


@contextmanager
def _bench(task: Task, settings: Settings) -> Iterator[Bench]:
    """Make a function that measures settings on a task.

    Trends are learnt once, because no candidate changes them.
    """
    targets = pd.DataFrame(task.targets.select("query_id", "product_id", "is_repeat").toPandas())
    measured: dict[tuple[Settings, bool], pd.Series] = {}
    with learnt_views(task.train, settings) as learnt:

        def measure(candidate: Settings, repeats: bool) -> pd.Series:
            if (candidate, repeats) not in measured:
                measured[candidate, repeats] = _by_query(task, targets, _views_for(candidate), candidate, repeats)
            return measured[candidate, repeats]

        def _views_for(candidate: Settings) -> Views:
            if candidate.similarity == settings.similarity:
                return learnt
            return replace(learnt, similar_items=learnt_similar_items(task.train, candidate.similarity))

        yield measure


def _by_query(task: Task, targets: pd.DataFrame, views: Views, settings: Settings, repeats: bool) -> pd.Series:
    serving = settings.recommendations
    lists = served_lists(task, views, serving, k=DEPTH, repeat=serving.repeat if repeats else "exclude")
    hits = lists.join(task.targets, on=["query_id", "product_id"], how="inner")
    if not repeats:
        hits = hits.where(~F.col("is_repeat"))
        targets = targets[~targets["is_repeat"]]
    collected_hits = pd.DataFrame(hits.select("query_id", "product_id", "rank").toPandas())
    counts = targets.groupby("query_id").size()
    return metrics.ranking_metrics(counts, collected_hits, DEPTH)[METRIC]
