"""Tests that the batch layer finds the trends built into three stores, and of the study that measures this.

The study also measures other methods of finding trends, and their formulas are tested too. The command
`./spark-submit.sh benchmark trends` measures more stores.
"""

import numpy as np
import pytest

from lambda_spark.errors import UsageError
from lambda_spark.settings import TrendSettings, load_settings
from tests.benchmarks.planted_demand import PRODUCTS_PER_WEEK, PlantedDemand, planted_demand, trend_store, true_changes
from tests.benchmarks.trend_quality import (
    BATCH_LAYER,
    METHODS,
    Counts,
    ListId,
    bucket_days,
    quality,
    quality_tables,
    trend_quality,
)


@pytest.fixture(scope="module")
def figures(session):
    return trend_quality(session, [1, 2, 3], TrendSettings(), shifts=[0])


def of_products(figures, direction):
    return {each.method: each for each in figures if (each.key_type, each.direction) == ("product", direction)}


@pytest.mark.parametrize(("direction", "recall"), [("rising", 95), ("waning", 80)])
def test_the_batch_layer_finds_planted_trends_with_few_false_ones_and_beats_all_other_methods(
    figures, direction, recall
):
    by_method = of_products(figures, direction)
    ours = by_method.pop(BATCH_LAYER)
    assert ours.false_discovery_rate <= 5
    assert ours.precision >= 95
    assert ours.recall >= recall
    assert all(ours.precision > (other.precision or 0) for other in by_method.values())
    # A threshold on the z-score alone finds as many true trends. But a third to two thirds of its reports are false.
    assert by_method["z of the share alone"].false_discovery_rate > 25
    assert all(ours.recall >= other.recall for name, other in by_method.items() if name != "z of the share alone")


def test_categories_and_brands_have_few_false_trends(figures):
    ours = [each for each in figures if each.method == BATCH_LAYER and each.key_type != "product"]
    false = sum(each.listed * (each.false_of_all or 0) for each in ours) / sum(each.listed for each in ours)
    assert len(ours) == 4
    assert false <= 5


def test_the_figures_are_printed_as_tables(figures):
    text = quality_tables(figures)
    assert text.startswith("product\nmethod ")
    assert text.count(BATCH_LAYER) == 6


def test_buckets_other_than_weeks_are_refused(session):
    with pytest.raises(UsageError, match=r"trends\.bucket = '7 days'"):
        trend_quality(session, [1], load_settings(None, ["trends.bucket=1 day"]).trends)


def test_the_same_seed_gives_the_same_trends_and_views_and_another_seed_gives_others():
    first, again, other = (planted_demand(trend_store(seed)) for seed in (1, 1, 2))
    assert first.planted == again.planted != other.planted
    assert (first.views["product"] == again.views["product"]).all()
    assert {of: len(plants) for of, plants in first.planted.items()} == {
        "product": 2 * PRODUCTS_PER_WEEK * 6,
        "category": 6,
        "brand": 6,
    }
    assert (first.views["category"].sum(axis=1) == first.traffic).all(), "a product has no category"
    assert first.traffic[24] > 2 * first.traffic[23], "the day of the sale has too few views"


def test_a_shifted_grid_begins_with_a_shorter_bucket():
    assert [(days[0], days[-1]) for days in bucket_days(17, 0)] == [(0, 6), (7, 13), (14, 16)]
    assert [(days[0], days[-1]) for days in bucket_days(17, 2)] == [(0, 1), (2, 8), (9, 15), (16, 16)]


def tiny(weights, planted):
    """Return the demand of a store with three products and seven views a day. `weights` has one row for each day."""
    weights = np.array(weights, float)
    return PlantedDemand(
        first_day=np.datetime64("2019-09-30"),
        traffic=np.full(len(weights), 7),
        views={"product": weights.astype(int)},
        weights={"product": weights},
        planted={"product": planted},
    )


def test_a_key_whose_weight_changes_by_less_than_a_tenth_is_steady():
    demand = tiny([[1.0, 1.0, 1.0]] * 7 + [[1.05, 1.2, 0.8]] * 7, [])
    assert true_changes(demand, "product", range(7), range(7, 14)).tolist() == [0, 1, -1]


def test_figures_are_percents_of_the_listed_keys_and_of_the_planted_trends():
    demands = {5: tiny([[1.0, 1.0, 1.0]] * 14, [(1, 0, 1), (1, 2, 1)])}
    list_id = ListId(5, "product", 0, 1, 1)
    figures = quality("method", "product", 1, {list_id: [0, 1]}, {list_id: {0, 2}}, demands, [0])
    assert (figures.precision, figures.recall, figures.false_discovery_rate) == (50, 50, 50)
    assert (figures.listed, figures.delay, figures.overlap) == (2, 1, None)


@pytest.mark.parametrize(
    ("method", "scores"),
    [
        ("growth (original)", [0.5, -0.9, 8 / 33]),
        ("difference (UR trending)", [1, -9, 8]),
        ("difference of differences (UR hot)", [1, -18, 6]),
        ("decayed popularity", [1, 4.5, 28.5]),
        ("Poisson interval (Gnip)", [1 / 2.576, -9 / (2.576 * 3), 8 / (2.576 * 12**0.5)]),
    ],
)
def test_the_other_methods_follow_their_formulas(method, scores):
    counts = Counts(np.array([1.0, 0.0, 20.0]), np.array([0.0, 9.0, 12.0]), np.array([0.0, 0.0, 10.0]))
    assert METHODS[method](counts)[0].tolist() == pytest.approx(scores)
