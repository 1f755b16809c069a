"""Tests that a few events of a wrong clock change no result of the store, until they are no longer few.

The small store has about 14 events on each of seven dates in October 2019, with a gap of 11 days.
"""

from datetime import date, datetime

import pytest
from pyspark.sql import functions as F

from lambda_spark.newest import SetAside
from lambda_spark.operations.maintain import maintain
from lambda_spark.settings import MaintenanceSettings, Settings
from lambda_spark.speed.co_interactions import known_items, total_counts
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    BRAND_TRENDS,
    CATEGORY_TRENDS,
    CO_INTERACTIONS,
    DEMAND,
    EVENTS,
    PRODUCTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    TRENDS,
    USER_TRENDS,
)
from tests.conftest import TRENDS as TREND_SETTINGS
from tests.deliveries import bring_up_to_date, contents, deliver, differing, event, random_events

SETTINGS = Settings(trends=TREND_SETTINGS, maintenance=MaintenanceSettings(min_files=50, expire_days=30))
STRAY = "2024-01-01 00:00:00 UTC,view,3,9,wrong.category,wrong brand,9.99,99,late-clock"
STRAY_DATE = date(2024, 1, 1)
LAST_DATE = date(2019, 10, 22)
STORE = random_events(4, 100)
VERSIONS = ("events_version", "products_version", "similar_items_version", "trends_version", "batch_id")


@pytest.fixture(scope="module")
def template(session, tmp_path_factory):
    """The small store with all tables up to date. Tests copy this lake."""
    folder = tmp_path_factory.mktemp("store")
    lake = Lake.open(session, str(folder / "lake"), create=True)
    deliver(lake, folder / "in", "store", STORE)
    bring_up_to_date(lake, SETTINGS)
    return folder / "lake"


def rows_of(lake):
    """Return the rows of every computed table, without what says where a row came from and without the stray's own."""
    tables = (
        PRODUCTS, DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS, SIMILAR_ITEMS, RECOMMENDATIONS
    )  # fmt: skip
    rows = {table.name: contents(lake, table, *VERSIONS) for table in tables}
    # The stored rows of these tables are increments, so add them up.
    for table, added_up in ((BASKETS, known_items), (CO_INTERACTIONS, total_counts)):
        kept = added_up(lake[table].read()).where(F.col("event_date") < F.lit(STRAY_DATE))
        rows[table.name] = sorted(map(repr, kept.collect()))
    return rows


def newest_of_lake(lake):
    return lake.newest(lake[EVENTS].version())


def test_one_event_of_2024_changes_nothing_whether_it_arrives_last_or_first(small, spark, tmp_path):
    expected = rows_of(small)
    assert all(expected.values())
    deliver(small, tmp_path / "last", "stray", [STRAY])
    bring_up_to_date(small, SETTINGS)
    assert rows_of(small) == expected
    assert differing(small) == []
    assert newest_of_lake(small).date == LAST_DATE
    assert newest_of_lake(small).set_aside == SetAside(1, STRAY_DATE, STRAY_DATE, 1532)

    first = Lake.open(spark, str(tmp_path / "first"), create=True)
    deliver(first, tmp_path / "in", "stray", [STRAY])
    bring_up_to_date(first, SETTINGS)
    assert newest_of_lake(first).date == STRAY_DATE
    deliver(first, tmp_path / "in", "store", STORE)
    bring_up_to_date(first, SETTINGS)
    assert rows_of(first) == expected
    assert differing(first) == []


def test_events_set_aside_count_as_soon_as_they_are_not_few_and_no_longer_when_they_are_few_again(
    small, spark, tmp_path
):
    more = event(datetime(2024, 1, 2), "purchase", 4, 99, "late-clock")
    late = [event(datetime(2019, 10, 1 + at % 2, 6, at), "view", 1 + at % 9, 5, "z") for at in range(60)]
    for name, lines, newest in (
        ("stray", [STRAY], LAST_DATE),
        ("more", [more], date(2024, 1, 2)),
        ("late", late, LAST_DATE),
    ):
        deliver(small, tmp_path / "in", name, lines)
        bring_up_to_date(small, SETTINGS)
        assert newest_of_lake(small).date == newest
        assert differing(small) == []
    at_once = Lake.open(spark, str(tmp_path / "at once"), create=True)
    deliver(at_once, tmp_path / "all", "all", [*late, more, STRAY, *STORE])
    bring_up_to_date(at_once, SETTINGS)
    assert rows_of(small) == rows_of(at_once)


def test_an_event_of_2024_makes_no_other_event_expire(small, tmp_path):
    deliver(small, tmp_path / "in", "stray", [STRAY])
    before = small[EVENTS].read().count()
    done = maintain(small, SETTINGS)
    assert small[EVENTS].read().count() == before
    assert done.expiring == {}
    assert small.retention_cutoff() is None


def test_a_product_that_is_known_only_from_events_set_aside_keeps_its_attributes(small, tmp_path):
    deliver(small, tmp_path / "in", "stray", [STRAY.replace(",view,3,", ",view,77,")])
    row = small[PRODUCTS].read().where("product_id = 77").collect()[0]
    assert (row.brand, f"{row.price}", row.last_seen) == ("wrong brand", "9.99", datetime(2024, 1, 1))
    deliver(small, tmp_path / "in", "real", [event(datetime(2019, 10, 2), "view", 77, 1, "s")])
    row = small[PRODUCTS].read().where("product_id = 77").collect()[0]
    assert (row.brand, f"{row.price}", row.last_seen) == ("b", "1.00", datetime(2019, 10, 2))
    assert differing(small, PRODUCTS) == []


@pytest.mark.parametrize("missing", ["nothing", "statistics"])
def test_events_are_counted_per_date(small, missing, tmp_path):
    if missing == "statistics":
        small.spark.conf.set("spark.databricks.delta.stats.collect", "false")
    try:
        deliver(small, tmp_path / "in", "stray", [STRAY])
    finally:
        small.spark.conf.unset("spark.databricks.delta.stats.collect")
    version = small[EVENTS].version()
    counted = small[EVENTS].read(version).groupBy("event_date").count().collect()
    assert len(counted) == 8
    assert small[EVENTS].rows_by_date(version) == {row.event_date: row["count"] for row in counted}
    assert sum(small[EVENTS].rows_by_date(version - 1).values()) == sum(row["count"] for row in counted) - 1
