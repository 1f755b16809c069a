"""Fixtures that give tests their lakes and one shared Spark session, configured by conf/spark-defaults.conf."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lambda_spark.cli.jars import KAFKA_CONF, KAFKA_JARS, fetch_jars
from lambda_spark.settings import Settings
from lambda_spark.storage.lake import Lake
from tests.deliveries import TRENDS, bring_up_to_date, deliver, random_events
from tests.sessions import PROJECT, start_session

REAL_DATA = PROJECT.parent / "shared" / "data"
OCTOBER = REAL_DATA / "rees46-2019-oct-head.csv.gz"
NOVEMBER = REAL_DATA / "rees46-2019-nov-sample.csv.gz"

needs_real_data = pytest.mark.skipif(not OCTOBER.exists(), reason="the real events are not part of the project")


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    folder = tmp_path_factory.mktemp("spark")
    fetch_jars(KAFKA_CONF, Path(sys.prefix), KAFKA_JARS)
    tuned = {
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        # Interpret the projections between the stages of a query. To compile them takes a fifth of all time on data as
        # small as here. The stages themselves are compiled as in production.
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
    opened = start_session("tests", folder / "spark.log", memory="2g", with_kafka=True, tuned=tuned)
    yield opened
    opened.stop()


@pytest.fixture
def spark(session: SparkSession) -> Iterator[SparkSession]:
    """The Spark session that all tests share. After each test, the session's catalogue and cache are emptied."""
    yield session
    # Do not use `catalog.listTables`, which needs compiled projections.
    for view in session.sql("show views").collect():
        session.catalog.dropTempView(view.viewName)
    session.catalog.clearCache()
    # Free memory, because Delta keeps a snapshot of every table it has read, and the tests read hundreds of tables.
    # Collect Python garbage too, because Java keeps an object as long as Python has a proxy for the object.
    session._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    gc.collect()


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    """A new lake without tables."""
    return Lake.open(spark, str(tmp_path / "lake"), create=True)


@pytest.fixture(scope="session")
def template(session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the events of a few sessions and all computed tables up to date, for tests to copy."""
    folder = tmp_path_factory.mktemp("template")
    lake = Lake.open(session, str(folder / "lake"), create=True)
    deliver(lake, folder / "in", "one", random_events(4, 60))
    bring_up_to_date(lake, Settings(trends=TRENDS))
    return folder / "lake"


@pytest.fixture
def small(spark: SparkSession, template: Path, tmp_path: Path) -> Lake:
    """The test's own copy of the lake `template`. A test module may define its own `template`."""
    shutil.copytree(template, tmp_path / "lake")
    return Lake.open(spark, str(tmp_path / "lake"))
