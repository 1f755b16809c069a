"""Tests, with small examples, that recommendation lists of the serving layer follow their definitions."""

from datetime import datetime, timedelta

import pytest
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.serving.catalogue import eligible_products
from lambda_spark.serving.inputs import Views, bucket_words, newest_views
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.profiles import profiles
from lambda_spark.serving.refresh import for_active_users
from lambda_spark.settings import RecommendationSettings

NOV_10 = datetime(2019, 11, 10, 12)
WHEN = "in the week from 2019-11-04"
SINCE = "since 2019-09-23"
PLAIN = {"trend_weight": 0.0, "profile_decay": 0.5}


def views(spark, events, similar=(), products=None, moving=(), demand=()):
    touched = [
        (user, product, kind, NOV_10 - timedelta(minutes=ago), (NOV_10 - timedelta(minutes=ago)).date())
        for user, product, kind, ago in events
    ]
    ids = (
        {product for _, product, _, _ in events}
        | {item for pair in similar for item in pair[:2]}
        | {m[0] for m in moving}
        | {d[0] for d in demand}
    )
    products = products or [(product, None, f"c.{product // 10}", "brand", 1.0) for product in sorted(ids)]
    pairs = [("viewed", one, other, score) for one, other, score in similar]
    trends = [
        ("view", product, direction, growth, now, before, rank)
        for product, direction, growth, before, now, rank in moving
    ]
    return Views(
        versions={"events": 4, "products": 3, "similar_items": 2, "trends": 1, "demand": 1},
        events=spark.createDataFrame(
            touched, "user_id long, product_id long, event_type string, event_time timestamp, event_date date"
        ),
        newest_date=max((row[-1] for row in touched), default=None),
        products=spark.createDataFrame(
            products, "product_id long, category_id long, category_code string, brand string, price double"
        ).withColumn("price", F.col("price").cast("decimal(12,2)")),
        similar_items=spark.createDataFrame(
            pairs, "relation string, product_id long, similar_product_id long, score double"
        ),
        trends=spark.createDataFrame(
            trends,
            "signal string, product_id long, direction string, growth double, current long, previous long, rank int",
        ),
        demand=spark.createDataFrame(
            [(product, count, *(age or [0])) for product, count, *age in demand],
            "product_id long, events long, age int",
        ),
        bucket_length="10080 minutes",
        bucket=F.lit(None),
        when=WHEN,
        since=SINCE,
    )


def lists(rows):
    """Return {user: [(product, score), …]} in rank order, and check the ranks."""
    result = {}
    for row in rows.orderBy("user_id", "rank").collect():
        result.setdefault(row.user_id, []).append((row.product_id, row.score))
        assert row["rank"] == len(result[row.user_id])
    return result


def test_a_score_sums_weight_times_similarity_over_the_profile(spark):
    world = views(spark, [(1, 10, "view", 5), (1, 20, "view", 9)], [(10, 30, 0.4), (20, 30, 0.2), (20, 40, 0.9)])
    assert lists(for_active_users(world, RecommendationSettings(**PLAIN))) == {
        1: [(30, pytest.approx(0.4 + 0.5 * 0.2)), (40, pytest.approx(0.5 * 0.9))]
    }


def test_an_item_weighs_as_its_strongest_event_type(spark):
    world = views(spark, [(1, 10, "cart", 60), (1, 10, "view", 5)], [(10, 30, 0.4)])
    settings = RecommendationSettings(**PLAIN, cart_weight=2.0)
    row = for_active_users(world, settings).collect()[0]
    assert (row.score, row.reason, row.because_of) == (0.8, "because you put into the cart 10", 10)


def test_the_reason_names_the_top_contributor(spark):
    world = views(spark, [(1, 10, "view", 5), (1, 20, "purchase", 9)], [(10, 30, 0.1), (20, 30, 0.3)])
    row = for_active_users(world, RecommendationSettings(**PLAIN)).collect()[0]
    assert (row.product_id, row.reason, row.because_of) == (30, "because you bought 20", 20)


def test_a_rising_product_moves_up_and_its_reason_says_so(spark):
    world = views(
        spark,
        [(1, 10, "view", 5)],
        [(10, 30, 0.40), (10, 40, 0.41), (10, 50, 0.5)],
        moving=[(30, "rising", 0.5, 10, 31, 1), (50, "waning", -0.5, 31, 10, 1)],
    )
    rows = for_active_users(world, RecommendationSettings(trend_weight=0.2)).orderBy("rank").collect()
    assert [(row.product_id, row.score, row.trend_growth) for row in rows] == [
        (50, pytest.approx(0.5 * 0.9), -0.5),
        (30, pytest.approx(0.4 * 1.1), 0.5),
        (40, pytest.approx(0.41), 0.0),
    ]
    assert [row.reason for row in rows] == [
        "because you viewed 10",
        f"because you viewed 10; rising: 10 → 31 views {WHEN}",
        "because you viewed 10",
    ]


def test_a_reason_follows_the_trends_direction_not_its_counts(spark):
    """In a growing store, a product can gain views but lose share. In a shrinking store, the reverse can happen."""
    world = views(
        spark,
        [(1, 10, "view", 5)],
        [(10, 30, 0.4), (10, 50, 0.5)],
        moving=[(30, "rising", -0.1, 44, 36, 1), (50, "waning", 0.1, 36, 44, 1)],
    )
    rows = for_active_users(world, RecommendationSettings(**PLAIN)).orderBy("rank").collect()
    assert [(row.product_id, row.reason) for row in rows] == [
        (50, "because you viewed 10"),
        (30, f"because you viewed 10; rising in share: 44 → 36 views {WHEN}"),
    ]


PAIRS = [(10, 20, 0.5), (20, 10, 0.4), (10, 30, 0.3), (20, 30, 0.1)]


@pytest.mark.parametrize(
    ("repeat", "expected"),
    [
        ("exclude", [(30, 0.35)]),
        ("allow", [(20, 0.5), (30, 0.35), (10, 0.2)]),
        ("boost", [(10, 2 + 0.2), (20, 1 + 0.5), (30, 0.35)]),
    ],
)
def test_the_setting_repeat_excludes_allows_or_boosts_profile_items(spark, repeat, expected):
    world = views(spark, [(1, 10, "view", 5), (1, 20, "view", 9)], PAIRS)
    rows = for_active_users(world, RecommendationSettings(**PLAIN, repeat=repeat, repeat_weight=2.0))
    rows = rows.orderBy("rank").collect()
    assert [(row.product_id, row.score) for row in rows] == [(one, pytest.approx(score)) for one, score in expected]
    own = {row.product_id for row in rows if row.reason == "still interested?"}
    assert own == ({10, 20} if repeat == "boost" else set())


@pytest.mark.parametrize("repeat", ["allow", "boost"])
@pytest.mark.parametrize("profile_items", [1, 5])
def test_a_bought_product_is_never_recommended(spark, repeat, profile_items):
    # The user bought product 10 long ago. The user's profile holds only one newer product. Product 10 must still not be
    # recommended.
    world = views(
        spark, [(1, 20, "view", 5), (1, 10, "purchase", 90)], [(20, 10, 0.9), (20, 30, 0.1)], demand=[(10, 99)]
    )
    settings = RecommendationSettings(**PLAIN, profile_items=profile_items, repeat=repeat)
    assert 10 not in {row.product_id for row in for_active_users(world, settings).collect()}


@pytest.mark.parametrize(
    ("setting", "products"),
    [
        ({"deny_products": ("30",)}, {10, 40}),
        ({"allow_products": ("40", "50")}, {40}),
        ({"filter": "category_code = 'c.3'"}, {30}),
    ],
)
def test_settings_restrict_the_eligible_products(spark, setting, products):
    catalogue = spark.createDataFrame([(10, "c.1"), (30, "c.3"), (40, "c.4")], "product_id long, category_code string")
    left = eligible_products(catalogue, RecommendationSettings(**setting)).collect()
    assert {row.product_id for row in left} == products


def test_a_denied_product_is_in_no_list(spark):
    world = views(spark, [(1, 10, "view", 5)], [(10, 30, 0.5), (10, 40, 0.4)], demand=[(30, 9), (50, 8)])
    rows = for_active_users(world, RecommendationSettings(**PLAIN, deny_products=("30",))).orderBy("rank").collect()
    assert [row.product_id for row in rows] == [40, 50]


@pytest.mark.parametrize(
    "predicate",
    [
        "price > 5",
        "price between 1 and 10 and brand is not null",
        "brand in ('acme', 'brand') or lower(category_code) like 'c.%'",
        "not (product_id % 2 = 1) and coalesce(brand, '') <> 'x'",
        "case when price > 1 then true else false end",
        "cast(product_id as string) rlike '^[0-9]+$'",
        "last_seen >= date '2019-01-01' - interval 30 days",
        "-price < 0 and substring(brand, 1, 2) || 'x' = 'brx'",
        "brand <> 'nowhere' and last_seen > '2019-10-01'",
        "exists(array(1, 2), x -> x > product_id) or sqrt(price) > 2",
    ],
)
def test_a_filter_may_be_any_condition_on_the_columns_of_products(spark, predicate):
    catalogue = spark.sql(
        "select 10L product_id, 'c.1' category_code, 'brand' brand, cast(6 as decimal(12,2)) price, "
        "timestamp '2019-11-01 00:00:00' last_seen"
    )
    assert eligible_products(catalogue, RecommendationSettings(filter=predicate)).count() == 1


@pytest.mark.parametrize(
    "predicate",
    [
        "prize > 5",
        "price >",
        "1; drop table products",
        "product_id in (select product_id from other)",
        "exists (select 1 from delta.`/etc`)",
        "price > (select max(price) from csv.`/etc/passwd`)",
        "reflect('java.lang.System', 'getProperty', 'user.home') is not null",
        "java_method('java.lang.Runtime', 'getRuntime') is not null",
        "try_reflect('java.lang.System', 'getProperty', 'user.home') is not null",
        "input_file_name() like '%a%'",
        "_metadata.file_path is not null",
        "current_user() = 'root'",
        "current_date() > date '2019-01-01'",
        "current_date > date '2019-01-01'",
        "rand() < 0.5",
        "uuid() > 'a'",
        "count(*) > 1",
        "row_number() over (order by price) = 1",
        "price > :limit",
        "system.builtin.rand() < 1",
        "brand = '${env:HOME}'",
        "${spark:spark.app.name} is null",
        "last_seen > now() - interval 1 day",
        "last_seen > localtimestamp()",
        "last_seen > date 'today'",
        "last_seen > timestamp'Now'",
        "last_seen > 'yesterday'",
        "id = 3",
    ],
)
def test_a_filter_is_refused_unless_it_is_a_condition_on_the_product_alone(spark, predicate):
    spark.sql("select 10L product_id").createOrReplaceTempView("other")
    world = views(spark, [(1, 10, "view", 5)], [(10, 30, 0.5)])
    with pytest.raises(UsageError, match=r"recommendations\.filter"):
        for_active_users(world, RecommendationSettings(filter=predicate))


def test_a_denied_product_is_not_boosted(spark):
    world = views(spark, [(1, 10, "view", 5)], [(10, 30, 0.5)])
    rows = for_active_users(world, RecommendationSettings(**PLAIN, deny_products=("10",), repeat="boost")).collect()
    assert [row.product_id for row in rows] == [30]


def test_max_per_category_limits_a_list(spark):
    similar = [(10, 31, 0.9), (10, 32, 0.8), (10, 33, 0.7), (10, 41, 0.1)]
    world = views(spark, [(1, 10, "view", 5)], similar, demand=[(34, 50), (42, 40), (43, 30)])
    settings = RecommendationSettings(**PLAIN, max_per_category=2)
    assert [product for product, _ in lists(for_active_users(world, settings))[1]] == [31, 32, 41, 42]


def test_max_per_category_counts_scored_products_and_fills_together(spark):
    demand = [(22, 50), (11, 40), (12, 30), (30, 20), (31, 10)]
    world = views(spark, [(1, 10, "view", 5)], [(10, 20, 0.5), (10, 21, 0.4)], demand=demand)
    rows = for_active_users(world, RecommendationSettings(**PLAIN, max_per_category=1))
    assert lists(rows) == {1: [(20, 0.5), (11, None), (30, None)]}


def test_products_without_a_category_are_not_limited(spark):
    catalogue = [(10, None, "c.1", "b", 1.0), *((product, None, None, "b", 1.0) for product in (31, 32, 33))]
    world = views(spark, [(1, 10, "view", 5)], [(10, 31, 0.9), (10, 32, 0.8), (10, 33, 0.7)], catalogue)
    assert len(lists(for_active_users(world, RecommendationSettings(**PLAIN, max_per_category=1)))[1]) == 3


def test_a_short_list_is_filled_from_the_profiles_categories_then_from_the_store(spark):
    world = views(
        spark,
        [(1, 10, "view", 5)],
        [(10, 20, 0.5)],
        moving=[
            (71, "rising", 0.9, 1, 40, 1),
            (11, "rising", 0.5, 5, 30, 2),
            (20, "rising", 0.4, 5, 20, 3),
            (12, "waning", -0.5, 9, 1, 1),
        ],
        demand=[(80, 60), (71, 40), (11, 30), (10, 25), (90, 60), (13, 7), (14, 8)],
    )
    rows = for_active_users(world, RecommendationSettings(**PLAIN)).orderBy("rank").collect()
    assert [(row.product_id, row.score is None, row.because_of) for row in rows] == [
        (20, False, 10),
        (11, True, None),
        (14, True, None),
        (13, True, None),
        (80, True, None),
        (90, True, None),
        (71, True, None),
    ]
    assert [row.reason for row in rows] == [
        f"because you viewed 10; rising: 5 → 20 views {WHEN}",
        f"rising in c.1, where you looked: 5 → 30 views {WHEN}",
        f"in demand in c.1, where you looked: 8 interactions {SINCE}",
        f"in demand in c.1, where you looked: 7 interactions {SINCE}",
        f"in demand: 60 interactions {SINCE}",
        f"in demand: 60 interactions {SINCE}",
        f"rising: 1 → 40 views {WHEN}",
    ]


def test_the_categories_of_the_latest_profile_items_fill_up_a_list_first(spark):
    world = views(
        spark, [(1, 10, "view", 5), (1, 20, "view", 9)], demand=[(21, 40), (11, 30), (12, 3), (22, 7), (30, 99)]
    )
    rows = for_active_users(world, RecommendationSettings(**PLAIN)).orderBy("rank").collect()
    assert [row.product_id for row in rows] == [11, 12, 21, 22, 30]


def test_only_active_users_are_written_and_any_user_can_be_looked_up(spark):
    month = 30 * 24 * 60
    world = views(
        spark, [(1, 10, "view", 5), (2, 10, "view", month), (3, 10, "view", month - 24 * 60)], [(10, 30, 0.5)]
    )
    settings = RecommendationSettings(**PLAIN, active_days=30)
    assert set(lists(for_active_users(world, settings))) == {1, 3}
    assert [(row.product_id, row.score) for row in for_user(world, settings, 2)] == [(30, 0.5)]


def test_a_profile_is_the_latest_distinct_items(spark):
    world = views(
        spark,
        [(1, 10, "view", 5), (1, 20, "view", 5), (1, 10, "view", 50), (1, 30, "purchase", 60), (1, 40, "view", 70)],
    )
    settings = RecommendationSettings(profile_items=2, profile_decay=0.5, purchase_weight=3)
    items = profiles(world.events, settings).drop("user_id").collect()
    assert [tuple(item) for item in items] == [
        (0, 10, 1, 1.0, False),
        (1, 20, 1, 0.5, False),
        (None, 30, 3, None, True),
    ]


def test_rows_name_the_versions_they_were_computed_from(spark):
    row = for_active_users(views(spark, [(1, 10, "view", 5)], [(10, 30, 0.5)]), RecommendationSettings()).collect()[0]
    assert (row.events_version, row.products_version, row.similar_items_version, row.trends_version) == (4, 3, 2, 1)
    assert (row.category_code, row.brand, float(row.price)) == ("c.3", "brand", 1.0)


def test_lists_do_not_depend_on_the_partitioning(spark):
    events = [
        (user, product, "view", (user * 7 + product) % 50)
        for user in range(1, 20)
        for product in range(10, 30, user % 5 + 1)
    ]
    similar = [
        (one, other, 1 / (1 + abs(one - other) + one % 7))
        for one in range(10, 40)
        for other in range(10, 40)
        if one != other
    ]
    world = views(spark, events, similar)
    first = for_active_users(world, RecommendationSettings()).orderBy("user_id", "rank").collect()
    spread = Views(
        **{
            **{name: getattr(world, name) for name in Views.__dataclass_fields__},
            "events": world.events.repartition(7),
            "similar_items": world.similar_items.orderBy(F.desc("score")).repartition(5),
        }
    )
    assert for_active_users(spread, RecommendationSettings()).orderBy("user_id", "rank").collect() == first


@pytest.mark.parametrize(
    ("minutes", "since"), [(10080, "since 2019-09-22 12:00"), (720, "since 2019-11-07"), (30, "since 2019-11-10 08:30")]
)
def test_demand_is_counted_in_the_newest_eight_buckets(spark, minutes, since):
    starts = [(NOV_10 - buckets * timedelta(minutes=minutes), 80) for buckets in (0, 7, 8)]
    demand = spark.createDataFrame(starts, "bucket_start timestamp, product_id long")
    trends = spark.createDataFrame([], "bucket_start timestamp, complete boolean")
    events = demand.withColumn("event_date", F.to_date("bucket_start"))
    whole = {"events": events, "newest_date": NOV_10.date(), "products": demand, "similar_items": demand}
    found = newest_views({}, trends=trends, demand=demand, bucket_length=f"{minutes} minutes", **whole)
    assert found.since == since
    assert sorted(row.age for row in found.demand.collect()) == [0, 7]


def test_demand_after_the_newest_bucket_of_the_trends_is_left_out(spark):
    """The job `trends` writes the table `demand` first. The job may be killed before it writes the table `trends`."""
    starts = [(NOV_10 + weeks * timedelta(days=7), 80) for weeks in (-1, 0, 1, 2)]
    demand = spark.createDataFrame(starts, "bucket_start timestamp, product_id long")
    trends = spark.createDataFrame([(NOV_10, True)], "bucket_start timestamp, complete boolean")
    events = demand.withColumn("event_date", F.to_date("bucket_start"))
    whole = {"events": events, "newest_date": NOV_10.date(), "products": demand, "similar_items": demand}
    found = newest_views({}, trends=trends, demand=demand, bucket_length="10080 minutes", **whole)
    assert sorted(row.age for row in found.demand.collect()) == [0, 1]


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("10080 minutes", "in the week from 2019-11-10"),
        ("30 minutes", "in the 30 minutes from 2019-11-10 12:00"),
        ("1440 minutes", "in the 1440 minutes from 2019-11-10 12:00"),
    ],
)
def test_a_bucket_in_words(length, words):
    assert bucket_words(NOV_10, length) == words
