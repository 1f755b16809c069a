"""Maintenance: fewer files and fewer dates, and not one row of what is left any different."""

import shutil
from datetime import datetime

import pytest

from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.lake import Lake
from lambda_spark.operations.maintenance import maintain, parts_of, plan
from lambda_spark.operations.verify import verify
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.settings import (
    MaintenanceSettings,
    RecommendationSettings,
    Settings,
    SimilaritySettings,
    TrendSettings,
)
from lambda_spark.speed.stream import update
from lambda_spark.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    SIMILAR_ITEMS,
    TRENDS,
)
from tests.test_stream import contents, deliver, quiet, random_events

pytestmark = pytest.mark.long

SETTINGS = Settings(
    trends=TrendSettings(min_change=2, min_z=0.5),
    similarity=SimilaritySettings(),
    maintenance=MaintenanceSettings(min_files=2),
)
KEEP_ALL = Settings(trends=SETTINGS.trends, maintenance=MaintenanceSettings(min_files=2))
OLD = datetime(2019, 10, 1, 12)


def bring_up_to_date(lake):
    update(lake, SETTINGS.similarity, progress=quiet)
    refresh_trends(lake, SETTINGS.trends, progress=quiet)
    refresh_recommendations(lake, RecommendationSettings(), progress=quiet)


@pytest.fixture(scope="module")
def template(session, tmp_path_factory):
    """A lake after two deliveries, up to date, to be copied."""
    folder = tmp_path_factory.mktemp("maintenance")
    lake = Lake.open(session, str(folder / "lake"), create=True)
    lines = random_events(4, 80)
    for part in range(2):
        deliver(lake, folder / "in", str(part), lines[part::2])
        update(lake, SETTINGS.similarity, progress=quiet)
    bring_up_to_date(lake)
    return folder / "lake"


@pytest.fixture
def small(spark, template, tmp_path):
    shutil.copytree(template, tmp_path / "lake")
    return Lake.open(spark, str(tmp_path / "lake"))


def differing(lake):
    return [finding.table for finding in verify(lake, quiet) if finding.differs]


def test_folding_and_compaction_change_nothing_but_the_number_of_files(small):
    before = [contents(small, table) for table in (EVENTS, SIMILAR_ITEMS, TRENDS)]
    planned = plan(small, KEEP_ALL.maintenance)
    assert set(planned.packing) == {"events", "baskets", "co_interactions", "ingested_files"}
    maintain(small, KEEP_ALL, quiet)
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        assert {part.files for part in parts_of(small, table) if part.date} == {1}, table.name
    assert (
        small.read(BASKETS)
        .groupBy("event_date", "relation", "user_id", "user_session", "product_id")
        .count()
        .where("count > 1")
        .isEmpty()
    )
    assert [contents(small, table) for table in (EVENTS, SIMILAR_ITEMS, TRENDS)] == before
    assert differing(small) == []
    assert plan(small, KEEP_ALL.maintenance).packing == {}
