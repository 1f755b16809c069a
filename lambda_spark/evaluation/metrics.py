"""Metrics that judge ranked lists of recommendations, computed with pandas on the driver.

Most metrics count hits. A hit is a target that the list holds. The first place of a list has rank 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

RANKING = ("hr", "mrr", "recall", "precision", "ndcg", "map")
Floats = npt.NDArray[np.float64]


def ranking_metrics(targets: pd.Series, hits: pd.DataFrame, k: int) -> pd.DataFrame:
    """Compute the ranking metrics of each query over the first k places of its list.

    T is the number of targets of a query, and r ≤ k are the ranks of its hits:

    - hr: 1 where there is a hit, else 0.
    - mrr: 1/r of the first hit, 0 without a hit.
    - recall: number of hits / T.
    - precision: number of hits / k.
    - ndcg: Σ 1/log₂(r+1), divided by the same sum for a list that begins with min(T, k) hits.
    - map: Σ (number of hits up to rank r) / r, divided by T.

    Args:
        targets: Number of targets (at least 1) by query_id.
        hits: query_id and rank. Hits of queries that are not in `targets` do not count.
        k: Number of places at the top of a list that count.

    Returns:
        One row per query_id of `targets`, with a column for each metric, in [0, 1].

    Source:
        ndcg: Järvelin & Kekäläinen, TOIS 20, 2002, with binary relevance.
    """
    hits_at_k = hits[hits["rank"] <= k].sort_values(["query_id", "rank"])
    hits_at_k = hits_at_k[hits_at_k["query_id"].isin(targets.index)]
    nth = hits_at_k.groupby("query_id").cumcount() + 1
    by_query = pd.DataFrame(
        {
            "query_id": hits_at_k["query_id"],
            "hits": 1.0,
            "mrr": np.where(nth == 1, 1.0 / hits_at_k["rank"], 0.0),
            "ndcg": 1.0 / np.log2(hits_at_k["rank"] + 1.0),
            "map": nth / hits_at_k["rank"],
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


def mean_difference(
    values: Floats, reference: Floats, *, samples: int = 1000, seed: int = 7
) -> tuple[float, float, float]:
    """Estimate by how much a metric differs between two methods.

    Args:
        values: The metric of one method, by query.
        reference: The metric of the other method for the same queries, in the same order.
        samples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        Mean of `values - reference`, and the lower and the upper end of its 95 % interval.

    Source:
        Percentile bootstrap over queries, Efron, 1979.
    """
    difference = values - reference
    # Draw how often each query occurs in a resample. With many queries, this number follows Poisson(1).
    distinct, counts = np.unique(difference, return_counts=True)
    rng = np.random.default_rng(seed)
    weights = rng.poisson(counts, size=(samples, len(counts)))
    means = weights @ distinct / np.maximum(weights.sum(axis=1), 1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def catalogue_coverage(recommended: pd.Series, catalogue_size: int) -> float:
    """Compute the share of the catalogue that is in at least one list.

    Args:
        recommended: Number of lists that hold a product, by product.
        catalogue_size: Number of products in the catalogue.

    Returns:
        A share in [0, 1].
    """
    return float((recommended > 0).sum() / catalogue_size)


def gini_index(recommended: pd.Series, catalogue_size: int) -> float:
    """Compute how unequally the places in lists are distributed over the catalogue.

    Args:
        recommended: Number of lists that hold a product, by product.
        catalogue_size: Number of products in the catalogue.

    Returns:
        The Gini index: 0 where all products are recommended equally often, near 1 where all lists hold the same few.
    """
    counts = np.zeros(catalogue_size)
    counts[: len(recommended)] = recommended.to_numpy()
    counts.sort()
    place = np.arange(1, catalogue_size + 1)
    return float(((2 * place - catalogue_size - 1) * counts).sum() / (catalogue_size * counts.sum()))


def novelty(recommended: pd.Series, interactions: pd.Series) -> float:
    """Compute the mean surprise of the recommended products.

    The surprise of a product is -log₂ of its share of all interactions. A product without interactions counts as one
    with half an interaction.

    Args:
        recommended: Number of lists that hold a product, by product.
        interactions: Number of interactions, by product.

    Returns:
        The mean over all places of all lists, in bits.

    Source:
        Zhou et al., PNAS 107, 2010.
    """
    counts = interactions.reindex(recommended.index).fillna(0.5)
    information = -np.log2(counts / interactions.sum())
    return float((information * recommended).sum() / recommended.sum())
