"""Tests of recommendation metrics with literal examples, for which RecTools 0.19.0 gives the same figures."""

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
# The list of query 1 has the three targets at ranks 1, 3 and 6. The list of query 3 has no target.
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
def test_ranking_metrics_equal_those_of_a_public_implementation(k, expected):
    assert ranking_metrics(T, HITS, k).mean().to_dict() == pytest.approx(expected, abs=1e-6)


def test_a_hit_of_another_slice_does_not_count():
    first_query = T[T.index == 1]
    assert ranking_metrics(first_query, HITS, 5)["hr"].tolist() == [1.0]


def test_gini_is_0_for_equally_frequent_products_and_near_1_for_one_product():
    assert gini_index(pd.Series([3, 3, 3, 3]), 4) == 0
    assert gini_index(pd.Series([12]), 4) == pytest.approx(0.75)


def test_coverage_counts_products_that_are_in_a_list():
    assert catalogue_coverage(pd.Series([5, 1]), 8) == 0.25


def test_novelty_is_the_mean_surprise_of_recommended_products_in_bits():
    interactions = pd.Series({1: 4, 2: 2, 3: 2})
    assert novelty(pd.Series({1: 1, 2: 1}), interactions) == pytest.approx((1 + 2) / 2)


def test_the_interval_covers_the_difference_and_excludes_zero_when_the_difference_is_sure():
    worse, better = np.zeros(400), np.tile([0.0, 1.0], 200)
    mean, low, high = mean_difference(better, worse)
    assert mean == 0.5
    assert 0.40 < low < 0.5 < high < 0.60
    assert mean_difference(better, better) == (0.0, 0.0, 0.0)
