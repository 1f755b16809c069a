"""How good lists are: metrics of ranked lists and of what they do to a catalogue. Pure pandas, on the driver.

Lists are judged by their hits: one row for each target that a list holds, with its rank from 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

RANKING = ("hr", "mrr", "recall", "precision", "ndcg", "map")
Floats = npt.NDArray[np.float64]


def ranking_metrics(targets: pd.Series, hits: pd.DataFrame, k: int) -> pd.DataFrame:
    """Each query's metrics at `k`, in [0, 1]; the index is that of `targets`.

    `targets` is the number of targets by query_id, at least 1; `hits` has query_id and rank. With T targets and hits
    at the ranks r ≤ k: hr 1 where there is a hit; mrr 1/first r; recall hits/T; precision hits/k; ndcg
    Σ 1/log₂(r+1) by that of a list with min(T, k) hits in front (Järvelin & Kekäläinen, TOIS 20, 2002; binary); map
    Σ hits up to r / r, by T.
    """
    found = hits[hits["rank"] <= k].sort_values(["query_id", "rank"])
    found = found[found["query_id"].isin(targets.index)]
    nth = found.groupby("query_id").cumcount() + 1
    by_query = pd.DataFrame(
        {
            "query_id": found["query_id"],
            "hits": 1.0,
            "mrr": np.where(nth == 1, 1.0 / found["rank"], 0.0),
            "ndcg": 1.0 / np.log2(found["rank"] + 1.0),
            "map": nth / found["rank"],
        }
    )
    sums = by_query.groupby("query_id").sum().reindex(targets.index, fill_value=0.0)
    reachable = targets.clip(upper=k).to_numpy()
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))[reachable - 1]
    return pd.DataFrame(
        {
            "hr": (sums["hits"] > 0).astype(float),
            "mrr": sums["mrr"],
            "recall": sums["hits"] / targets,
            "precision": sums["hits"] / k,
            "ndcg": sums["ndcg"] / ideal,
            "map": sums["map"] / targets,
        },
        index=targets.index,
    )


def mean_difference(ours: Floats, theirs: Floats, *, samples: int = 1000, seed: int = 7) -> tuple[float, float, float]:
    """Mean of the paired differences and its 95 % interval by the percentile bootstrap over queries (Efron, 1979)."""
    difference = ours - theirs
    # A query's weight in a resample is Poisson(1) in the limit: no resample has to be drawn as an index.
    values, counts = np.unique(difference, return_counts=True)
    rng = np.random.default_rng(seed)
    weights = rng.poisson(counts, size=(samples, len(counts)))
    means = weights @ values / np.maximum(weights.sum(axis=1), 1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def catalogue_coverage(recommended: pd.Series, catalogue_size: int) -> float:
    """Share of the catalogue that stands in some list. `recommended`: lists by product."""
    return float((recommended > 0).sum() / catalogue_size)


def gini_index(recommended: pd.Series, catalogue_size: int) -> float:
    """How unequally lists are shared out over the catalogue: 0 all products alike, near 1 all lists the same few."""
    counts = np.zeros(catalogue_size)
    counts[: len(recommended)] = recommended.to_numpy()
    counts.sort()
    place = np.arange(1, catalogue_size + 1)
    return float(((2 * place - catalogue_size - 1) * counts).sum() / (catalogue_size * counts.sum()))


def novelty(recommended: pd.Series, interactions: pd.Series) -> float:
    """Mean of -log₂ of the products' share of all interactions, in bits (Zhou et al., PNAS 107, 2010)."""
    known = interactions.reindex(recommended.index).fillna(0.5)
    information = -np.log2(known / interactions.sum())
    return float((information * recommended).sum() / recommended.sum())
