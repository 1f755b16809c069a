"""Tests, on small examples, of the speed layer's baskets, co-interaction counts and similarity scores."""

import math
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from lambda_spark.settings import SimilaritySettings
from lambda_spark.speed.baskets import basket_items
from lambda_spark.speed.co_interactions import (
    all_contributions,
    basket_changes,
    changed_contributions,
    known_items,
    new_items,
)
from lambda_spark.speed.scores import WEIGHT_ONE, date_weight, score, similar_items

DAY = date(2019, 11, 4)
NOON = datetime(2019, 11, 4, 12)
EVENTS = "event_date date, event_time timestamp, event_type string, product_id long, user_id long, user_session string"
ITEMS = "event_date date, relation string, user_id long, user_session string, product_id long, first_time timestamp"
COUNTS = "event_date date, relation string, item_a long, item_b long, baskets long, strength long"


def basket(*products, user=1, session="s", minutes=None):
    minutes = minutes or range(len(products))
    return [
        (DAY, "viewed", user, session, product, NOON + timedelta(minutes=at))
        for product, at in zip(products, minutes, strict=True)
    ]


def counts_of(spark, items, window=5):
    rows = all_contributions(spark.createDataFrame(items, ITEMS), window=window).collect()
    return {(row.item_a, row.item_b): (row.baskets, row.strength) for row in rows}


def test_strength_falls_with_the_steps_between_two_items(spark):
    assert counts_of(spark, basket(5, 3, 9), window=2) == {
        (0, 0): (1, 0),
        (3, 3): (1, 0),
        (5, 5): (1, 0),
        (9, 9): (1, 0),
        (3, 5): (1, 60),
        (3, 9): (1, 60),
        (5, 9): (1, 30),
    }


def test_items_beyond_the_window_do_not_co_interact(spark):
    pairs = counts_of(spark, basket(1, 2, 3, 4), window=2)
    assert (1, 4) not in pairs
    assert pairs[(1, 3)] == (1, 30)


@pytest.mark.parametrize(("window", "strength"), [(1, 60), (2, 30), (3, 20), (4, 15), (5, 12), (6, 10)])
def test_the_strength_at_every_distance_is_a_whole_number(spark, window, strength):
    assert counts_of(spark, basket(*range(1, 8)), window=window)[(1, 1 + window)] == (1, strength)


def test_a_basket_of_one_item_counts_the_basket_and_the_item(spark):
    assert counts_of(spark, basket(7)) == {(0, 0): (1, 0), (7, 7): (1, 0)}


def test_equal_times_are_ordered_by_product(spark):
    assert counts_of(spark, basket(9, 1, 5, minutes=[0, 0, 0]), window=1).keys() == {
        (0, 0),
        (1, 1),
        (5, 5),
        (9, 9),
        (1, 5),
        (5, 9),
    }


def test_counts_of_several_baskets_add_up(spark):
    pairs = counts_of(spark, basket(1, 2) + basket(2, 8, 1, session="t") + basket(1, 2, user=2), window=5)
    assert pairs[(0, 0)] == (3, 0)
    assert pairs[(1, 2)] == (3, 150)


def test_the_pairs_of_a_long_basket_grow_linearly(spark):
    pairs = counts_of(spark, basket(*range(1, 2001)), window=5)
    assert len(pairs) == 1 + 2000 + sum(2000 - steps for steps in range(1, 6))


def test_baskets_hold_distinct_items_of_a_session_and_purchases_of_a_day(spark):
    events = [
        (DAY, NOON, "view", 7, 1, "s"),
        (DAY, NOON - timedelta(hours=1), "cart", 7, 1, "s"),
        (DAY, NOON, "remove_from_cart", 8, 1, "s"),
        (DAY, NOON, "purchase", 7, 1, "s"),
        (DAY, NOON, "purchase", 9, 1, None),
    ]
    items = basket_items(spark.createDataFrame(events, EVENTS)).collect()
    assert {(row.relation, row.user_session, row.product_id, row.first_time) for row in items} == {
        ("viewed", "s", 7, NOON - timedelta(hours=1)),
        ("viewed", "", 9, NOON),
        ("bought", "", 7, NOON),
        ("bought", "", 9, NOON),
    }
    assert len(items) == 4


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (basket(1, 2), basket(3, minutes=[5])),
        (basket(1, 2, minutes=[0, 9]), basket(3, minutes=[5])),
        (basket(1, 2, minutes=[4, 9]), basket(2, minutes=[1])),
        (basket(1, 2), basket(1, 2)),
        ([], basket(1, 2)),
        (basket(1, 2), basket(1, 2, session="t")),
    ],
    ids=["after", "between", "earlier", "repeat", "first", "another basket"],
)
def test_counts_before_plus_the_change_equal_the_counts_after(spark, known, new):
    known_rows, new_rows = spark.createDataFrame(known, ITEMS), spark.createDataFrame(new, ITEMS)
    changes = basket_changes(known_rows, new_rows)
    delta = {(r.item_a, r.item_b): (r.baskets, r.strength) for r in changed_contributions(changes, window=2).collect()}
    stored = known_items(known_rows.unionByName(new_items(changes))).select(*known_rows.columns).collect()
    before, after = counts_of(spark, known, 2), counts_of(spark, [tuple(row) for row in stored], 2)
    summed = {
        pair: tuple(a + b for a, b in zip(before.get(pair, (0, 0)), delta.get(pair, (0, 0)), strict=True))
        for pair in {*before, *delta}
    }
    assert {pair: count for pair, count in summed.items() if count != (0, 0)} == after
    assert all(count != (0, 0) for count in delta.values())


def test_a_repeated_item_is_not_stored_again(spark):
    rows = spark.createDataFrame(basket(1, 2), ITEMS)
    assert new_items(basket_changes(rows, rows)).count() == 0


C, N_I, N_J, N, BOTH = 90, 4, 9, 100, 3


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("confidence", 1.5 / 4),
        ("cosine", 1.5 / 6),
        ("jaccard", 1.5 / (4 + 9 - 1.5)),
        ("lift", 100 * 1.5 / (4 * 9)),
        (
            "llr",
            2 * sum(k * math.log(k * 100 / (r * c)) for k, r, c in ((3, 4, 9), (1, 4, 91), (6, 96, 9), (90, 96, 91))),
        ),
    ],
)
def test_the_scores_follow_their_formulas(spark, measure, expected):
    arguments = [F.lit(value * WEIGHT_ONE).cast("bigint") for value in (C, N_I, N_J, N, BOTH)]
    assert spark.range(1).select(score(measure, *arguments)).collect()[0][0] == pytest.approx(expected, rel=1e-12)


def test_llr_is_0_where_a_pair_is_not_above_chance(spark):
    arguments = [F.lit(value * WEIGHT_ONE).cast("bigint") for value in (60, 50, 50, 100, 25)]
    assert spark.range(1).select(score("llr", *arguments)).collect()[0][0] == 0.0


def test_the_weight_of_a_date_halves_with_each_half_life(spark):
    dates = spark.createDataFrame([(DAY,), (DAY - timedelta(days=10),), (DAY - timedelta(days=25),)], "d date")
    weights = [row[0] for row in dates.select(date_weight(F.col("d"), DAY, 10.0)).collect()]
    assert weights == [2**20, 2**19, round(2**20 * 2**-2.5)]
    assert {row[0] for row in dates.select(date_weight(F.col("d"), DAY, 0)).collect()} == {2**20}


def neighbours(spark, counts, **settings):
    rows = similar_items(spark.createDataFrame(counts, COUNTS), SimilaritySettings(**settings), newest=DAY).collect()
    return {(row.product_id, row.rank): (row.similar_product_id, row.score, row.baskets, row.strength) for row in rows}


STORE = [
    (DAY, "viewed", 0, 0, 10, 0),
    (DAY, "viewed", 1, 1, 4, 0),
    (DAY, "viewed", 2, 2, 2, 0),
    (DAY, "viewed", 3, 3, 2, 0),
]


def test_neighbours_are_ranked_by_score_then_product(spark):
    pairs = [(DAY, "viewed", 1, 2, 2, 120), (DAY, "viewed", 1, 3, 2, 120)]
    assert neighbours(spark, STORE + pairs) == {
        (1, 1): (2, 0.5, 2, 120),
        (1, 2): (3, 0.5, 2, 120),
        (2, 1): (1, 1.0, 2, 120),
        (3, 1): (1, 1.0, 2, 120),
    }


def test_only_max_neighbours_with_min_baskets_are_kept(spark):
    pairs = [(DAY, "viewed", 1, 2, 2, 120), (DAY, "viewed", 1, 3, 1, 60)]
    assert set(neighbours(spark, STORE + pairs, max_neighbours=1)) == {(1, 1), (2, 1), (3, 1)}
    assert set(neighbours(spark, STORE + pairs, min_baskets=2)) == {(1, 1), (2, 1)}


def test_decay_changes_scores_but_not_the_counts_of_baskets(spark):
    old = DAY - timedelta(days=30)
    counts = [
        (DAY, "viewed", 0, 0, 1, 0),
        (DAY, "viewed", 1, 1, 1, 0),
        (old, "viewed", 0, 0, 1, 0),
        (old, "viewed", 1, 1, 1, 0),
    ]
    counts += [(old, "viewed", 2, 2, 1, 0), (old, "viewed", 1, 2, 1, 60)]
    assert neighbours(spark, counts, half_life_days=30) == {
        (1, 1): (2, pytest.approx(0.5 / 1.5), 1, 60),
        (2, 1): (1, 1.0, 1, 60),
    }


def test_a_pair_whose_baskets_were_deleted_is_no_neighbour(spark):
    deleted = [(DAY, "viewed", 1, 2, 1, 60), (DAY, "viewed", 1, 2, -1, -60)]
    assert neighbours(spark, STORE + deleted) == {}
