"""Tests all jobs on a Spark cluster whose executors have no Python and which loses a worker during the run."""

import os
import subprocess
import time

import pytest

from jobs.run import run
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import CO_INTERACTIONS, INGESTION_LOG
from tests.conftest import PROJECT
from tests.faults.killing import SETTINGS, deliveries, tables_of
from tests.in_session import do
from tests.spark_cluster import NO_PYTHON, Cluster

pytestmark = [pytest.mark.process, pytest.mark.long]

SMALL = "--executor-memory 512m --driver-memory 1g --conf spark.sql.shuffle.partitions=2"
WITHIN = 400


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "cluster").mkdir()
    running = Cluster(tmp_path / "cluster", workers=2)
    yield running
    running.stop()


def test_a_cluster_that_loses_a_worker_makes_the_same_tables_as_a_local_run(spark, cluster, tmp_path):
    (tmp_path / "in").mkdir()
    for number, lines in enumerate(deliveries(5)):
        (tmp_path / "in" / f"{number}.csv").write_text("\n".join([*lines, ""]))
    on_cluster, alone = tmp_path / "lake", tmp_path / "alone"
    log = tmp_path / "run.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(PROJECT / "spark-submit.sh"), "run", str(tmp_path / "in"), "--lake", str(on_cluster), *SETTINGS],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "SPARK_MASTER": cluster.master,
                "SPARK_SUBMIT_OPTIONS": f"{SMALL} --conf spark.executorEnv.PYSPARK_PYTHON={NO_PYTHON}",
            },
        )
    end = time.monotonic() + WITHIN
    while "trends: demand written" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    cluster.kill_worker(0)
    assert process.wait(WITHIN) == 0, log.read_text()
    assert cluster.executor_logs(0), "the killed worker had no executor"
    assert "on spark://127.0.0.1" in log.read_text()

    do("run", run, spark, tmp_path / "in", "--lake", alone, *SETTINGS)
    actual, expected = (tables_of(Lake.open(spark, str(path))) for path in (on_cluster, alone))
    # Compare only the number of rows in the ingestion log, because its counts can differ between runs. If two files of
    # one micro-batch hold the same line, either file may count an event, and the other counts a repeat.
    log_rows, expected_log_rows = actual.pop(INGESTION_LOG.name), expected.pop(INGESTION_LOG.name)
    assert actual == expected
    assert log_rows.total() == expected_log_rows.total() == 3
    assert expected[CO_INTERACTIONS.name]
