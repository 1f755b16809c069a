"""Starts a Spark session in this process, with the properties of conf/spark-defaults.conf as in production."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import SparkSession

from lambda_spark.cli.jars import LOGGING, spark_jars
from lambda_spark.spark import open_session

PROJECT = Path(__file__).resolve().parents[1]


def start_session(
    name: str,
    log: Path,
    *,
    master: str = "local[2]",
    memory: str = "4g",
    with_kafka: bool = False,
    tuned: Mapping[str, str] | None = None,
) -> SparkSession:
    """Open the one Spark session of this process.

    Args:
        name: Part of the application's name.
        log: File for Spark's log.
        master: Spark's master.
        memory: Memory of the driver.
        with_kafka: Whether Spark's Kafka connector is on the class path.
        tuned: Spark properties whose values differ from those in production.
    """
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["LAMBDA_SPARK_LOG"] = str(log)
    properties = {
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(log.parent / "warehouse"),
        **(tuned or {}),
    }
    options = [
        "--master", master, "--driver-memory", memory,
        "--properties-file", str(PROJECT / "conf" / "spark-defaults.conf"),
        "--driver-java-options", LOGGING, *spark_jars(Path(sys.prefix), with_kafka=with_kafka),
        *(part for key, value in properties.items() for part in ("--conf", f"{key}={value}")),
    ]  # fmt: skip
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*options, "pyspark-shell"])
    return open_session(name)
