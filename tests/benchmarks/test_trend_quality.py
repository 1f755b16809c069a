"""Trends are found: measured on a few stores here, on a hundred by the command."""

import numpy as np
import pytest

from lambda_spark.errors import UsageError
from lambda_spark.settings import TrendSettings, load_settings
from tests.benchmarks.planted_demand import PER_WEEK, PlantedDemand, planted_demand, trend_store, true_changes
from tests.benchmarks.trend_quality import (
    BATCH_LAYER,
    METHODS,
    Counts,
    Place,
    bucket_days,
    quality,
    rendered,
    trend_quality,
)


@pytest.fixture(scope="module")
def figures(session):
    return trend_quality(session, [1, 2, 3], TrendSettings(), shifts=[0])


def of_products(figures, direction):
    return {one.method: one for one in figures if (one.of, one.direction) == ("product", direction)}


@pytest.mark.parametrize(("direction", "recall"), [("rising", 95), ("waning", 80)])
def test_planted_trends_are_found_with_few_false_ones_and_better_than_by_any_other_formula(figures, direction, recall):
    by_method = of_products(figures, direction)
    ours = by_method.pop(BATCH_LAYER)
    assert ours.false <= 5
    assert ours.precision >= 95
    assert ours.recall >= recall
    assert all(ours.precision > (one.precision or 0) for one in by_method.values())
    # z by itself finds as much, and is wrong in a third to two thirds of what it calls.
    assert by_method["z of the share alone"].false > 25
    assert all(ours.recall >= one.recall for name, one in by_method.items() if name != "z of the share alone")


def test_categories_and_brands_have_few_false_trends(figures):
    ours = [one for one in figures if one.method == BATCH_LAYER and one.of != "product"]
    false = sum(one.listed * (one.false_of_all or 0) for one in ours) / sum(one.listed for one in ours)
    assert len(ours) == 4
    assert false <= 5


def test_the_figures_are_told_as_tables(figures):
    text = rendered(figures)
    assert text.startswith("product\nmethod ")
    assert text.count(BATCH_LAYER) == 6


def test_trends_are_planted_for_grids_of_weeks(session):
    with pytest.raises(UsageError, match=r"trends\.bucket = '7 days'"):
        trend_quality(session, [1], load_settings(None, ["trends.bucket=1 day"]).trends)


def test_a_store_has_the_same_plants_and_views_for_the_same_seed_and_others_for_another():
    one, again, other = (planted_demand(trend_store(seed)) for seed in (1, 1, 2))
    assert one.planted == again.planted != other.planted
    assert (one.views["product"] == again.views["product"]).all()
    assert {of: len(plants) for of, plants in one.planted.items()} == {
        "product": 2 * PER_WEEK * 6,
        "category": 6,
        "brand": 6,
    }
    assert (one.views["category"].sum(axis=1) == one.traffic).all(), "every product has a category"
    assert one.traffic[24] > 2 * one.traffic[23], "the sale"


def test_a_grid_that_is_shifted_begins_with_a_cut_bucket():
    assert [(days[0], days[-1]) for days in bucket_days(17, 0)] == [(0, 6), (7, 13), (14, 16)]
    assert [(days[0], days[-1]) for days in bucket_days(17, 2)] == [(0, 1), (2, 8), (9, 15), (16, 16)]


def tiny(weights, planted):
    """Two weeks of three products, seven views a day whatever happens."""
    weights = np.array(weights, float)
    return PlantedDemand(
        first_day=np.datetime64("2019-09-30"),
        traffic=np.full(len(weights), 7),
        views={"product": weights.astype(int)},
        weights={"product": weights},
        planted={"product": planted},
    )


def test_what_changed_by_less_than_a_tenth_is_steady():
    demand = tiny([[1.0, 1.0, 1.0]] * 7 + [[1.05, 1.2, 0.8]] * 7, [])
    assert true_changes(demand, "product", range(7), range(7, 14)).tolist() == [0, 1, -1]


def test_figures_of_a_list_are_shares_of_what_is_listed_and_of_what_was_planted():
    demands = {5: tiny([[1.0, 1.0, 1.0]] * 14, [(1, 0, 1), (1, 2, 1)])}
    place = Place(5, "product", 0, 1, 1)
    one = quality("method", "product", 1, {place: [0, 1]}, {place: {0, 2}}, demands, [0])
    assert (one.precision, one.recall, one.false, one.listed, one.buckets, one.stays) == (50, 50, 50, 2, 1, None)


@pytest.mark.parametrize(
    ("method", "scores"),
    [
        ("growth (original)", [0.5, -0.9, 8 / 33]),
        ("difference (UR trending)", [1, -9, 8]),
        ("of differences (UR hot)", [1, -18, 6]),
        ("decayed popularity", [1, 4.5, 28.5]),
        ("Poisson interval (Gnip)", [1 / 2.576, -9 / (2.576 * 3), 8 / (2.576 * 12**0.5)]),
    ],
)
def test_the_other_formulas(method, scores):
    counts = Counts(np.array([1.0, 0.0, 20.0]), np.array([0.0, 9.0, 12.0]), np.array([0.0, 0.0, 10.0]))
    assert METHODS[method](counts)[0].tolist() == pytest.approx(scores)
