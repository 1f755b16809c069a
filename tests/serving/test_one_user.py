"""The list of one user, who waits for it: the same as all are written."""

import random

import pytest

from lambda_spark.serving.catalogue import in_demand
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import for_active_users
from lambda_spark.settings import RecommendationSettings
from tests.serving.test_recommendations import PLAIN, SINCE, views


@pytest.mark.parametrize(
    "settings",
    [
        RecommendationSettings(trend_weight=1.0, profile_items=4),
        RecommendationSettings(repeat="own-row", max_per_category=2, k=20),
        RecommendationSettings(repeat="allow", filter="price > 12 and product_id <> 13", deny=(20, 31), k=40),
        RecommendationSettings(max_per_category=3, k=40, allow=tuple(range(20, 45))),
    ],
    ids=["plain", "own-row", "left out", "filled"],
)
def test_one_user_is_given_the_list_that_is_written_for_all(spark, settings):
    dice = random.Random(4)
    events = [
        (user, dice.randint(10, 39), dice.choice(["view", "view", "cart", "purchase"]), dice.randint(1, 90))
        for user in range(1, 8)
        for _ in range(user * 3)
    ]
    similar = [(one, other, 1 / dice.randint(1, 9)) for one in range(10, 40, 2) for other in range(11, 40, 4)]
    products = [
        (one, dice.choice([None, 7, 8]), dice.choice([None, "a", "b"]), "brand", float(one)) for one in range(10, 50)
    ]
    moving = [
        (12, "waning", -0.5, 30, 10, 1),
        *((one, "rising", 0.1 * at, at, 3 * at, at) for at, one in enumerate(range(22, 27), 1)),
    ]
    demand = [(one, dice.randint(1, 5), age) for one in range(10, 50, 2) for age in range(dice.randint(0, 3))]
    world = views(spark, events, similar, products, moving, demand)
    written = for_active_users(world, settings).orderBy("user_id", "rank").collect()
    for user in range(1, 8, 3):
        assert for_user(world, settings, user) == [row for row in written if row.user_id == user]


def test_scores_beyond_all_bounds_are_added_up(spark):
    # A lift that has decayed for years: both products were in few baskets, and that long ago.
    world = views(spark, [(1, 10, "view", 5), (1, 11, "view", 6)], [(10, 70, 2e10), (11, 70, 2e10), (10, 71, 1.0)])
    settings = RecommendationSettings(trend_weight=0.0)
    written = for_active_users(world, settings).orderBy("user_id", "rank").collect()
    assert [row.product_id for row in written] == [70, 71]
    assert for_user(world, settings, 1) == written


def test_a_user_never_seen_gets_what_is_in_demand(spark):
    world = views(spark, [(1, 10, "view", 5)], demand=[(80, 55), (71, 60), (90, 55)])
    rows = for_user(world, RecommendationSettings(), 999)
    assert [(row.user_id, row.product_id, row.score) for row in rows] == [
        (999, 71, None), (999, 80, None), (999, 90, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("demand", "shares"),
    [
        ([(80, 30, 0), (81, 10, 0)], {80: 0.75, 81: 0.25}),
        # Many events say by themselves what is wanted now.
        ([(80, 10, 1), (80, 30, 0), (81, 30, 1), (81, 10, 0)], {80: 0.5441, 81: 0.4058}),
        # A bucket that has only begun says less.
        ([(80, 100, 1), (80, 30, 0), (81, 300, 1), (81, 10, 0)], {80: 0.3237, 81: 0.6293}),
        # Few are averaged: 3 in the newest bucket say less than 2 in each of the two before it.
        (
            [(80, 3, 0), *((81, 2, age) for age in (1, 2)), *((82, 99, age) for age in range(3))],
            {80: 0.0101, 81: 0.0123},
        ),
    ],
)
def test_shares_of_demand_follow_many_events_at_once_and_average_few(spark, demand, shares):
    rows = in_demand(spark.createDataFrame(demand, "product_id long, events long, age int")).collect()
    found = {row.product_id: round(row.share, 4) for row in rows}
    assert {product: found[product] for product in shares} == shares


def test_what_is_in_demand_says_how_much_it_is(spark):
    world = views(spark, [(1, 10, "view", 5)], demand=[(81, 40), (83, 58, 2), (83, 1, 4)])
    rows = for_user(world, RecommendationSettings(**PLAIN), 999)
    assert [row.reason for row in rows if row.product_id == 83] == [f"in demand: 59 interactions {SINCE}"]
