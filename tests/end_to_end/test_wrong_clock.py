"""A test that one event of a wrong clock changes nothing in the store of the demo."""

import shutil

import pytest
from pyspark.sql import functions as F

from jobs.run import run
from jobs.status import main as status
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
from tests.deliveries import differing
from tests.in_session import do
from tests.sessions import PROJECT

WRONG_CLOCK = PROJECT.parent / "shared" / "field" / "wrong-clock.csv"
USER = 521001221

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(not WRONG_CLOCK.exists(), reason="the field samples are not part of the project"),
]


def rows_of(lake, table):
    """Return the rows of a table, without what says where a row came from and without the rows of the one event."""
    left_out = {"batch_id", *(name for name in table.column_names if name.endswith("_version"))}
    rows = lake[table].read()
    if "event_date" in table.column_names:
        rows = rows.where(F.col("event_date") < F.lit("2024-01-01"))
    if "user_id" in table.column_names:
        rows = rows.where(F.col("user_id") != USER)
    return rows.select(*(name for name in table.column_names if name not in left_out))


def test_one_event_of_2024_changes_nothing_in_the_store_of_the_demo(demo, spark, tmp_path, capsys):
    folder, _ = demo
    shutil.copytree(folder / "lake", tmp_path / "lake")
    before = Lake.open(spark, str(folder / "lake"))
    do("run", run, spark, WRONG_CLOCK, "--lake", tmp_path / "lake")
    assert "1 event set aside: it lies 1," in capsys.readouterr().out
    lake = Lake.open(spark, str(tmp_path / "lake"))
    assert lake[EVENTS].read().count() == before[EVENTS].read().count() + 1
    assert lake[RECOMMENDATIONS].read().select("user_id").distinct().count() == 837
    assert lake[SIMILAR_ITEMS].read().count() == 6_676
    for table in (
        PRODUCTS, DEMAND, TRENDS, CATEGORY_TRENDS, BRAND_TRENDS, USER_TRENDS, BASKETS, CO_INTERACTIONS, SIMILAR_ITEMS,
        RECOMMENDATIONS,
    ):  # fmt: skip
        now, then = rows_of(lake, table), rows_of(before, table)
        assert now.exceptAll(then).isEmpty(), table.name
        assert then.exceptAll(now).isEmpty(), table.name
    do("status", status, spark, "--lake", tmp_path / "lake")
    assert "1 event set aside: it lies 1," in capsys.readouterr().out
    assert differing(lake) == []
