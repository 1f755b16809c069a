"""Tests that jobs on a lake with lost or damaged files report the damage and name a remedy that works."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from jobs.maintain import main as maintain
from jobs.run import run
from jobs.similarity import similarity
from jobs.trends import trends
from jobs.verify import main as verify
from lambda_spark.errors import CheckpointError, LambdaSparkError
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import DEMAND, EVENTS
from tests.faults.killing import SETTINGS, deliveries, run_job, tables_of
from tests.in_session import do

pytestmark = pytest.mark.long

FIRST, SECOND, _ = ("\n".join([*lines, ""]) for lines in deliveries(3))


def on_lake(name, call, spark, folder, *arguments):
    return do(name, call, spark, *arguments, "--lake", folder / "lake", *SETTINGS)


def run_all(spark, folder, sources):
    on_lake("run", run, spark, folder, sources)


@pytest.fixture(scope="module")
def template(session, tmp_path_factory):
    """A folder with a small store's event files and the lake that a job `run` made from these files."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "in").mkdir()
    (folder / "in" / "0.csv").write_text(FIRST)
    run_all(session, folder, folder / "in")
    return folder


@pytest.fixture
def store(template, tmp_path):
    """A folder with the test's own copy of the template's lake. The event files stay in the template's folder."""
    folder = tmp_path / "it's mine"
    shutil.copytree(template / "lake", folder / "lake")
    return folder


@pytest.fixture(scope="module")
def whole(session, template):
    return tables_of(Lake.open(session, str(template / "lake")))


def assert_whole(spark, folder, whole):
    actual = tables_of(Lake.open(spark, str(folder / "lake")))
    assert actual.keys() == whole.keys()
    for name, rows in whole.items():
        # Skip the ingestion log. If a file is read again, the log gets a second entry, which counts only repeats.
        if name != "ingestion_log":
            assert (name, actual[name] - rows, rows - actual[name]) == (name, Counter(), Counter())


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (["rejected_events"], "rejected_events is missing, so all input is read again"),
        (["products"], "products is missing. It is rebuilt from events"),
        (
            ["category_trends", "similar_items", "recommendations"],
            "recomputing all buckets: category_trends is missing",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_next_run_recreates_missing_tables(spark, template, store, whole, capsys, tables, message):
    for table in tables:
        shutil.rmtree(store / "lake" / table)
    run_all(spark, store, template / "in")
    assert message in capsys.readouterr().out
    assert_whole(spark, store, whole)
    assert on_lake("verify", verify, spark, store) == 0


@pytest.mark.parametrize("table", ["baskets", "co_interactions"])
def test_a_missing_table_of_the_speed_layer_is_refused_until_a_rebuild(spark, template, store, whole, table):
    shutil.rmtree(store / "lake" / table)
    # Run twice, because the first run creates the missing table again without rows. The tables still do not match.
    for _ in range(2):
        with pytest.raises(CheckpointError, match="similarity --rebuild"):
            on_lake("maintain", maintain, spark, store)
        with pytest.raises(CheckpointError, match="similarity --rebuild"):
            run_all(spark, store, template / "in")
    on_lake("similarity", similarity, spark, store, "--rebuild")
    run_all(spark, store, template / "in")
    assert_whole(spark, store, whole)


@pytest.mark.parametrize("piece", [".", "offsets", "sources"])
def test_ingest_reads_all_files_again_when_a_part_of_its_checkpoint_is_missing(spark, template, store, capsys, piece):
    inbox = store / "in"
    shutil.copytree(template / "in", inbox)
    (inbox / "1.csv").write_text(SECOND)
    [checkpoint] = (store / "lake" / "_checkpoints" / "ingest").iterdir()
    shutil.rmtree(checkpoint / piece)
    lake = Lake.open(spark, str(store / "lake"))
    before = lake[EVENTS].read().count()
    run_all(spark, store, inbox)
    assert "the checkpoint of ingest is lost" in capsys.readouterr().out
    assert lake[EVENTS].read().count() > before
    assert on_lake("verify", verify, spark, store) == 0


@pytest.fixture(scope="module")
def other(session, template, tmp_path_factory):
    """A second lake, made from the same event files."""
    folder = tmp_path_factory.mktemp("other")
    run_all(session, folder, template / "in")
    return folder


def replace_checkpoint(other, store, stream):
    """Replace a checkpoint by another lake's checkpoint of the same micro-batch, and keep the old checkpoint's name."""
    [checkpoint] = (store / "lake" / "_checkpoints" / stream).iterdir()
    [foreign] = (other / "lake" / "_checkpoints" / stream).iterdir()
    shutil.rmtree(checkpoint)
    shutil.copytree(foreign, checkpoint)


def test_ingest_reads_all_files_again_when_its_checkpoint_is_another_lake_s(
    spark, template, other, store, whole, capsys
):
    replace_checkpoint(other, store, "ingest")
    run_all(spark, store, template / "in")
    assert "the checkpoint of ingest is not the one that events was written with" in capsys.readouterr().out
    assert_whole(spark, store, whole)


def test_similarity_refuses_the_checkpoint_of_another_lake_until_a_rebuild(spark, template, other, store, whole):
    replace_checkpoint(other, store, "similarity")
    with pytest.raises(CheckpointError, match=r"checkpoint of similarity is not the one .*similarity --rebuild"):
        run_all(spark, store, template / "in")
    on_lake("similarity", similarity, spark, store, "--rebuild")
    run_all(spark, store, template / "in")
    assert_whole(spark, store, whole)


def test_similarity_refuses_events_from_a_backup_until_a_rebuild(spark, template, store, whole):
    events = store / "lake" / "events"
    newest = max((events / "_delta_log").glob("*.json"))
    for file in (events / "_delta_log").glob(f"*{newest.stem}*"):
        file.unlink()
    # Clear Delta's cache, because this session still knows the removed table version. A new process has no such cache.
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    with pytest.raises(CheckpointError, match=r"events is older .*similarity --rebuild"):
        on_lake("similarity", similarity, spark, store)
    on_lake("similarity", similarity, spark, store, "--rebuild")
    on_lake("trends", trends, spark, store)
    # The removed commit had added all events, so the table `demand` must be empty.
    assert Lake.open(spark, str(store / "lake"))[DEMAND].read().isEmpty()
    run_all(spark, store, template / "in")
    assert_whole(spark, store, whole)


def test_a_lake_without_its_events_is_refused_and_a_fresh_lake_works(spark, template, store, whole):
    (store / "lake" / "events").rename(store / "aside")
    with pytest.raises(LambdaSparkError, match=r"events is missing.*backup.*fresh one"):
        run_all(spark, store, template / "in")
    (store / "lake").rename(store / "old")
    run_all(spark, store, template / "in")
    assert_whole(spark, store, whole)


@pytest.mark.process
def test_a_table_that_a_newer_delta_wrote_is_refused(store):
    log = store / "lake" / "trends" / "_delta_log"
    newest = max(int(file.stem) for file in log.glob("*.json"))
    features = {"readerFeatures": ["ofTheFuture"], "writerFeatures": ["ofTheFuture"]}
    protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}}
    (log / f"{newest + 1:020}.json").write_text(json.dumps(protocol) + "\n")
    ended = run_job("verify", "--lake", str(store / "lake"), *SETTINGS)
    assert ended.code == 1
    assert "a newer Delta wrote this table" in ended.output
    assert "Traceback" not in ended.output


def mounted(folder: Path, *options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount failed, so this test cannot run here: {done.stderr.strip()}")


@pytest.fixture
def mounts():
    """A list to which a test adds its mounted folders. They are unmounted after the test."""
    folders: list[Path] = []
    yield folders
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.process
def test_a_run_names_a_full_disk_and_the_next_run_completes_when_there_is_room(
    spark, template, whole, tmp_path, mounts
):
    """The disk fills up in the middle of a job. The commits that the job has already made stay valid."""
    disk = tmp_path / "disk"
    mounted(disk, "-t", "tmpfs", "-o", "size=20m", "tmpfs")
    mounts.append(disk)
    shutil.copytree(template / "in", disk / "in")
    run_all_on = ("run", str(disk / "in"), "--lake", str(disk / "lake"), *SETTINGS)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(20_000 * 1024))
    ended = run_job(*run_all_on)
    assert ended.code == 1
    assert "no space left" in ended.output.lower()
    assert "make room" in ended.output
    assert "Traceback" not in ended.output
    ballast.unlink()
    ended = run_job(*run_all_on)
    assert ended.code == 0, ended.output
    assert tables_of(Lake.open(spark, str(disk / "lake"))) == whole


@pytest.mark.process
def test_a_read_only_lake_can_be_read_and_a_writer_names_the_cause(store, mounts):
    mounted(store / "lake", "--bind", str(store / "lake"))
    mounts.append(store / "lake")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(store / "lake")], check=True)
    ended = run_job("verify", "--lake", str(store / "lake"), *SETTINGS)
    assert ended.code == 0, ended.output
    assert "all tables equal their recompute" in ended.output
    (store / "in").mkdir()
    (store / "in" / "1.csv").write_text(SECOND)
    ended = run_job("run", str(store / "in"), "--lake", str(store / "lake"), *SETTINGS)
    assert ended.code == 1
    assert "read-only" in ended.output.lower()
    assert "may write" in ended.output
    assert "Traceback" not in ended.output
