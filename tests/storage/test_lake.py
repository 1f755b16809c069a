"""What a lake says of its tables."""

import os
import shutil
import threading
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from delta.tables import DeltaTable
from pyspark.sql import functions as F

from lambda_spark.cli.demo_lake import MADE_BY_DEMO, clear_demo_lake
from lambda_spark.cli.job import call_until_written
from lambda_spark.cli.run_log import RunLog
from lambda_spark.errors import LakeError, UsageError
from lambda_spark.ingestion.ingest import create_tables
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import DEMAND, EVENTS, JOB_RUNS, TABLES
from tests.in_session import do


def test_what_is_recorded_is_read_as_it_was_also_where_it_looks_like_a_secret(lake, tmp_path):
    recorded = {"topic_id.kafka.tokens": "a", "topic_id.kafka.clicks": "mSAh8URLR2", "settings": "it's 7 days"}
    lake.create(EVENTS, properties=recorded)
    assert lake.properties(EVENTS) == recorded
    lake.set_properties(EVENTS, {"secret": "url"})
    assert lake.properties(EVENTS) == {**recorded, "secret": "url"}
    # Delta asks nobody to keep its checksums.
    for checksum in (tmp_path / "lake" / "events" / "_delta_log").glob("0*.crc"):
        checksum.unlink()
    assert lake.properties(EVENTS) == {**recorded, "secret": "url"}


def test_a_log_that_was_cleaned_is_known_to_be_shorter(lake, tmp_path):
    lake.create(EVENTS)
    for number in range(3):
        lake.set_properties(EVENTS, {"number": str(number)})
    assert lake.has_log_since(EVENTS, 0)
    for version in (0, 1):
        (tmp_path / "lake" / "events" / "_delta_log" / f"{version:020}.json").unlink()
    assert lake.has_log_since(EVENTS, 1)
    assert not lake.has_log_since(EVENTS, 0)


def properties_of(lake, table):
    return dict(map(tuple, lake.spark.sql(f"show tblproperties delta.`{lake.location(table)}`").collect()))


def test_a_vacuum_keeps_at_least_what_was_asked_for(lake):
    lake.create(EVENTS)
    lake.vacuum(EVENTS, timedelta(minutes=119))
    assert properties_of(lake, EVENTS)["delta.deletedFileRetentionDuration"] == "interval 2 hours"


def test_the_log_of_a_table_goes_as_far_back_as_its_files(lake):
    def kept():
        return properties_of(lake, EVENTS).get("delta.logRetentionDuration")

    lake.create(EVENTS)
    lake.vacuum(EVENTS, timedelta(days=7))
    assert kept() is None, "Delta's own 30 days"
    lake.vacuum(EVENTS, timedelta(days=90))
    assert kept() == "interval 2160 hours"
    lake.vacuum(EVENTS, timedelta(days=7))
    assert kept() == "interval 720 hours"


def test_a_vacuum_deletes_nothing_that_the_retention_still_protects(small):
    before = small.version(DEMAND)
    rows = small.read(DEMAND, before).count()
    small.overwrite(DEMAND, small.read(DEMAND).limit(1), note={})
    small.vacuum(DEMAND, timedelta(hours=1))
    assert small.read(DEMAND, before).count() == rows > 1
    small.vacuum(DEMAND, timedelta())
    assert not set(small.data_files(DEMAND, before)) & set(small.files.walk(DEMAND.name))


def test_a_job_begins_again_where_another_writer_came_first(small, tmp_path, capsys):
    """A shell that deletes rows while a job is about to replace them, which Delta refuses then."""
    begun, go_on, starts = tmp_path / "begun", tmp_path / "go on", []

    @F.udf("boolean")
    def is_let_through(number):
        begun.touch()
        while not go_on.exists():
            time.sleep(0.05)
        return True

    def delete():
        while not begun.exists():
            time.sleep(0.05)
        DeltaTable.forPath(small.spark, small.location(DEMAND)).delete("signal = 'cart'")
        go_on.touch()

    def call(job):
        starts.append(small.version(DEMAND))
        rows = small.read(DEMAND, starts[-1]).limit(2)
        small.overwrite(DEMAND, rows.where(is_let_through("product_id")), note={"job": "trends"})

    other = threading.Thread(target=delete)
    other.start()
    assert do("trends", lambda job: call_until_written(call, job), small.spark, "--lake", small.path) == 0
    other.join()
    assert starts[1:] == [starts[0] + 1]
    assert "something else has written to these tables meanwhile; starting again" in capsys.readouterr().out
    assert small.last_commit(DEMAND, job="trends").version == starts[1] + 1


def test_what_no_lake_is_is_refused(spark, tmp_path):
    with pytest.raises(UsageError, match="is no lake yet"):
        Lake.open(spark, str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="may not have a backtick"):
        Lake.open(spark, str(tmp_path / "a` b"), create=True)
    with pytest.raises(UsageError, match=r"s3a://store/lake: there is no way to its file system: .*S3AFileSystem"):
        Lake.open(spark, "s3a://store/lake")
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match=r"is no lake: it holds 'photo.jpg'"):
        Lake.open(spark, str(tmp_path), create=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.jpg"]


def test_a_first_run_that_failed_leaves_no_lake_that_has_lost_its_events(spark, tmp_path):
    RunLog(Lake.open(spark, str(tmp_path), create=True), "run").finish("failed", "no source")
    assert Lake.open(spark, str(tmp_path), create=True).present() == []
    with pytest.raises(UsageError, match="is no lake yet"):
        Lake.open(spark, str(tmp_path))


def test_a_table_that_was_being_created_when_its_job_was_killed_is_created(small):
    half_made = small.path + "/job_runs/_delta_log"
    os.makedirs(half_made)
    assert JOB_RUNS not in small.present()
    small.versions(*small.present())
    small.create(JOB_RUNS)
    assert small.version(JOB_RUNS) == 0
    assert small.read(JOB_RUNS).count() == 0


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_log_that_lost_a_commit_is_refused(small, spark, damage):
    log = f"{small.path}/events/_delta_log/{0:020}.json"
    os.remove(log) if damage == "missing" else open(log, "w").close()
    with pytest.raises(LakeError, match=f"table events: commit 0 is {damage}"):
        Lake.open(spark, small.path)


def test_every_table_and_column_carries_its_comment(small):
    small.create(*TABLES.values())
    for table in TABLES.values():
        described = small.spark.sql(f"describe extended delta.`{small.location(table)}`").collect()
        comments = {row.col_name: row.comment for row in described}
        assert {name: comments[name] for name in table.column_names} == {c.name: c.comment for c in table.columns}, (
            table.name
        )
        assert table.comment in {row.data_type for row in described if row.col_name == "Comment"}, table.name
        fields = {field.name: field.dataType.simpleString() for field in small.read(table).schema}
        assert fields == {column.name: column.type.replace(" ", "") for column in table.columns}


def test_a_demos_lake_that_was_half_cleared_is_cleared_by_the_next_demo(lake, monkeypatch):
    create_tables(lake, properties=MADE_BY_DEMO)
    lake.create(DEMAND)
    before, deletions = lake.present(), []

    def delete(files, name):
        if len(deletions) == len(TABLES):
            raise KeyboardInterrupt
        deletions.append(name)
        shutil.rmtree(f"{lake.path}/{name}", ignore_errors=True)

    def clear():
        with ExitStack() as locks:
            return clear_demo_lake(lake.spark, lake.path, locks, ())

    with monkeypatch.context() as interrupted:
        interrupted.setattr(FileSystem, "delete", delete)
        with pytest.raises(KeyboardInterrupt):
            clear()
    assert lake.present() != before
    assert clear()
    assert not lake.present()
