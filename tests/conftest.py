"""One Spark session for all tests, with the engine of production: the properties of conf/spark-defaults.conf."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lambda_spark.lake import Lake
from lambda_spark.launch import KAFKA_CONF, KAFKA_JARS, fetch_jars, spark_jars
from lambda_spark.session import open_session

PROJECT = Path(__file__).resolve().parents[1]
REAL_DATA = PROJECT.parent / "shared" / "data"
OCTOBER = REAL_DATA / "rees46-2019-oct-head.csv.gz"
NOVEMBER = REAL_DATA / "rees46-2019-nov-sample.csv.gz"

needs_real_data = pytest.mark.skipif(not OCTOBER.exists(), reason="the real events are not part of the project")


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    folder = tmp_path_factory.mktemp("spark")
    fetch_jars(KAFKA_CONF, Path(sys.prefix), KAFKA_JARS)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["LAMBDA_SPARK_LOG"] = f"{folder}/spark.log"
    tuned = {
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    # Both compilers: in a session this long what the second costs is soon won back (measured: 372 s to 286 s).
    java = (
        f"-Dlog4j2.configurationFile=file:{PROJECT}/conf/log4j2.properties "
        "-XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC"
    )
    options = [
        "--master", "local[2]", "--driver-memory", "2g",
        "--properties-file", str(PROJECT / "conf" / "spark-defaults.conf"),
        "--driver-java-options", f"'{java}'", *spark_jars(Path(sys.prefix), with_kafka=True),
        *(part for key, value in tuned.items() for part in ("--conf", f"{key}={value}")),
    ]  # fmt: skip
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join([*options, "pyspark-shell"])
    opened = open_session("tests")
    yield opened
    opened.stop()


@pytest.fixture
def spark(session: SparkSession) -> Iterator[SparkSession]:
    """The shared session; what a test left in its catalog and cache is cleaned."""
    yield session
    for view in session.catalog.listTables():
        session.catalog.dropTempView(view.name)
    session.catalog.clearCache()


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    """A fresh lake."""
    return Lake.open(spark, str(tmp_path / "lake"), create=True)
