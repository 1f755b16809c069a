"""Tests of a lake and its tables: properties, logs, vacuum, damaged files, and comments."""

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
from lambda_spark.cli.job import call_with_conflict_retry
from lambda_spark.cli.run_log import RunLog
from lambda_spark.errors import LakeError, UsageError
from lambda_spark.ingestion.ingest import create_tables
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import DEMAND, EVENTS, INGESTION_LOG, JOB_RUNS, TABLES
from tests.in_session import do


def test_recorded_properties_are_read_back_even_if_they_look_like_secrets(lake, tmp_path):
    recorded = {"topic_id.kafka.tokens": "a", "topic_id.kafka.clicks": "mSAh8URLR2", "settings": "it's 7 days"}
    lake.create(EVENTS, properties=recorded)
    assert lake[EVENTS].properties() == recorded
    lake[EVENTS].set_properties({"secret": "url"})
    assert lake[EVENTS].properties() == {**recorded, "secret": "url"}
    # Delete Delta's checksum files, which are optional.
    for checksum in (tmp_path / "lake" / "events" / "_delta_log").glob("0*.crc"):
        checksum.unlink()
    assert lake[EVENTS].properties() == {**recorded, "secret": "url"}


def test_a_lake_notices_that_a_log_was_cleaned(lake, tmp_path):
    lake.create(EVENTS)
    for number in range(3):
        lake[EVENTS].set_properties({"number": str(number)})
    assert lake[EVENTS].has_log_since(0)
    for version in (0, 1):
        (tmp_path / "lake" / "events" / "_delta_log" / f"{version:020}.json").unlink()
    assert lake[EVENTS].has_log_since(1)
    assert not lake[EVENTS].has_log_since(0)


def properties_of(lake, table):
    return dict(map(tuple, lake.spark.sql(f"show tblproperties delta.`{lake[table].location}`").collect()))


def test_a_vacuum_rounds_the_retention_up_to_whole_hours(lake):
    lake.create(EVENTS)
    lake[EVENTS].vacuum(timedelta(minutes=119))
    assert properties_of(lake, EVENTS)["delta.deletedFileRetentionDuration"] == "interval 2 hours"


def test_a_vacuum_keeps_the_log_at_least_as_long_as_the_files(lake):
    def kept():
        return properties_of(lake, EVENTS).get("delta.logRetentionDuration")

    lake.create(EVENTS)
    lake[EVENTS].vacuum(timedelta(days=7))
    assert kept() is None, "Delta's own 30 days"
    lake[EVENTS].vacuum(timedelta(days=90))
    assert kept() == "interval 2160 hours"
    lake[EVENTS].vacuum(timedelta(days=7))
    assert kept() == "interval 720 hours"


def test_a_vacuum_deletes_nothing_that_the_retention_still_protects(small):
    before = small[DEMAND].version()
    rows = small[DEMAND].read(before).count()
    small[DEMAND].overwrite(small[DEMAND].read().limit(1), note={})
    small[DEMAND].vacuum(timedelta(hours=1))
    assert small[DEMAND].read(before).count() == rows > 1
    small[DEMAND].vacuum(timedelta())
    assert not set(small[DEMAND].data_files(before)) & set(small.files.walk(DEMAND.name))


def test_a_job_starts_again_when_another_writer_commits_first(small, tmp_path, capsys):
    """Another program deletes rows that the job is about to replace, so Delta refuses the job's commit."""
    begun, deleted, starts = tmp_path / "begun", tmp_path / "deleted", []

    @F.udf("boolean")
    def waits_for_the_deletion(number):
        begun.touch()
        while not deleted.exists():
            time.sleep(0.05)
        return True

    def delete():
        while not begun.exists():
            time.sleep(0.05)
        DeltaTable.forPath(small.spark, small[DEMAND].location).delete("signal = 'cart'")
        deleted.touch()

    def call(job):
        starts.append(small[DEMAND].version())
        rows = small[DEMAND].read(starts[-1]).limit(2)
        small[DEMAND].overwrite(rows.where(waits_for_the_deletion("product_id")), note={"job": "trends"})

    other = threading.Thread(target=delete)
    other.start()
    assert do("trends", lambda job: call_with_conflict_retry(call, job), small.spark, "--lake", small.path) == 0
    other.join()
    assert starts[1:] == [starts[0] + 1]
    assert "another writer changed these tables meanwhile; starting again" in capsys.readouterr().out
    assert small[DEMAND].last_commit(job="trends").version == starts[1] + 1


def test_a_path_that_is_no_lake_is_refused(spark, tmp_path):
    with pytest.raises(UsageError, match="is no lake yet"):
        Lake.open(spark, str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="may not have a backtick"):
        Lake.open(spark, str(tmp_path / "a` b"), create=True)
    with pytest.raises(UsageError, match=r"s3a://store/lake: unknown or unreachable file system \(.*S3AFileSystem.*\)"):
        Lake.open(spark, "s3a://store/lake")
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match=r"is no lake: it holds 'photo.jpg'"):
        Lake.open(spark, str(tmp_path), create=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.jpg"]


def test_a_failed_first_run_leaves_no_lake_without_events(spark, tmp_path):
    RunLog(Lake.open(spark, str(tmp_path), create=True), "run").finish("failed", "no source")
    assert Lake.open(spark, str(tmp_path), create=True).present() == []
    with pytest.raises(UsageError, match="is no lake yet"):
        Lake.open(spark, str(tmp_path))


def test_a_table_that_a_killed_job_half_created_is_created(small):
    half_made = small.path + "/job_runs/_delta_log"
    os.makedirs(half_made)
    assert JOB_RUNS not in small.present()
    small.versions(*small.present())
    small.create(JOB_RUNS)
    assert small[JOB_RUNS].version() == 0
    assert small[JOB_RUNS].read().count() == 0


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_log_that_lost_a_commit_is_refused(small, spark, damage):
    log = f"{small.path}/events/_delta_log/{0:020}.json"
    os.remove(log) if damage == "missing" else open(log, "w").close()
    with pytest.raises(LakeError, match=f"table events: commit 0 is {damage}"):
        Lake.open(spark, small.path)


def test_every_table_and_column_has_its_comment(small):
    small.create(*TABLES.values())
    for table in TABLES.values():
        columns = table.columns_for("integer")
        described = small.spark.sql(f"describe extended delta.`{small[table].location}`").collect()
        comments = {row.col_name: row.comment for row in described}
        assert {name: comments[name] for name in table.column_names} == {c.name: c.comment for c in columns}, table.name
        assert table.comment in {row.data_type for row in described if row.col_name == "Comment"}, table.name
        fields = {field.name: field.dataType.simpleString() for field in small[table].read().schema}
        assert fields == {column.name: column.type.replace(" ", "") for column in columns}


def clear(lake):
    with ExitStack() as locks:
        return clear_demo_lake(lake.spark, lake.path, locks, ())


def test_the_next_demo_clears_the_demo_lake_of_version_0_1(lake):
    create_tables(lake, properties=MADE_BY_DEMO)
    os.rename(lake[INGESTION_LOG].location, f"{lake.path}/{INGESTION_LOG.former_name}")
    assert clear(lake)
    assert Lake.open(lake.spark, lake.path, create=True).present() == []


def test_the_next_demo_clears_a_half_cleared_demo_lake(lake, monkeypatch):
    create_tables(lake, properties=MADE_BY_DEMO)
    lake.create(DEMAND)
    before = lake.present()

    def delete(files, name):
        if name == EVENTS.name:
            raise KeyboardInterrupt
        shutil.rmtree(f"{lake.path}/{name}", ignore_errors=True)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(FileSystem, "delete", delete)
        with pytest.raises(KeyboardInterrupt):
            clear(lake)
    assert lake.present() != before
    assert clear(lake)
    assert not lake.present()
