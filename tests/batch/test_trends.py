"""Tests of trend detection on small examples, with expected figures computed by hand or in plain Python."""

import math
from datetime import date, datetime, timedelta

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lambda_spark.batch.demand import (
    Buckets,
    attribute_demand,
    by_signal,
    demand_cells,
    product_demand,
    total_demand,
    with_previous,
)
from lambda_spark.batch.refresh import compute, extent_of
from lambda_spark.batch.trends import (
    growth,
    normal_tail,
    overdispersion,
    p_value,
    peers,
    trends,
    user_trends,
    with_q_values,
    z_score,
)
from lambda_spark.settings import TrendSettings

OCT_28, NOV_04, NOV_11, NOV_18 = (datetime(2019, 10, 28) + timedelta(days=7 * week) for week in range(4))
WEEKS = TrendSettings(min_change=10, min_z=3)
EVENTS = "event_time timestamp, event_type string, product_id long, category_code string, brand string, user_id long"


def extent(events):
    return extent_of(events.withColumn("event_date", F.to_date("event_time")))


def compared(spark, demand, *, settings=WEEKS, first=OCT_28, newest=NOV_11, known=NOV_11):
    counts = spark.createDataFrame(demand, "bucket_start timestamp, product_id long, view long")
    counts = counts.withColumns({"cart": F.lit(0), "purchase": F.lit(0)})
    return trends(
        by_signal(with_previous(counts, ["product_id"], Buckets(settings)), ["product_id"]),
        total_demand(counts, Buckets(settings)),
        "product_id",
        settings,
        first_bucket=F.lit(first),
        newest_bucket=F.lit(newest),
        known_until=F.lit(known),
    )


def test_an_item_missing_from_the_next_bucket_counts_0_there_and_wanes(spark):
    actual = compared(spark, [(NOV_04, 7, 12), (NOV_04, 8, 40), (NOV_11, 8, 52)]).where("product_id = 7")
    assert_df_equality(
        actual.select("bucket_start", "current", "previous", "change", "direction"),
        spark.createDataFrame(
            [(NOV_04, 12, 0, 12, "steady"), (NOV_11, 0, 12, -12, "waning")],
            "bucket_start timestamp, current long, previous long, change long, direction string",
        ),
        ignore_nullable=True,
        ignore_row_order=True,
    )


def test_a_new_item_rises_and_has_no_change_in_percent(spark):
    row = compared(spark, [(NOV_04, 8, 100), (NOV_11, 8, 100), (NOV_11, 9, 30)]).where("product_id = 9").collect()[0]
    assert (row.previous, row.current, row.change, row.change_pct, row.direction) == (0, 30, 30, None, "rising")


def test_an_empty_bucket_is_a_bucket(spark):
    actual = compared(spark, [(OCT_28, 7, 20), (NOV_11, 7, 20)]).select("bucket_start", "current", "previous")
    assert sorted(map(tuple, actual.collect())) == [(NOV_04, 0, 20), (NOV_11, 20, 0)]


def test_the_first_bucket_and_buckets_after_the_newest_have_no_trends(spark):
    assert {
        row.bucket_start for row in compared(spark, [(OCT_28, 7, 20), (NOV_04, 7, 20)], newest=NOV_04).collect()
    } == {NOV_04}


def test_a_product_that_only_grows_with_the_store_is_steady(spark):
    rows = (
        compared(spark, [(NOV_04, 7, 100), (NOV_04, 8, 900), (NOV_11, 7, 200), (NOV_11, 8, 1800)])
        .where("bucket_start = '2019-11-11'")
        .collect()
    )
    assert {(row.change, row.z_score, row.direction) for row in rows} == {(100, 0.0, "steady"), (900, 0.0, "steady")}


@pytest.mark.parametrize(
    ("setting", "direction"), [({"min_change": 30}, "rising"), ({"min_change": 31}, "steady"), ({"min_z": 6}, "steady")]
)
def test_a_trend_must_reach_both_min_change_and_min_z(spark, setting, direction):
    demand = [(NOV_04, 7, 20), (NOV_11, 7, 50), (NOV_04, 8, 900), (NOV_11, 8, 900)]
    row = (
        compared(spark, demand, settings=TrendSettings(**{"min_change": 10, "min_z": 3, **setting}))
        .where("product_id = 7 and bucket_start = '2019-11-11'")
        .collect()[0]
    )
    assert row.change == 30
    assert row.direction == direction


def test_z_is_the_change_of_the_share_in_standard_deviations(spark):
    z = spark.range(1).select(z_score(*(F.lit(n) for n in (50, 20, 950, 920)))).collect()[0][0]
    n, p = 70, 950 / 1870
    assert z == pytest.approx((50 - n * p) / math.sqrt(n * p * (1 - p)), rel=1e-12)


@pytest.mark.parametrize(("total", "previous_total"), [(0, 20), (20, 0)])
def test_z_is_0_where_a_total_is_0(spark, total, previous_total):
    assert (
        spark.range(1)
        .select(z_score(F.lit(total), F.lit(previous_total), F.lit(total), F.lit(previous_total)))
        .collect()[0][0]
        == 0.0
    )


def exact_tail(current, n, p):
    """Return the exact binomial (n, p) probability of a count as extreme as `current`.

    If `current` is above the mean n·p, this is the chance of `current` or more events, else of `current` or fewer.
    """
    counts = range(current, n + 1) if current > n * p else range(current + 1)
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)


@pytest.mark.parametrize(
    ("current", "previous", "totals"),
    [
        (0, 12, (1, 1)),
        (12, 0, (1, 1)),
        (11, 0, (1, 3)),
        (0, 45, (1, 3)),
        (9, 2, (1, 3)),
        (90, 40, (1, 1)),
        (0, 8, (3, 1)),
    ],
)
def test_p_is_near_the_exact_binomial_tail_for_few_and_uneven_counts(spark, current, previous, totals):
    row = spark.range(1).select(p_value(*(F.lit(n) for n in (current, previous, *totals, 1.0)))).collect()[0]
    exact = exact_tail(current, current + previous, totals[0] / sum(totals))
    assert 0.7 * exact < row[0] < 1.2 * exact


def test_an_overdispersion_of_4_halves_the_root_of_the_deviance(spark):
    # Expected z-score by hand: the counts are 90.5 and 29.5, and 60 is expected for each. The root of the deviance is
    # 5.70.
    independent, overdispersed = (
        spark.range(1)
        .select(*(p_value(*(F.lit(n) for n in (91, 29, 1, 1, dispersion))) for dispersion in (1.0, 4.0)))
        .collect()[0]
    )
    root = math.sqrt(2 * (90.5 * math.log(90.5 / 60) + 29.5 * math.log(29.5 / 60)))
    assert independent == pytest.approx(math.erfc(root / math.sqrt(2)) / 2, rel=0.003)
    assert overdispersed == pytest.approx(math.erfc(root / 2 / math.sqrt(2)) / 2, rel=0.003)


def test_p_is_a_half_where_nothing_changed_or_a_total_is_0(spark):
    counts = [(10, 10, 50, 50), (7, 21, 100, 300), (0, 9, 0, 90), (9, 0, 90, 0)]
    row = spark.range(1).select(*(p_value(*(F.lit(n) for n in (*four, 1.0))) for four in counts)).collect()[0]
    assert tuple(row) == tuple(pytest.approx(0.5, rel=0.003) for _ in counts)


@pytest.mark.parametrize("x", [0.0, 0.5, 1.0, 1.96, 3.0, 6.0, 12.0, 37.0])
def test_the_normal_tail_is_right_to_a_third_of_a_percent(spark, x):
    assert spark.range(1).select(normal_tail(F.lit(x))).collect()[0][0] == pytest.approx(
        math.erfc(x / math.sqrt(2)) / 2, rel=0.003
    )


def test_overdispersion_follows_the_median_of_z_squared_and_the_fourth_root_of_demand(spark):
    # The number 0.4549 is the median of the χ² distribution with 1 degree of freedom.
    cases = [(10, 11, 4.0), (5, 11, 4.0), (160, 11, 4.0), (160, 9, 4.0), (10, 11, 0.3), (160, 11, 0.3)]
    frame = spark.createDataFrame(cases, "size long, tested long, median_z2 double")
    factor = overdispersion(F.col("size"), F.col("tested"), F.col("median_z2"), F.lit(10.0))
    expected = [4 / 0.4549, 4 / 0.4549, 8 / 0.4549, 1, 1, 2]
    assert [row[0] for row in frame.select(factor).collect()] == pytest.approx(expected, rel=1e-12)


def test_peers_summarize_the_tested_keys_of_each_bucket_and_signal(spark):
    rows = [(NOV_11, "view", z, size) for z, size in ((-2.0, 10), (1.0, 12), (3.0, 90), (0.0, 20))]
    frame = spark.createDataFrame(
        [*rows, (NOV_18, "view", -1.0, 7)], "bucket_start timestamp, signal string, z_score double, size long"
    )
    assert_df_equality(
        peers(frame, ["bucket_start", "signal"]),
        spark.createDataFrame(
            [(NOV_11, "view", 4, 2, 2.5, 16.0), (NOV_18, "view", 1, 0, 1.0, 7.0)],
            "bucket_start timestamp, signal string, tested long, tested_up long, median_z2 double, median_size double",
        ),
        ignore_nullable=True,
        ignore_row_order=True,
    )


def test_q_values_follow_the_step_up_procedure_in_each_direction_separately(spark):
    # Five products are tested, and three of them rise. A p-value times 5, divided by its rank, gives 0.05, 0.10 and
    # 0.0667 for ranks 1 to 3. Rank 2 gets the q-value of rank 3, because that value is smaller.
    rows = [(1, 4.0, 0.01), (2, 3.0, 0.04), (3, 3.0, 0.04), (4, -2.0, 0.02), (5, -0.1, 0.45), (6, 1.0, None)]
    frame = spark.createDataFrame(rows, "key int, z_score double, p_value double").select(
        F.lit(NOV_11).alias("bucket_start"),
        F.lit("view").alias("signal"),
        F.lit(5).alias("tested"),
        F.lit(3).alias("tested_up"),
        "*",
    )
    actual = with_q_values(frame, ["bucket_start", "signal"]).select("key", F.round("q_value", 12).alias("q_value"))
    expected = [(1, 0.05), (2, round(0.2 / 3, 12)), (3, round(0.2 / 3, 12)), (4, 0.1), (5, 1.0), (6, None)]
    assert_df_equality(
        actual, spark.createDataFrame(expected, "key int, q_value double"), ignore_nullable=True, ignore_row_order=True
    )


def test_only_a_product_beyond_the_usual_fluctuation_is_a_trend(spark):
    # Forty products go from 13 to 27 or from 27 to 13, each with |z| above 2. So a change of that
    # size is normal in this store. Only the product that goes from 20 to 400 events is a trend.
    demand = [(NOV_04, 78, 5000), (NOV_11, 78, 5000), (NOV_04, 77, 20), (NOV_11, 77, 400)]
    for key in range(40):
        demand += [(NOV_04, key, 13 + 14 * (key % 2)), (NOV_11, key, 27 - 14 * (key % 2))]
    for max_fdr, trending in ((0.05, {77}), (1.0, {77, *range(40)})):
        settings = TrendSettings(min_change=10, min_z=2, max_fdr=max_fdr)
        rows = compared(spark, demand, settings=settings).where("bucket_start = '2019-11-11'").collect()
        assert {row.product_id for row in rows if row.direction != "steady"} == trending


def test_a_product_with_fewer_events_than_min_change_is_not_tested(spark):
    row = (
        compared(spark, [(NOV_04, 7, 4), (NOV_11, 7, 5), (NOV_11, 8, 90), (NOV_04, 8, 90)])
        .where("product_id = 7 and bucket_start = '2019-11-11'")
        .collect()[0]
    )
    assert (row.overdispersion, row.p_value, row.q_value, row.direction) == (None, None, None, "steady")


def test_growth_is_damped(spark):
    row = (
        spark.range(1)
        .select(growth(F.lit(20), F.lit(12)), growth(F.lit(0), F.lit(9)), growth(F.lit(1), F.lit(0)))
        .collect()[0]
    )
    assert tuple(row) == (8 / 33, -0.9, 0.5)


def test_trend_percentages_sum_to_100_and_ranks_follow_z(spark):
    demand = [(NOV_04, i, 10) for i in (1, 2, 3)] + [
        (NOV_11, 1, 90),
        (NOV_11, 2, 60),
        (NOV_11, 3, 60),
        (NOV_04, 9, 900),
        (NOV_11, 9, 900),
    ]
    rows = (
        compared(spark, demand).where("bucket_start = '2019-11-11' and direction = 'rising'").orderBy("rank").collect()
    )
    assert [(row.rank, row.product_id, row.change) for row in rows] == [(1, 1, 80), (2, 2, 50), (3, 3, 50)]
    assert [row.trend_pct for row in rows] == [pytest.approx(100 * change / 180) for change in (80, 50, 50)]


def test_a_bucket_is_complete_if_it_had_ended(spark):
    demand = [(OCT_28, 7, 1), (NOV_04, 7, 1), (NOV_11, 7, 1)]
    complete = {row.bucket_start: row.complete for row in compared(spark, demand, known=NOV_11).collect()}
    assert complete == {NOV_04: True, NOV_11: False}


def test_attributes_of_a_trend_are_the_newest_of_its_two_buckets(spark):
    events = spark.createDataFrame(
        [
            (NOV_04, "view", 7, "old.code", "acme", 1),
            (NOV_04 + timedelta(hours=1), "view", 7, "new.code", None, 1),
            (NOV_11, "view", 7, None, "bolt", 1),
            (NOV_18, "view", 7, None, None, 1),
        ],
        EVENTS,
    )
    with compute(events, WEEKS, extent(events), F.lit(NOV_18)) as tables:
        rows = tables.trends.collect()
    attributes = sorted((row.bucket_start, row.category_code, row.brand) for row in rows)
    assert attributes == [(NOV_11, "new.code", "bolt"), (NOV_18, None, "bolt")]


def test_attributes_of_a_trend_are_the_same_for_all_signals_of_a_product(spark):
    """A product has a cart event in week 1 and a view in week 2. Both signals show the attributes of the view."""
    events = spark.createDataFrame(
        [(NOV_04, "cart", 7, "old.code", "acme", 1), (NOV_11, "view", 7, "new.code", "bolt", 1)], EVENTS
    )
    with compute(events, WEEKS, extent(events), F.lit(NOV_11)) as tables:
        rows = tables.trends.collect()
    actual = [(row.signal, row.current, row.previous, row.category_code, row.brand) for row in rows]
    assert sorted(actual) == [("cart", 0, 1, "new.code", "bolt"), ("view", 1, 0, "new.code", "bolt")]


def test_a_category_and_a_brand_of_the_same_name_are_compared_separately(spark):
    views = [(NOV_04, 7, "same", 40), (NOV_04, 8, "other", 100), (NOV_11, 7, "same", 160), (NOV_11, 8, "other", 100)]
    events = spark.createDataFrame(
        [(start, "view", product, name, name, 1) for start, product, name, count in views for _ in range(count)], EVENTS
    )
    with compute(events, WEEKS, extent(events), F.lit(NOV_11)) as tables:
        for key, rows in (("category_code", tables.category_trends), ("brand", tables.brand_trends)):
            actual = rows.select(key, "current", "previous", "direction", "trend_pct", "rank").collect()
            assert sorted(map(tuple, actual)) == [
                ("other", 100, 100, "steady", None, None),
                ("same", 160, 40, "rising", 100.0, 1),
            ]


def test_demand_counts_views_carts_and_purchases_but_no_removals(spark):
    events = spark.createDataFrame(
        [(NOV_04, kind, 7, "a.b", "acme", 1) for kind in ("view", "view", "cart", "purchase", "remove_from_cart")],
        EVENTS,
    )
    counts = with_previous(demand_cells(events, Buckets(WEEKS)), ["product_id"], Buckets(WEEKS))
    demand = product_demand(by_signal(counts, ["product_id"]))
    expected = [(NOV_04, "view", 7, 2), (NOV_04, "cart", 7, 1), (NOV_04, "purchase", 7, 1)]
    assert sorted(map(tuple, demand.collect())) == sorted(expected)


def test_events_without_a_category_count_only_in_the_total(spark):
    events = spark.createDataFrame([(NOV_04, "view", 7, "a.b", None, 1), (NOV_04, "view", 8, None, None, 1)], EVENTS)
    cells = demand_cells(events, Buckets(WEEKS))
    expected = [(NOV_04, "a.b", "view", 1, 0), (NOV_11, "a.b", "view", 0, 1)]
    demand = attribute_demand(cells, Buckets(WEEKS)).where("attribute = 'category_code'").drop("attribute")
    assert sorted(map(tuple, demand.collect())) == expected
    totals = total_demand(cells, Buckets(WEEKS)).collect()
    assert sorted(map(tuple, totals)) == [(NOV_04, "view", 2, 0), (NOV_11, "view", 0, 2)]


@pytest.mark.parametrize(
    ("settings", "moment", "start"),
    [
        (TrendSettings(), datetime(2019, 11, 10, 23, 59, 59), NOV_04),
        (TrendSettings(), NOV_11, NOV_11),
        (TrendSettings(origin=date(2019, 11, 1)), datetime(2019, 11, 8), datetime(2019, 11, 8)),
        (TrendSettings(origin=date(2019, 11, 1)), datetime(2019, 10, 31, 23), datetime(2019, 10, 25)),
        (TrendSettings(bucket=timedelta(minutes=30)), datetime(2019, 11, 4, 2, 59), datetime(2019, 11, 4, 2, 30)),
    ],
)
def test_buckets_are_aligned_to_the_origin(spark, settings, moment, start):
    buckets = Buckets(settings)
    assert spark.range(1).select(buckets.start_of(F.lit(moment))).collect()[0][0] == start
    micros = int((start - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
    assert buckets.start(buckets.number(micros + 1)) == micros


def test_user_trends_are_percentages_of_interactions_each_by_its_own_signal(spark):
    product_trends = spark.createDataFrame(
        [(NOV_11, "view", 7, "rising"), (NOV_11, "cart", 7, "waning"), (NOV_11, "view", 8, "steady")],
        "bucket_start timestamp, signal string, product_id long, direction string",
    )
    interactions = [
        (NOV_11, "view", 7),
        (NOV_11, "cart", 7),
        (NOV_11, "view", 8),
        (NOV_11, "purchase", 7),
        (NOV_04, "view", 7),
        (NOV_11, "remove_from_cart", 7),
    ]
    events = spark.createDataFrame([(*interaction, None, None, 1) for interaction in interactions], EVENTS)
    span = {"first_bucket": F.lit(NOV_04), "newest_bucket": F.lit(NOV_11)}
    assert [tuple(row) for row in user_trends(events, product_trends, WEEKS, **span).collect()] == [
        (NOV_11, 1, 4, 25.0, 25.0)
    ]
