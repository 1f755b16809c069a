"""Tests of the command `status`, and of the rows that each job writes to the table `job_runs`."""

import json
import re
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from lambda_spark.cli import run_log
from lambda_spark.cli.run_log import RunLog, messages_behind
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.newest import SetAside
from lambda_spark.operations.status import JobStatus, Status, StepStatus, StreamStatus, TableStatus, status
from lambda_spark.report.pipeline import set_aside_lines
from lambda_spark.report.status import prometheus_text, status_json, status_tables, write_whole
from lambda_spark.settings import IngestSettings, SimilaritySettings
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, JOB_RUNS
from tests.deliveries import HEADER

NOON = datetime(2019, 11, 1, 12, tzinfo=UTC)

FOUND = Status(
    lake="/lake",
    at=NOON,
    lines=1_000,
    rejected=5,
    tables=[
        TableStatus("events", 3, NOON.replace(tzinfo=None), 990, 12_345, 2, datetime(2019, 10, 31, 23)),
        TableStatus("recommendations", 1, NOON.replace(tzinfo=None), 10, 99, 1, None),
    ],
    steps=[StepStatus("trends", 3, 0.0), StepStatus("similarity", 2, 3_725.0)],
    streams=[StreamStatus("ingest-kafka-clicks", NOON, 1.5, 2.25, 7), StreamStatus("ingest", NOON, 3, 3, None)],
    jobs=[JobStatus("run", NOON, 61.5, "failed")],
    set_aside=SetAside(1, date(2024, 1, 1), date(2024, 1, 1), 1_523),
)


@pytest.fixture
def known(lake, tmp_path):
    """A lake with three events and a rejected line. One event is new to the job `similarity`. All runs are recorded."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    log = RunLog(lake, "ingest")
    (inbox / "one.csv").write_text(
        f"{HEADER}\n2019-10-01 00:00:00 UTC,view,1,,,,1.00,1,s\n2019-10-02 10:00:00 UTC,view,2,,,,1.00,1,s\nbroken\n"
    )
    ingest(lake, [str(inbox)], IngestSettings())
    update_similarity(lake, SimilaritySettings())
    (inbox / "two.csv").write_text(f"{HEADER}\n2019-10-01 00:00:01 UTC,view,3,,,,1.00,1,s\n")
    ingest(lake, [str(inbox)], IngestSettings())
    log.finish("done", "three events")
    return lake


def test_a_run_that_could_not_be_noted_is_noted_with_the_next_write(lake, monkeypatch):
    lake.create(EVENTS)
    log = RunLog(lake, "ingest")
    with monkeypatch.context() as broken:
        broken.setattr(TableHandle, "append", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            log.finish("failed", "a full disk")
    log.append()
    assert [row.detail for row in lake[JOB_RUNS].read().collect()] == ["a full disk"]


def test_the_run_log_of_a_stream_continues_after_a_failed_write(lake, monkeypatch):
    tried = threading.Semaphore(0)
    monkeypatch.setattr(run_log, "_WRITE_EVERY", 0.01)
    monkeypatch.setattr(RunLog, "append", lambda _: tried.release() or 1 / 0)
    log = RunLog(lake, "ingest")
    assert all(tried.acquire(timeout=60) for _ in range(3))
    with pytest.raises(ZeroDivisionError):
        log.finish("done", "")


def test_the_status_of_a_lake_agrees_with_its_tables(known):
    found = status(known, datetime.now(UTC) + timedelta(hours=1))
    tables = {entry.table: entry for entry in found.tables}
    assert (tables["events"].rows, tables["events"].newest) == (3, datetime(2019, 10, 2, 10))
    assert (tables["rejected_events"].rows, tables["rejected_events"].newest) == (1, None)
    assert tables["baskets"].newest == datetime(2019, 10, 2)
    assert all(tables[table.name].version == known[table].version() for table in known.present())
    assert all(entry.bytes > 0 and entry.files > 0 for entry in found.tables if entry.rows)
    assert (found.lines, found.rejected, found.rejected_share) == (4, 1, 0.25)
    [similarity] = found.steps
    assert similarity.step == "similarity"
    assert 3_600 < similarity.lag_seconds < 3_600 + 600
    assert {stream.stream for stream in found.streams} == {"ingest", "similarity"}
    assert all(0 < stream.seconds <= stream.worst_seconds for stream in found.streams)
    assert all(stream.messages_behind is None for stream in found.streams)
    assert [(job.job, job.outcome) for job in found.jobs] == [("ingest", "done")]
    # When the job `similarity` has processed all events, no job is behind.
    update_similarity(known, SimilaritySettings())
    assert [step.lag_seconds for step in status(known, datetime.now(UTC)).steps] == [0.0]
    # The table `job_runs` records every micro-batch once, with the figures that Spark reported.
    rows = known[JOB_RUNS].read().collect()
    assert sorted((row.job, row.batch_id) for row in rows if row.batch_id is not None) == [
        ("ingest", 0), ("ingest", 1), ("similarity", 0),
    ]  # fmt: skip
    assert {row.run_id for row in rows} == {rows[0].run_id}
    assert all(json.loads(row.detail)["addBatch"] >= 0 for row in rows if row.batch_id is not None)
    assert [row.detail for row in rows if row.batch_id is None] == ["three events"]


def test_the_status_of_a_stream_summarises_its_latest_micro_batches(lake):
    lake.create(EVENTS, INGESTION_LOG, JOB_RUNS)
    started = "timestamp'2019-11-01 12:00:00' + make_interval(0, 0, 0, 0, 0, id)"
    batches = lake.spark.range(25).selectExpr(
        "'run' as run_id", "'ingest' as job", "id as batch_id", f"{started} as started_at",
        "double(24 - id) as seconds", "10L as input_rows", "24 - id as messages_behind", "'done' as outcome",
        "'' as detail",
    )  # fmt: skip
    lake[JOB_RUNS].append(batches, note={})
    [stream] = status(lake, NOON).streams
    assert (stream.last_batch_at, stream.messages_behind) == (datetime(2019, 11, 1, 12, 24), 0)
    assert (stream.seconds, stream.worst_seconds) == (10.0, 19.0)


def test_unread_kafka_messages_are_counted_by_partition():
    assert messages_behind('{"t": {"0": 5, "1": 7}}', '{"t": {"0": 9, "1": 7}}') == 4
    assert messages_behind('{"logOffset": 3}', None) is None
    assert messages_behind('{"reservoirVersion": 3}', '{"reservoirVersion": 4}') is None
    assert messages_behind(None, None) is None


def test_the_tables_for_people_show_names_and_units():
    text = status_tables(FOUND)
    assert "/lake at 2019-11-01 12:00:00 UTC: 1,000 records read, 0.50 % of them rejected" in text
    assert re.search(r"events +990 +2019-10-31 23:00:00 12.3 kB +2 +3 +2019-11-01 12:00:00", text)
    assert re.search(r"trends +events v3 none", text)
    assert re.search(r"similarity events v2 1 h 2 min", text)
    assert re.search(r"ingest-kafka-clicks 2019-11-01 12:00:00 1.5 +2.2 +7", text)
    assert re.search(r"run 2019-11-01 12:00:00 61.5 +failed", text)
    assert "\n1 event set aside: it lies 1,523 days after all others (2024-01-01) and counts nowhere until" in text
    assert "set aside" not in status_tables(replace(FOUND, set_aside=None))


def test_events_that_are_set_aside_are_named_with_their_dates_and_a_query():
    first, query = set_aside_lines(SetAside(1_200, date(2024, 1, 1), date(2031, 5, 2), 1_523))
    assert first.startswith(
        "1,200 events set aside: they lie 1,523 days or more after all others (2024-01-01 to 2031-05-02) and count"
    )
    assert query == """  which: ./spark-submit.sh sql "select * from events where event_date >= '2024-01-01'\""""
    assert set_aside_lines(None) == []


def test_the_json_for_programs_is_one_object_with_times_in_utc():
    found = json.loads(status_json(FOUND))
    assert found["rejected_share"] == 0.005
    assert found["set_aside"] == {"events": 1, "first": "2024-01-01", "last": "2024-01-01", "days_after": 1_523}
    assert found["tables"][0]["newest"] == "2019-10-31T23:00:00+00:00"
    assert found["streams"][0] == {
        "stream": "ingest-kafka-clicks",
        "last_batch_at": "2019-11-01T12:00:00+00:00",
        "seconds": 1.5,
        "worst_seconds": 2.25,
        "messages_behind": 7,
    }


def test_prometheus_gets_gauges_each_with_help_type_and_labels():
    text = prometheus_text(FOUND)
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(samples['lambda_spark_table_rows{table="events"}']) == 990
    assert float(samples['lambda_spark_table_newest_timestamp_seconds{table="events"}']) == 1572562800
    assert 'lambda_spark_table_newest_timestamp_seconds{table="recommendations"}' not in samples
    assert float(samples['lambda_spark_step_lag_seconds{step="similarity"}']) == 3_725
    assert float(samples['lambda_spark_stream_messages_behind{stream="ingest-kafka-clicks"}']) == 7
    assert float(samples['lambda_spark_job_succeeded{job="run"}']) == 0
    assert float(samples["lambda_spark_lines_rejected"]) == 5
    assert float(samples["lambda_spark_events_set_aside"]) == 1
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"\})? -?[0-9.e+]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in text.splitlines())
    names = {re.split(r"[{ ]", name)[0] for name in samples}
    assert names == set(re.findall(r"# TYPE (\S+) gauge", text)) == set(re.findall(r"# HELP (\S+) \S", text))
    assert text.endswith("\n")


def test_the_file_for_prometheus_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "lambda_spark.prom"
    write_whole(file, "old\n")
    seen = []
    replace = type(file).replace
    monkeypatch.setattr(
        type(file), "replace", lambda draft, to: (seen.append((draft, file.read_text())), replace(draft, to))
    )
    write_whole(file, "new\n")
    [(draft, before)] = seen
    assert before == "old\n"
    assert draft.suffix != ".prom", "the collector reads every *.prom"
    assert file.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [file]
