"""Which settings the evidence speaks for: one setting after another, on an inner split in time, within a budget.

A setting leaves its value only where the gain is sure, so that a small store keeps what it has. The search takes the
same way every time, and each trial is kept: one that was stopped goes on where it was.
"""

from __future__ import annotations

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
from lambda_spark.evaluation.evaluate import DEPTH, asked
from lambda_spark.evaluation.methods import learnt_similar_items, learnt_views, served_lists
from lambda_spark.evaluation.protocols import Task
from lambda_spark.serving.inputs import Views
from lambda_spark.settings import Settings

METRIC = "ndcg"
"""What is to be high, at the deepest cut: it rewards a hit, and the more the nearer it is to the top."""

CANDIDATES: dict[str, tuple[Any, ...]] = {
    "similarity.measure": ("confidence", "cosine", "jaccard", "llr"),
    "similarity.window": (1, 3, 5, 6),
    "similarity.half_life_days": (0.0, 7.0, 30.0, 90.0),
    "similarity.min_baskets": (1, 2, 3),
    "similarity.k": (10, 20, 50),
    "recommendations.profile_items": (3, 5, 10, 20),
    "recommendations.profile_decay": (0.3, 0.5, 0.7, 1.0),
    "recommendations.cart_weight": (1.0, 2.0, 4.0),
    "recommendations.purchase_weight": (1.0, 3.0, 6.0),
    "recommendations.trend_weight": (0.0, 0.2, 0.5, 1.0),
    "recommendations.repeat": ("exclude", "allow", "own-row"),
    "recommendations.own_weight": (0.3, 0.6, 1.0, 2.0),
}
"""The values that are tried, in this order; the last two are judged where repeats count."""
REPEAT, OWN_WEIGHT = "recommendations.repeat", "recommendations.own_weight"


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of one setting: the metric with it, and its difference from the best so far with its 95 % interval."""

    setting: str
    candidate: Any
    value: float
    difference: float
    low: float
    high: float
    queries: int


@dataclass(slots=True)
class Tuning:
    """What a search found."""

    protocol: str
    begun_with: Settings
    chosen: Settings
    split: datetime
    """The inner split; what came after the outer one took no part in the search."""
    finished: bool = False
    trials: list[Trial] = field(default_factory=list)
    outcome: dict[bool, Trial] = field(default_factory=dict)
    """Without and with repeats: the chosen settings against those it began with, on what came after the outer split."""


Progress = Callable[[str], None]
Recall = Callable[[Settings, str, Any], Trial | None]
"""Settings, setting and candidate → the trial of an earlier start, or None."""
Keep = Callable[[Settings, Trial], None]


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
    progress: Progress,
) -> Tuning:
    """Try the candidates of each setting in turn, the others as they are best so far, until the time is over.

    The events before the outer split are split again at the same share; each candidate is judged on the questions after
    this inner split. At the end the chosen settings are held against the first ones on those after the outer split.

    Raises UsageError where a split leaves nothing to ask for.
    """
    deadline = time.monotonic() + 60 * minutes
    with asked(protocol, events, share, max_queries) as outer:
        with asked(protocol, outer.train, share, max_queries) as inner, _bench(inner, settings) as bench:
            tuning = Tuning(protocol, settings, settings, inner.split)
            tuning.finished = _search(tuning, bench, deadline, recall, keep, progress)
        if tuning.finished and tuning.chosen != settings:
            progress("the chosen settings on what came after the outer split")
            with _bench(outer, settings) as bench:
                for repeats in (False, True):
                    first, chosen = bench(settings, repeats), bench(tuning.chosen, repeats)
                    tuning.outcome[repeats] = _trial("all", "chosen", chosen, first)
    return tuning


def with_value(settings: Settings, name: str, value: Any) -> Settings:
    """Settings in which one, named `section.key`, has another value."""
    section, key = name.split(".")
    return replace(settings, **{section: replace(getattr(settings, section), **{key: value})})


def value_of(settings: Settings, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def _search(tuning: Tuning, bench: Bench, deadline: float, recall: Recall, keep: Keep, progress: Progress) -> bool:
    """Fill in trials and the chosen settings; False where the time was over first."""
    for name, candidates in CANDIDATES.items():
        base = with_value(tuning.chosen, REPEAT, "own-row") if name == OWN_WEIGHT else tuning.chosen
        repeats = name in (REPEAT, OWN_WEIGHT)
        best: Trial | None = None
        for candidate in candidates:
            if candidate == value_of(base, name):
                continue
            tried = with_value(base, name, candidate)
            trial = recall(tried, name, candidate)
            if trial is None:
                if time.monotonic() > deadline:
                    return False
                trial = _trial(name, candidate, bench(tried, repeats), bench(base, repeats))
                keep(tried, trial)
            tuning.trials.append(trial)
            progress(f"{name} = {candidate}: {trial.value:.4f} ({trial.low:+.4f} to {trial.high:+.4f})")
            if trial.low > 0 and (best is None or trial.value > best.value):
                best = trial
        # Whether to offer again what was just looked at is the store's to decide: the evidence is shown, no more.
        if best is not None and name != REPEAT:
            tuning.chosen = with_value(tuning.chosen, name, best.candidate)
    return True


def _trial(name: str, candidate: Any, tried: pd.Series, best: pd.Series) -> Trial:
    difference, low, high = metrics.mean_difference(tried.to_numpy(), best.to_numpy())
    return Trial(name, candidate, float(tried.mean()), difference, low, high, len(tried))


Bench = Callable[[Settings, bool], pd.Series]
"""Settings, and whether repeats count → the metric by query_id."""


@contextmanager
def _bench(task: Task, settings: Settings) -> Iterator[Bench]:
    """Measures settings on a task. Trends are learnt once: no candidate changes them."""
    targets = pd.DataFrame(task.targets.select("query_id", "product_id", "is_repeat").toPandas())
    measured: dict[tuple[Settings, bool], pd.Series] = {}
    with learnt_views(task.train, settings) as learnt:

        def measure(tried: Settings, repeats: bool) -> pd.Series:
            if (tried, repeats) not in measured:
                measured[tried, repeats] = _by_query(task, targets, _views_for(tried), tried, repeats)
            return measured[tried, repeats]

        def _views_for(tried: Settings) -> Views:
            if tried.similarity == settings.similarity:
                return learnt
            return replace(learnt, similar_items=learnt_similar_items(task.train, tried.similarity))

        yield measure


def _by_query(task: Task, targets: pd.DataFrame, views: Views, settings: Settings, repeats: bool) -> pd.Series:
    serving = settings.recommendations
    lists = served_lists(task, views, serving, k=DEPTH, repeat=serving.repeat if repeats else "exclude")
    hits = lists.join(task.targets, on=["query_id", "product_id"], how="inner")
    if not repeats:
        hits = hits.where(~F.col("is_repeat"))
        targets = targets[~targets["is_repeat"]]
    found = pd.DataFrame(hits.select("query_id", "product_id", "rank").toPandas())
    counts = targets.groupby("query_id").size()
    return metrics.ranking_metrics(counts, found, DEPTH)[METRIC]
