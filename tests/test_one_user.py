"""The list of one user, who waits for it: the same as all are written."""

import random

import pytest

from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import for_active_users
from lambda_spark.settings import RecommendationSettings
from tests.test_recommendations import PLAIN, SINCE, views


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


def test_a_user_never_seen_gets_what_is_in_demand_and_what_rises_moves_up(spark):
    world = views(
        spark, [(1, 10, "view", 5)], moving=[(71, "rising", 0.9, 1, 40, 1)], demand=[(80, 60), (71, 55), (90, 55)]
    )
    rows = for_user(world, RecommendationSettings(trend_weight=0.2), 999)
    assert [(row.user_id, row.product_id, row.score) for row in rows] == [
        (999, 71, None), (999, 80, None), (999, 90, None)
    ]  # fmt: skip


def test_demand_weighs_half_after_two_buckets(spark):
    world = views(spark, [(1, 10, "view", 5)], demand=[(80, 60, 2), (81, 40), (82, 29), (83, 58, 2), (83, 1, 4)])
    rows = for_user(world, RecommendationSettings(**PLAIN), 999)
    assert [row.product_id for row in rows] == [81, 80, 83, 82]
    assert rows[2].reason == f"in demand: 59 interactions {SINCE}"
