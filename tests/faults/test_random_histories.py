"""Tests of the project's promises 1, 3 and 5: stream, batch and a plain-Python check agree for any order of events.

The events are random. Most tests pass event histories to the jobs' functions, up to eight histories in one Spark job.
Only a few histories go through a real lake, because each micro-batch of a real stream costs seconds. `LONGER=20` in
the environment tries 20 times as many.
"""

from __future__ import annotations

import gc
import itertools
import shutil
from collections import defaultdict
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Row
from pyspark.sql import functions as F
from pyspark.sql.classic.dataframe import DataFrame

from lambda_spark.batch.refresh import Extent, compute, update_trends
from lambda_spark.ids import ID_TYPES
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.ingestion.products import newest_products, product_attributes
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import IngestSettings, RecommendationSettings, SimilaritySettings, TrendSettings
from lambda_spark.source_description import SourceDescription
from lambda_spark.speed.baskets import basket_items
from lambda_spark.speed.co_interactions import (
    all_contributions,
    basket_changes,
    changed_contributions,
    new_items,
)
from lambda_spark.speed.scores import similar_items
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    BRAND_TRENDS,
    CATEGORY_TRENDS,
    CO_INTERACTIONS,
    DEMAND,
    EVENTS,
    INGESTION_LOG,
    PRODUCTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    TRENDS,
    USER_TRENDS,
)
from tests.deliveries import differing
from tests.faults import oracle
from tests.faults.histories import HEADER, Event, histories, trials, written

pytestmark = pytest.mark.long

COLUMNS = (
    "event_time timestamp, event_type string, product_id {id}, category_id long, category_code string, brand string, "
    "price decimal(12,2), user_id {id}, user_session string, event_date date"
)
COUNTS = "event_date date, relation string, item_a {id}, item_b {id}, baskets long, strength long"
EPOCH = date(2019, 1, 1)
SEPARATION = timedelta(days=1000)
"""Time by which histories in one table are kept apart. They do not mix, because no basket spans two dates."""
PLAIN = TrendSettings(min_change=2, min_z=0.73, max_fdr=1.0)
LISTS = RecommendationSettings(list_length=5, profile_items=3, trend_weight=0.2)


@pytest.fixture
def spark(spark):
    """The tests' Spark session without adaptive query execution, which only costs time for small tables."""
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    yield spark
    spark.conf.set("spark.sql.adaptive.enabled", "true")


@pytest.fixture(autouse=True)
def _plans_are_freed_after_each_collect(monkeypatch):
    """Collect Python garbage after each `collect`, because cyclic references would keep query plans in memory."""
    collect = DataFrame.collect

    def collected(rows):
        found = collect(rows)
        gc.collect()
        return found

    monkeypatch.setattr(DataFrame, "collect", collected)


@pytest.fixture(scope="module", params=["integer", "text"])
def ids(request):
    """The kind of the product and user ids."""
    return request.param


def frame(spark, events, ids):
    rows = [(*event, event.date) for event in events]
    return spark.createDataFrame(rows, COLUMNS.format(id=ID_TYPES[ids]))


def oracle_items(events):
    return {
        (*basket, product): time for basket, items in oracle.baskets(events).items() for product, time in items.items()
    }


@trials(8)
@given(st.lists(histories(), min_size=8, max_size=8), st.integers(1, 6))
def test_micro_batches_add_up_to_the_result_for_all_events_at_once(spark, ids, stores, window):
    """Each micro-batch of each history gets dates of its own, so that one Spark job computes all micro-batches.

    The items that a micro-batch already knows are copies of items of earlier micro-batches. The dates of the copies are
    moved to the dates of the micro-batch.
    """
    stores = [store.with_ids(ids) for store in stores]
    steps = max(len(store.arrivals) for store in stores)
    rows = [
        (
            *event[:7],
            event.user,
            event.session,
            event.date + (at * steps + step) * SEPARATION,
            event.date + at * steps * SEPARATION,
        )
        for at, store in enumerate(stores)
        for step, arrival in enumerate(store.arrivals)
        for event in arrival
    ]
    events = spark.createDataFrame(rows, f"{COLUMNS.format(id=ID_TYPES[ids])}, date_in_store date")
    arrived = basket_items(events)
    step = F.floor(F.date_diff("event_date", F.lit(EPOCH)) / SEPARATION.days) % steps
    known = (
        arrived.withColumn("later", F.explode(F.sequence(F.lit(1), F.lit(steps))))
        .where(step + F.col("later") < steps)
        .withColumn("event_date", F.date_add("event_date", F.col("later") * F.lit(SEPARATION.days)))
    )
    changes = basket_changes(known, arrived).persist()
    at_once = all_contributions(basket_items(events.withColumn("event_date", F.col("date_in_store"))), window=window)
    added = by_store(changed_contributions(changes, window=window), steps)
    batch = by_store(at_once, steps)
    remembered = by_store(new_items(changes), steps)
    changes.unpersist()
    for at, history in enumerate(stores):
        expected = oracle.co_interactions(oracle.baskets(history.events), window)
        assert pair_counts(batch[at]) == expected
        assert pair_counts(added[at]) == expected
        assert earliest_items(remembered[at]) == oracle_items(history.events)


def by_store(rows, steps):
    """Group rows by store, and undo the shift of dates that kept stores and micro-batches apart."""
    found = defaultdict(list)
    for row in rows.collect():
        slot = (row.event_date - EPOCH) // SEPARATION
        found[slot // steps].append(Row(**{**row.asDict(), "event_date": row.event_date - slot * SEPARATION}))
    return found


def pair_counts(rows):
    """Sum the counts of each pair, and leave out the pairs whose sums are zero."""
    total = defaultdict(lambda: (0, 0))
    for row in rows:
        key = (row.event_date, row.relation, row.item_a, row.item_b)
        total[key] = (total[key][0] + row.baskets, total[key][1] + row.strength)
    return {key: figures for key, figures in total.items() if figures != (0, 0)}


def earliest_items(rows):
    found = {}
    for row in rows:
        key = (row.event_date, row.relation, row.user_id, row.user_session, row.product_id)
        found[key] = min(row.first_time, found.get(key, row.first_time))
    return found


@trials(4)
@given(
    st.lists(histories(most_events=30), min_size=2, max_size=2),
    st.sampled_from([("confidence", 30.0, 1), ("llr", 10.0, 1), ("llr", 0.0, 2), ("confidence", 0.5, 2)]),
)
def test_similar_items_equal_the_oracle_s(spark, ids, stores, how):
    measure, half_life, min_baskets = how
    events = stores[0].with_ids(ids).events | stores[1].with_ids(ids).events
    counts = oracle.co_interactions(oracle.baskets(events), 5)
    settings = SimilaritySettings(measure=measure, half_life_days=half_life, min_baskets=min_baskets, max_neighbours=4)
    newest = oracle.newest_date(events)
    table = spark.createDataFrame(
        [(*key, *figures) for key, figures in counts.items()], COUNTS.format(id=ID_TYPES[ids])
    )
    rows = similar_items(table, settings, newest=newest)
    expected = oracle.similar_items(counts, measure, newest=newest, k=4, half_life=half_life, min_baskets=min_baskets)
    assert_same_neighbours(rows.collect(), expected)


def assert_same_neighbours(rows, expected):
    found = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        found.setdefault((row.relation, row.product_id), []).append(row)
        assert row["rank"] == len(found[row.relation, row.product_id])
    assert {key: [(r.similar_product_id, r.baskets, r.strength) for r in ranked] for key, ranked in found.items()} == {
        key: [(other, baskets, strength) for other, _, baskets, strength in ranked] for key, ranked in expected.items()
    }
    for key, ranked in found.items():
        assert [row.score for row in ranked] == pytest.approx([score for _, score, _, _ in expected[key]], rel=1e-9)


@trials(2)
@given(
    st.lists(histories(most_events=40), min_size=2, max_size=2),
    st.sampled_from([timedelta(days=7), timedelta(hours=36)]),
)
def test_trends_equal_the_oracle_s(spark, ids, stores, bucket):
    events = stores[0].with_ids(ids).events | stores[1].with_ids(ids).events
    settings = TrendSettings(bucket=bucket, min_change=2, min_z=0.73, max_fdr=1.0)
    micros = [
        round((event.time - datetime(1970, 1, 1)).total_seconds()) * 1_000_000 for event in oracle.counted(events)
    ]
    extent = Extent(min(micros), max(micros))
    until = F.timestamp_micros(F.lit(extent.newest))
    with compute(frame(spark, events, ids), settings, extent, until) as tables:
        assert_same_trends({table.name: rows.collect() for table, rows in tables.by_table()}, events, settings)


def assert_same_trends(rows, events, settings):
    events = oracle.counted(events)
    grid = (settings.bucket, settings.origin)
    assert {(r.bucket_start, r.signal, r.product_id): r.events for r in rows[DEMAND.name]} == oracle.demand(
        events, *grid
    )
    strictness = {"min_change": settings.min_change, "min_z": settings.min_z}
    for table, key, column in (
        (TRENDS, "product", "product_id"),
        (CATEGORY_TRENDS, "category", "category_code"),
        (BRAND_TRENDS, "brand", "brand"),
    ):
        expected = oracle.trends(events, *grid, key=key, **strictness)
        found = {
            (r.bucket_start, r.signal, r[column]): tuple(r[name] for name in oracle.Trend._fields)
            for r in rows[table.name]
        }
        assert found.keys() == expected.keys()
        for name, figures in expected.items():
            for field, figure, expected_figure in zip(oracle.Trend._fields, found[name], figures, strict=True):
                is_number = isinstance(expected_figure, int | float) and not isinstance(expected_figure, bool)
                close = pytest.approx(expected_figure, rel=1e-12) if is_number else expected_figure
                assert figure == close, (table.name, name, field)
    for attribute, column in (("category", "category_code"), ("brand", "brand")):
        newest = oracle.newest_in_two_buckets(events, *grid, attribute)
        for r in rows[TRENDS.name]:
            assert r[column] == newest.get((r.bucket_start, r.product_id)), (attribute, r)
    product_trends = oracle.trends(events, *grid, key="product", **strictness)
    assert {
        (r.bucket_start, r.user_id): (r.interactions, r.rising_pct, r.waning_pct) for r in rows[USER_TRENDS.name]
    } == oracle.user_trends(events, product_trends, *grid)


@trials(4)
@given(histories(most_events=30))
def test_products_equal_the_oracle_s_in_any_order_of_arrival_and_with_repeats(spark, ids, history):
    history = history.with_ids(ids)
    newest = oracle.newest_date(history.events)
    parts = [product_attributes(frame(spark, arrival, ids), newest) for arrival in history.arrivals]
    known = parts[0]
    for part in parts[1:] + parts[:1]:
        known = newest_products(known, part, newest)
    assert known_products(known) == oracle.products(history.events)


def known_products(rows):
    names = ("category_id", "category_code", "brand", "price", "first_seen", "last_seen")
    return {row.product_id: tuple(row[name] for name in names) for row in rows.collect()}


@pytest.fixture(scope="module")
def empty_lake(session, tmp_path_factory, ids):
    """A lake with empty tables. Tests copy this lake, because creating tables takes longer than a micro-batch."""
    folder = tmp_path_factory.mktemp("empty")
    inbox = folder / "in"
    inbox.mkdir()
    lake = Lake.open(session, str(folder / "lake"), create=True)
    ingest(lake, [str(inbox)], IngestSettings(), SourceDescription(ids=ids))
    update_similarity(lake, SimilaritySettings())
    return folder / "lake"


@trials(1)
@given(
    histories(most_events=40, most_arrivals=3, longest_basket=60),
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
    st.integers(1, 2),
)
def test_a_lake_filled_in_pieces_equals_the_oracle(spark, empty_lake, ids, tmp_path_factory, history, spellings, runs):
    """Each delivered file is a micro-batch of `ingest`. Each data file of `events` is a micro-batch of `similarity`."""
    history = history.with_ids(ids)
    folder = tmp_path_factory.mktemp("history")
    shutil.copytree(empty_lake, folder / "lake")
    lake = Lake.open(spark, str(folder / "lake"))
    spelling = itertools.cycle(spellings)
    (folder / "in").mkdir()
    lines = 0
    for run in range(runs):
        for at, arrival in enumerate(history.arrivals):
            if at % runs == run:
                texts = [written(event, next(spelling)) for event in arrival]
                (folder / "in" / f"{at}.csv").write_text("\n".join([HEADER, *texts, ""]))
                lines += len(texts)
        ingest(lake, [str(folder / "in")], IngestSettings(max_bytes_per_batch="1"), SourceDescription(ids=ids))
        update_similarity(lake, SimilaritySettings(max_bytes_per_batch="1"))
        update_trends(lake, PLAIN)
    update_recommendations(lake, LISTS)
    events = history.events
    assert known_events(lake[EVENTS].read()) == sorted(events, key=repr)
    account = lake[INGESTION_LOG].read().agg(F.sum("lines"), F.sum("events"), F.sum("repeats"), F.sum("rejected"))
    assert tuple(account.collect()[0]) == (lines, len(events), lines - len(events), 0)
    assert known_products(lake[PRODUCTS].read()) == oracle.products(events)
    counts = oracle.co_interactions(oracle.baskets(events), 5)
    assert pair_counts(lake[CO_INTERACTIONS].read().collect()) == counts
    assert earliest_items(lake[BASKETS].read().collect()) == oracle_items(events)
    similar = oracle.similar_items(
        counts, "confidence", newest=oracle.newest_date(events), k=20, half_life=30.0, min_baskets=1
    )
    assert_same_neighbours(lake[SIMILAR_ITEMS].read().collect(), similar)
    tables = (DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS)
    assert_same_trends({table.name: lake[table].read().collect() for table in tables}, events, PLAIN)
    assert_same_lists(lake[RECOMMENDATIONS].read().where("score is not null").collect(), events, similar)
    assert differing(lake) == []


def known_events(rows):
    names = ("event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id")
    return sorted((Event(*(row[name] for name in names), row.user_session) for row in rows.collect()), key=repr)


def assert_same_lists(rows, events, similar):
    events = oracle.counted(events)
    found = {}
    for row in sorted(rows, key=lambda row: (row.user_id, row["rank"])):
        found.setdefault(row.user_id, []).append((row.product_id, row.score))
    product_trends = oracle.trends(
        events, PLAIN.bucket, PLAIN.origin, key="product", min_change=PLAIN.min_change, min_z=PLAIN.min_z
    )
    expected = oracle.scored_recommendations(
        events, similar, product_trends,
        k=LISTS.list_length, profile_items=LISTS.profile_items, active_days=LISTS.active_days,
        trend_weight=LISTS.trend_weight,
    )  # fmt: skip
    assert {user: [product for product, _ in ranked] for user, ranked in found.items()} == {
        user: [product for product, _ in ranked] for user, ranked in expected.items()
    }
    for user, ranked in found.items():
        assert [score for _, score in ranked] == pytest.approx([score for _, score in expected[user]], rel=1e-9)
