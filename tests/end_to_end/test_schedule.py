"""Tests of what schedulers rely on: locks, waiting or exiting, exit codes, and the ready-made schedule files."""

import logging
import re
from datetime import datetime
from pathlib import Path

import pytest

from jobs.run import run
from lambda_spark.batch.refresh import update_trends
from lambda_spark.cli.arguments import parse
from lambda_spark.errors import JobRunningError
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.settings import IngestSettings, TrendSettings
from lambda_spark.storage.tables import DEMAND, TRENDS
from tests.commands import held
from tests.deliveries import HEADER
from tests.in_session import do

SCHEDULE = Path(__file__).resolve().parents[2] / "conf" / "schedule"


def start_run(spark, lake, *arguments):
    do("run", run, spark, *arguments, "--lake", lake.path)


def test_a_second_run_exits_at_once_with_its_own_code(spark, lake, tmp_path):
    (tmp_path / "in").mkdir()
    first = held(lake, "run", 60)
    try:
        with pytest.raises(JobRunningError, match="run is already running on this lake") as left:
            start_run(spark, lake, tmp_path / "in")
    finally:
        first.kill()
        first.wait()
    assert left.value.exit_code == 75
    assert lake.present() == []


def test_a_run_with_wait_begins_when_the_first_run_ends(lake, caplog):
    first = held(lake, "run", 2)
    caplog.set_level(logging.INFO, logger="lambda_spark")
    with lake.locks.job("run", wait=True):
        assert first.wait(10) == 0
    assert re.fullmatch(
        r"waiting for the run that is at work on this lake \(process \d+, since .* UTC\)", caplog.messages[0]
    )


def test_a_run_for_a_span_recomputes_only_the_buckets_in_the_span(spark, lake, tmp_path, capsys):
    inbox = tmp_path / "in"
    inbox.mkdir()
    days = ("2019-10-01", "2019-10-08", "2019-10-15", "2019-10-22", "2019-10-29")
    lines = [f"{day} 00:00:00 UTC,view,{product},,a.b,c,1.00,1,s" for day in days for product in (1, 2)]
    (inbox / "one.csv").write_text("\n".join([HEADER, *lines, ""]))
    ingest(lake, [str(inbox)], IngestSettings())
    update_trends(lake, TrendSettings())
    # Append wrong rows to two buckets. The run must repair the bucket in its time span and ignore the other bucket.
    wrong = lake[DEMAND].read().where("bucket_start in ('2019-10-07', '2019-10-21')")
    lake[DEMAND].append(wrong, note={})
    start_run(spark, lake, inbox, "--from", "2019-10-08", "--to", "2019-10-09")
    assert "trends: 1 buckets recomputed" in capsys.readouterr().out
    rows = {(row.bucket_start, row["count"]) for row in lake[DEMAND].read().groupBy("bucket_start").count().collect()}
    assert (datetime(2019, 10, 7), 2) in rows
    assert (datetime(2019, 10, 21), 4) in rows
    assert lake[TRENDS].last_commit().note["job"] == "trends"


@pytest.mark.parametrize("file", ["lambda-spark.cron", "lambda-spark.service", "lambda_spark_dag.py"])
def test_the_commands_in_the_ready_files_parse(file):
    """Every `./spark-submit.sh` command in a ready-made schedule file has valid options."""
    text = (SCHEDULE / file).read_text()
    for name, value in (("PROJECT", "/opt/store"), ("EVENTS", "/in"), ("LAKE", "/lake"), ("SPAN", "--from 2019-11-01")):
        text = text.replace(f"{{{name}}}", value)
    found = re.findall(r"^[^#\n]*?/opt/store/spark-submit\.sh (\w+) ([^>\n\"]*)", text, re.MULTILINE)
    assert found
    for job, options in found:
        assert parse(job, options.split()).lake in ("/data/lake", "/lake")
