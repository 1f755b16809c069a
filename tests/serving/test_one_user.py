"""Tests that the list computed for one user equals the list that the serving job writes for this user."""

import random
from dataclasses import replace

import pytest
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.serving.catalogue import in_demand
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import for_active_users
from lambda_spark.settings import RecommendationSettings
from tests.serving.test_recommendations import PLAIN, SINCE, views


@pytest.mark.parametrize(
    "settings",
    [
        RecommendationSettings(trend_weight=1.0, profile_items=4),
        RecommendationSettings(repeat="boost", max_per_category=2, list_length=20),
        RecommendationSettings(repeat="boost", repeat_weight=0.0, view_weight=0.0, list_length=40),
        RecommendationSettings(
            repeat="allow", filter="price > 12 and product_id <> 13", deny_products=("20", "31"), list_length=40
        ),
        RecommendationSettings(max_per_category=3, list_length=40, allow_products=tuple(map(str, range(20, 45)))),
    ],
    ids=["plain", "boost", "boost without weight", "left out", "filled"],
)
def test_one_user_gets_the_same_list_as_in_the_table(spark, settings):
    world = a_store(spark)
    written = for_active_users(world, settings).orderBy("user_id", "rank").collect()
    for user in range(1, 8, 3):
        assert for_user(world, settings, user) == [row for row in written if row.user_id == user]


def a_store(spark):
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
    return views(spark, events, similar, products, moving, demand)


def test_one_user_gets_the_same_list_as_in_the_table_where_ids_are_texts(spark):
    world, texts = a_store(spark), lambda name: F.concat(F.reverse(F.col(name).cast("string")), F.lit("A"))
    tables = {name: getattr(world, name) for name in ("events", "products", "similar_items", "trends", "demand")}
    ids = {"user_id", "product_id", "similar_product_id"}
    world = replace(
        world,
        **{
            name: rows.select(*(texts(n).alias(n) if n in ids else n for n in rows.columns))
            for name, rows in tables.items()
        },
    )
    settings = RecommendationSettings(
        repeat="boost", max_per_category=2, list_length=20, deny_products=("02A",), filter="product_id <> '31A'"
    )
    written = for_active_users(world, settings).orderBy("user_id", "rank").collect()
    assert {"02A", "31A"}.isdisjoint(row.product_id for row in written)
    for user in ("1A", "4A", "7A"):
        assert for_user(world, settings, user) == [row for row in written if row.user_id == user] != []


def test_product_ids_in_settings_must_be_whole_numbers_where_the_ids_are(spark):
    with pytest.raises(UsageError, match="deny_products must list whole numbers, as the ids of this lake are, not 'x'"):
        for_user(views(spark, [(1, 10, "view", 5)]), RecommendationSettings(deny_products=("7", "x")), 1)


def test_unbounded_scores_are_summed_without_overflow(spark):
    # A similarity score (lift) can be this large if both products were in few baskets, years ago, and have decayed.
    world = views(spark, [(1, 10, "view", 5), (1, 11, "view", 6)], [(10, 70, 2e10), (11, 70, 2e10), (10, 71, 1.0)])
    settings = RecommendationSettings(trend_weight=0.0)
    written = for_active_users(world, settings).orderBy("user_id", "rank").collect()
    assert [row.product_id for row in written] == [70, 71]
    assert for_user(world, settings, 1) == written


def test_an_unknown_user_gets_the_products_most_in_demand(spark):
    world = views(spark, [(1, 10, "view", 5)], demand=[(80, 55), (71, 60), (90, 55)])
    rows = for_user(world, RecommendationSettings(), 999)
    assert [(row.user_id, row.product_id, row.score) for row in rows] == [
        (999, 71, None), (999, 80, None), (999, 90, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("demand", "shares"),
    [
        ([(80, 30, 0), (81, 10, 0)], {80: 0.75, 81: 0.25}),
        # If the buckets have many events, the newest bucket has the most weight.
        ([(80, 10, 1), (80, 30, 0), (81, 30, 1), (81, 10, 0)], {80: 0.5441, 81: 0.4058}),
        # If the newest bucket has few events because it has only begun, older buckets have more weight.
        ([(80, 100, 1), (80, 30, 0), (81, 300, 1), (81, 10, 0)], {80: 0.3237, 81: 0.6293}),
        # If a product has few events, buckets are averaged. Then 3 events in the newest bucket weigh less than 2 events
        # in each of the two previous buckets.
        (
            [(80, 3, 0), *((81, 2, age) for age in (1, 2)), *((82, 99, age) for age in range(3))],
            {80: 0.0101, 81: 0.0123},
        ),
    ],
)
def test_shares_follow_the_newest_bucket_for_many_events_and_average_few_events(spark, demand, shares):
    rows = in_demand(spark.createDataFrame(demand, "product_id long, events long, age int")).collect()
    found = {row.product_id: round(row.share, 4) for row in rows}
    assert {product: found[product] for product in shares} == shares


def test_the_reason_in_demand_counts_the_interactions(spark):
    world = views(spark, [(1, 10, "view", 5)], demand=[(81, 40), (83, 58, 2), (83, 1, 4)])
    rows = for_user(world, RecommendationSettings(**PLAIN), 999)
    assert [row.reason for row in rows if row.product_id == 83] == [f"in demand: 59 interactions {SINCE}"]
