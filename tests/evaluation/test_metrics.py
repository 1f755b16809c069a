"""The metrics of recommendations, by literal examples; the figures are those of RecTools 0.19.0 for the same lists."""

import numpy as np
import pandas as pd
import pytest

from lambda_spark.evaluation.metrics import (
    catalogue_coverage,
    gini_index,
    mean_difference,
    novelty,
    ranking_metrics,
)

TARGETS = pd.DataFrame([(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (4, 40)], columns=["query_id", "product_id"])
# Query 1 finds two of its three targets in front, and the last at rank 6; query 3 finds nothing.
HITS = pd.DataFrame([(1, 1), (1, 3), (1, 6), (2, 2), (4, 5)], columns=["query_id", "rank"])
T = TARGETS.groupby("query_id").size()


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (2, {"hr": 0.5, "mrr": 0.375, "recall": 0.333333, "precision": 0.25, "ndcg": 0.311019, "map": 0.208333}),
        (5, {"hr": 0.75, "mrr": 0.425, "recall": 0.666667, "precision": 0.2, "ndcg": 0.430425, "map": 0.313889}),
        (10, {"hr": 0.75, "mrr": 0.425, "recall": 0.75, "precision": 0.125, "ndcg": 0.472215, "map": 0.355556}),
    ],
)
def test_ranked_lists_are_judged_as_a_public_implementation_does(k, expected):
    assert ranking_metrics(T, HITS, k).mean().to_dict() == pytest.approx(expected, abs=1e-6)


def test_a_hit_of_another_slice_does_not_count():
    only_first = T[T.index == 1]
    assert ranking_metrics(only_first, HITS, 5)["hr"].tolist() == [1.0]


def test_lists_shared_out_alike_have_no_gini_and_all_the_same_nearly_one():
    assert gini_index(pd.Series([3, 3, 3, 3]), 4) == 0
    assert gini_index(pd.Series([12]), 4) == pytest.approx(0.75)


def test_coverage_counts_what_stands_in_some_list():
    assert catalogue_coverage(pd.Series([5, 1]), 8) == 0.25


def test_novelty_is_the_surprise_of_what_is_recommended_in_bits():
    interactions = pd.Series({1: 4, 2: 2, 3: 2})
    assert novelty(pd.Series({1: 1, 2: 1}), interactions) == pytest.approx((1 + 2) / 2)


def test_an_interval_covers_the_difference_and_excludes_zero_when_it_is_sure():
    worse, better = np.zeros(400), np.tile([0.0, 1.0], 200)
    mean, low, high = mean_difference(better, worse)
    assert mean == 0.5
    assert 0.40 < low < 0.5 < high < 0.60
    assert mean_difference(better, better) == (0.0, 0.0, 0.0)
