"""Tests of migrating a lake from version 0.1, in which the ingestion log was the table `ingested_files`."""

import os
import shutil
from datetime import datetime

import pytest

from jobs.migrate import main
from lambda_spark.errors import JobRunningError, LakeError, UsageError
from lambda_spark.operations.migrate import migrate, tables_to_rename
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import INGESTION_LOG, RECOMMENDATIONS, SIMILAR_ITEMS, TRENDS
from tests.commands import held
from tests.deliveries import contents, deliver, event
from tests.in_session import do


@pytest.fixture
def rows(small):
    """The rows of the ingestion log, read before the test gives the table its former name."""
    return contents(small, INGESTION_LOG)


@pytest.fixture
def old(small, rows):
    """A lake as version 0.1 of the project left it."""
    os.rename(f"{small.path}/ingestion_log", f"{small.path}/ingested_files")
    return small


def names(lake):
    return {name for name in os.listdir(lake.path) if name in ("ingestion_log", "ingested_files")}


def test_a_lake_of_version_0_1_is_refused_with_the_command_that_migrates_it(old):
    with pytest.raises(LakeError, match=r"ingestion_log was called ingested_files.*`\./spark-submit\.sh migrate"):
        Lake.open(old.spark, old.path)


def test_migrate_renames_the_table_and_keeps_its_rows(old, rows):
    assert migrate(old) == [INGESTION_LOG]
    assert names(old) == {"ingestion_log"}
    assert rows
    assert contents(Lake.open(old.spark, old.path), INGESTION_LOG) == rows


def test_ingest_continues_after_the_migration(old, rows, tmp_path):
    migrate(old)
    lake = Lake.open(old.spark, old.path)
    assert deliver(lake, tmp_path / "in", "more", [event(datetime(2019, 10, 22), "view", 1, 3, "new")]).events == 1
    assert len(contents(lake, INGESTION_LOG)) == len(rows) + 1


def test_a_dry_run_names_the_table_and_renames_nothing(old, capsys):
    do("migrate", main, old.spark, "--dry-run", "--lake", old.path)
    assert "would be renamed: ingested_files to ingestion_log" in capsys.readouterr().out
    assert names(old) == {"ingested_files"}


def test_a_log_without_a_commit_does_not_prevent_the_migration(old, rows):
    """A job of the current version was killed while it created the new ingestion log, so this table has no commit."""
    os.makedirs(f"{old.path}/ingestion_log/_delta_log")
    assert migrate(old) == [INGESTION_LOG]
    assert contents(Lake.open(old.spark, old.path), INGESTION_LOG) == rows


def test_a_lake_with_the_table_under_both_names_is_refused(small):
    shutil.copytree(f"{small.path}/ingestion_log", f"{small.path}/ingested_files")
    for call in (tables_to_rename, migrate):
        with pytest.raises(LakeError, match="holds both ingested_files and ingestion_log"):
            call(small)
    assert names(small) == {"ingested_files", "ingestion_log"}


def test_migrate_does_not_start_while_a_job_is_running(old):
    job = held(old, "trends", 60)
    try:
        with pytest.raises(JobRunningError, match="trends is already running on this lake"):
            migrate(old)
    finally:
        job.kill()
        job.wait()
    assert names(old) == {"ingested_files"}


def test_a_lake_of_this_version_has_nothing_to_migrate(small, rows, capsys):
    assert tables_to_rename(small) == []
    do("migrate", main, small.spark, "--lake", small.path)
    assert "nothing to migrate" in capsys.readouterr().out
    assert names(small) == {"ingestion_log"}
    assert contents(small, INGESTION_LOG) == rows


def test_a_folder_without_a_lake_cannot_be_migrated(spark, tmp_path):
    with pytest.raises(UsageError, match="is no lake"):
        tables_to_rename(Lake(spark, str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("table", "recorded", "today"),
    [
        (TRENDS, {"max_false_share": "0.1", "min_z": "2.0"}, {"max_fdr": "0.1", "min_z": "2.0"}),
        (SIMILAR_ITEMS, {"k": "3", "measure": "lift"}, {"max_neighbours": "3", "measure": "lift"}),
        (
            RECOMMENDATIONS,
            {"k": "5", "repeat": "own-row", "own_weight": "0.5", "allow": "1,2", "deny": "3"},
            {
                "list_length": "5",
                "repeat": "boost",
                "repeat_weight": "0.5",
                "allow_products": "1,2",
                "deny_products": "3",
            },
        ),
    ],
    ids=["trends", "similar_items", "recommendations"],
)
def test_settings_recorded_under_their_former_names_have_todays_names(lake, table, recorded, today):
    """The tables are new and empty, so no setting is recorded under its present name as well."""
    lake.create(table)
    lake[table].set_properties(recorded)
    assert lake[table].properties() == today
    assert lake[table].has_settings(today)
