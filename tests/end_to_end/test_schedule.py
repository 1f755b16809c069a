"""What a scheduler relies on: one run at a time, waiting or leaving, and exit codes; and its ready files."""

import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from jobs.run import run
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.cli.arguments import parse
from lambda_spark.errors import JobRunningError
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.settings import IngestSettings, TrendSettings
from lambda_spark.storage.tables import DEMAND, TRENDS
from tests.commands import held
from tests.deliveries import HEADER, quiet
from tests.in_session import do

SCHEDULE = Path(__file__).resolve().parents[1] / "conf" / "schedule"


def started(spark, lake, *arguments):
    do("run", run, spark, *arguments, "--lake", lake.path)


def test_a_second_run_leaves_at_once_with_a_code_of_its_own(spark, lake, tmp_path):
    (tmp_path / "in").mkdir()
    first = held(lake, "run", 60)
    try:
        with pytest.raises(JobRunningError, match="run is already running on this lake") as left:
            started(spark, lake, tmp_path / "in")
    finally:
        first.kill()
        first.wait()
    assert left.value.exit_code == 75
    assert lake.present() == []


def test_a_run_that_was_told_to_wait_begins_when_the_first_is_over(lake):
    first = held(lake, "run", 2)
    said = []
    began = time.monotonic()
    with lake.locks.job("run", waiting=said.append):
        waited = time.monotonic() - began
        assert first.wait(10) == 0
    assert 1 < waited < 10
    assert re.fullmatch(r"waiting for the run that is at work on this lake \(process \d+, since .* UTC\)", said[0])


def test_a_run_for_a_span_recomputes_its_buckets_and_no_others(spark, lake, tmp_path, capsys):
    inbox = tmp_path / "in"
    inbox.mkdir()
    days = ("2019-10-01", "2019-10-08", "2019-10-15", "2019-10-22", "2019-10-29")
    lines = [f"{day} 00:00:00 UTC,view,{product},,a.b,c,1.00,1,s" for day in days for product in (1, 2)]
    (inbox / "one.csv").write_text("\n".join([HEADER, *lines, ""]))
    ingest(lake, [str(inbox)], IngestSettings(), progress=quiet)
    refresh_trends(lake, TrendSettings(), progress=quiet)
    # Two rows that are wrong: what lies in the span is put right, the other is not looked at.
    wrong = lake.read(DEMAND).where("bucket_start in ('2019-10-07', '2019-10-21')")
    lake.append(DEMAND, wrong, note={})
    started(spark, lake, inbox, "--from", "2019-10-08", "--to", "2019-10-09")
    assert "trends: 1 buckets recomputed" in capsys.readouterr().out
    rows = {(row.bucket_start, row["count"]) for row in lake.read(DEMAND).groupBy("bucket_start").count().collect()}
    assert (datetime(2019, 10, 7), 2) in rows
    assert (datetime(2019, 10, 21), 4) in rows
    assert lake.last_commit(TRENDS).note["job"] == "trends"


@pytest.mark.parametrize("file", ["lambda-spark.cron", "lambda-spark.service", "lambda_spark_dag.py"])
def test_the_commands_of_the_ready_files_are_commands(file):
    """Every ./spark-submit.sh in them parses, with the options it is given there."""
    text = (SCHEDULE / file).read_text()
    for name, value in (("PROJECT", "/opt/store"), ("EVENTS", "/in"), ("LAKE", "/lake"), ("SPAN", "--from 2019-11-01")):
        text = text.replace(f"{{{name}}}", value)
    found = re.findall(r"^[^#\n]*?/opt/store/spark-submit\.sh (\w+) ([^>\n\"]*)", text, re.MULTILINE)
    assert found
    for job, options in found:
        assert parse(job, options.split()).lake in ("/data/lake", "/lake")
