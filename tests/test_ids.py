"""Tests of lakes whose product and user ids are texts, and that a lake's ids keep their kind."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pyspark.sql import functions as F

from jobs.forget import main as forget
from jobs.recommend import recommend
from jobs.verify import main as verify
from lambda_spark.cli import lookup
from lambda_spark.errors import UsageError
from lambda_spark.ids import ID_TYPES
from lambda_spark.ingestion.ingest import create_tables
from lambda_spark.operations.maintain import maintain
from lambda_spark.operations.restore import plan, restore
from lambda_spark.serving.inputs import pin_views
from lambda_spark.serving.one_user import for_user
from lambda_spark.settings import IngestSettings, MaintenanceSettings, RecommendationSettings, Settings
from lambda_spark.source_description import SourceDescription
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, ID, RECOMMENDATIONS, REJECTED_EVENTS, TABLES
from tests.deliveries import TRENDS, bring_up_to_date, deliver, differing, event, random_events, with_ids
from tests.in_session import do

USER = "gid://shopify/Customer/70bbe85a-97db"
PRODUCTS = ("0108775015", "108775015", "85123A", "85123a", "gid://shopify/Product/1", "it's")
VISIT = [event(datetime(2019, 10, 2, 0, at), "view", product, USER, "s") for at, product in enumerate(PRODUCTS)]
BAD_LINES = [event(datetime(2019, 10, 2), "look", PRODUCTS[0], user, "s") for user in (USER, "u-1")]


SETTINGS = Settings(
    trends=TRENDS,
    recommendations=RecommendationSettings(
        deny_products=("85123a", "108775015"), filter="product_id not like '%/4'", max_per_category=3, repeat="allow"
    ),
)


def test_text_ids_are_the_same_in_every_table_list_filter_and_command(lake, spark, capsys, tmp_path):
    others = with_ids("text", random_events(4, 60))
    deliver(lake, tmp_path / "in", "one", [*others, *VISIT, *BAD_LINES], ids="text")
    bring_up_to_date(lake, SETTINGS)
    for table in lake.present():
        types = dict(lake[table].read().dtypes)
        assert {types[column.name] for column in table.columns if column.type == ID} <= {"string"}, table.name
    own = lake[EVENTS].read().where(F.col("user_id") == USER).orderBy("event_time").collect()
    assert tuple(row.product_id for row in own) == PRODUCTS
    lists = lake[RECOMMENDATIONS].read().orderBy("user_id", "rank").collect()
    recommended = {row.product_id for row in lists}
    assert {"0108775015", "gid://shopify/Product/1"} <= recommended
    assert {"108775015", "85123a", "gid://shopify/Product/4"}.isdisjoint(recommended)
    written = [row for row in lists if row.user_id == USER]
    assert for_user(pin_views(lake), SETTINGS.recommendations, USER) == written != []

    assert lookup.main(["--user", USER, "--lake", lake.path, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["user_id"], [row["product_id"] for row in printed["recommendations"]]) == (
        USER, [row.product_id for row in written]
    )  # fmt: skip
    assert lookup.main(["--user", "it's", "--lake", lake.path]) == 0
    do("recommend", recommend, spark, "--user", USER, "--lake", lake.path)
    assert f"User {USER}" in capsys.readouterr().out

    do("forget", forget, spark, "--user", USER, "--refuse", "--lake", lake.path)
    assert "events: 6 rows removed" in capsys.readouterr().out
    assert [row.raw for row in lake[REJECTED_EVENTS].read().collect()] == BAD_LINES[1:]
    assert do("verify", verify, spark, "--lake", lake.path) == 0
    again = deliver(lake, tmp_path / "in", "two", [VISIT[0], BAD_LINES[0], others[0]])
    assert (again.events, again.rejected, again.repeats) == (0, 2, 1)


@pytest.mark.long
def test_a_lake_with_text_ids_is_kept_small_and_taken_back(lake, tmp_path):
    """The second delivery has late events, which correct the tables of the first, and a crowd of small files."""
    settings = replace(SETTINGS, maintenance=MaintenanceSettings(min_files=2, expire_days=15))
    inbox, events = tmp_path / "in", with_ids("text", random_events(5, 90))
    deliver(lake, inbox, "one", events[:40], ids="text")
    bring_up_to_date(lake, settings)
    before = lake[EVENTS].read().count()
    time.sleep(1.1)
    moment = datetime.now(UTC)
    deliver(lake, inbox, "two", [*events[40:], *VISIT])
    bring_up_to_date(lake, settings)
    assert differing(lake) == []
    maintain(lake, settings)
    assert lake[EVENTS].read().where("event_date < '2019-10-05'").isEmpty()
    assert differing(lake) == []

    without = replace(settings, source=SourceDescription(ids="text"), ingest=IngestSettings(exclude=("two.csv",)))
    restore(lake, without, plan(lake, moment, [str(inbox)], without.ingest), [str(inbox)])
    assert lake.ids == "text"
    assert 0 < lake[EVENTS].read().count() < before
    assert differing(lake) == []


def test_a_lake_refuses_ids_of_another_kind(lake, tmp_path):
    line = "as ids \\(recorded with the table events\\), not"
    deliver(lake, tmp_path / "in", "one", VISIT, ids="text")
    with pytest.raises(UsageError, match=f"has texts {line} whole numbers: name another --lake"):
        deliver(lake, tmp_path / "in", "two", [], ids="integer")
    numbers = Lake.open(lake.spark, str(tmp_path / "numbers"), create=True)
    create_tables(numbers)
    with pytest.raises(UsageError, match=f'has whole numbers {line} texts: .* source.ids to "integer"'):
        create_tables(numbers, ids="text")


def test_a_lake_that_records_no_kind_has_whole_numbers(lake):
    lake.create(EVENTS)
    assert lake.ids == "integer"


@pytest.mark.parametrize("ids", ["integer", "text"])
def test_every_id_column_has_the_type_and_the_comment_of_the_kind(ids):
    for table in TABLES.values():
        for column, resolved in zip(table.columns, table.columns_for(ids), strict=True):
            assert resolved.type == (ID_TYPES[ids] if column.type == ID else column.type)
            assert ("above 0" in resolved.comment and column.type == ID) <= (ids == "integer")
