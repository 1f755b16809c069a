"""Tests of `restore` after bad input, and of the history of what each job wrote."""

import os
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.restore import main
from lambda_spark.errors import JobRunningError, LakeError, UsageError
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.ingestion.kafka_source import KafkaSource, stream_name, topics_read
from lambda_spark.operations.history import history
from lambda_spark.operations.restore import plan, restore
from lambda_spark.report.operations import undo_lines
from lambda_spark.settings import IngestSettings, KafkaSettings, Settings, TrendSettings
from lambda_spark.source_description import REES46
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS, PRODUCTS, REJECTED_EVENTS
from tests.commands import held
from tests.deliveries import bring_up_to_date, contents, deliver, differing, event, random_events
from tests.in_session import do

SETTINGS = Settings(ingest=IngestSettings(exclude=("bad*.csv",)), trends=TrendSettings(min_change=2, min_z=0.5))
ORIGIN = ("source", "ingested_at", "ingest_batch")
GOOD = random_events(4, 50)
BAD = [event(datetime(2019, 12, 24), "purchase", 77, 9, "bad"), "no event"]


@pytest.fixture(scope="module")
def fed_badly(session, tmp_path_factory):
    """A lake that ingested a good and then a bad file, a time between both files, and the contents at that time."""
    folder = tmp_path_factory.mktemp("restoring")
    lake = Lake.open(session, str(folder / "lake"), create=True)
    deliver(lake, folder / "in", "good", GOOD)
    bring_up_to_date(lake, SETTINGS)
    contents_then = [contents(lake, table, *ORIGIN) for table in (EVENTS, REJECTED_EVENTS, PRODUCTS)]
    time.sleep(1.1)
    moment = datetime.now(UTC)
    deliver(lake, folder / "in", "bad-1", BAD)
    bring_up_to_date(lake, SETTINGS)
    return folder, moment, contents_then


@pytest.fixture
def small(spark, fed_badly, tmp_path):
    shutil.copytree(fed_badly[0], tmp_path / "copy")
    return Lake.open(spark, str(tmp_path / "copy" / "lake"))


def test_a_bad_feed_is_undone_and_all_files_are_read_again(small, fed_badly, tmp_path):
    _, moment, contents_then = fed_badly
    inbox = tmp_path / "copy" / "in"
    undo = plan(small, moment, [str(inbox)], SETTINGS.ingest)
    assert undo.rows["events"] == (len(contents_then[0]) + 1, len(contents_then[0]))
    assert [path.rsplit("/", 1)[-1] for path in undo.files] == ["bad-1.csv"]
    assert "files read since" in "\n".join(undo_lines(undo))
    applications = [small[table].properties()["application"] for table in (EVENTS, CO_INTERACTIONS)]

    account = restore(small, SETTINGS, undo, [str(inbox)])

    assert (account.events, account.rejected) == (0, 0)
    assert account.repeats == account.lines > 0
    assert [contents(small, table, *ORIGIN) for table in (EVENTS, REJECTED_EVENTS, PRODUCTS)] == contents_then
    assert differing(small) == []
    new = [small[table].properties()["application"] for table in (EVENTS, CO_INTERACTIONS)]
    assert not set(new) & set(applications), "Delta would skip micro-batches with the old ids"
    (inbox / "after.csv").write_text(
        (inbox / "good.csv").read_text() + event(datetime(2019, 12, 25), "view", 5, 1, "x")
    )
    assert ingest(small, [str(inbox)], SETTINGS.ingest).events == 1
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []


@pytest.mark.long
@pytest.mark.parametrize("stop_at", ["rejected_events", "set_properties"])
def test_an_interrupted_restore_is_finished_by_the_next_start(small, fed_badly, monkeypatch, stop_at, tmp_path):
    _, moment, contents_then = fed_badly
    back, properties = TableHandle.restore, TableHandle.set_properties

    def stop_before(table, version, *, note):
        if table.name == stop_at:
            raise KeyboardInterrupt
        back(table, version, note=note)

    def no_properties(table, named):
        if stop_at == "set_properties":
            raise KeyboardInterrupt
        properties(table, named)

    undo = plan(small, moment, [], SETTINGS.ingest)
    with monkeypatch.context() as patched:
        patched.setattr(TableHandle, "restore", stop_before)
        patched.setattr(TableHandle, "set_properties", no_properties)
        with pytest.raises(KeyboardInterrupt):
            restore(small, SETTINGS, undo, [])
    restore(small, SETTINGS, plan(small, moment, [], SETTINGS.ingest), [])
    assert [contents(small, table, *ORIGIN) for table in (EVENTS, REJECTED_EVENTS, PRODUCTS)] == contents_then
    assert differing(small) == []


@pytest.mark.long
def test_restore_does_not_start_while_a_topic_is_read_and_has_it_read_again_later(small, fed_badly, spark):
    """A restore deletes messages that were read after its target time. So the offsets in the checkpoint are wrong."""
    _, moment, _ = fed_badly
    settings = KafkaSettings(bootstrap_servers="nowhere:9092", topic="clicks")
    key = KafkaSource(spark, settings, FieldMapping(spark, REES46)).application_key
    small[EVENTS].set_properties({key: "before"})
    assert topics_read(small[EVENTS].properties()) == ["clicks"]
    folder = Path(small.path, "_checkpoints", stream_name("clicks"), "before", "offsets")
    folder.mkdir(parents=True)
    reader = held(small, stream_name("clicks"), 60)
    try:
        with pytest.raises(JobRunningError, match="ingest-kafka-clicks is already running on this lake"):
            do("restore", main, spark, "--to", f"{moment:%Y-%m-%dT%H:%M:%S}", "--lake", small.path)
    finally:
        reader.kill()
        reader.wait()
    assert folder.exists()
    restore(small, SETTINGS, plan(small, moment, [], SETTINGS.ingest), [])
    assert not folder.exists()


@pytest.mark.long
def test_restore_brings_no_forgotten_user_back_and_goes_no_further_than_the_log(small, fed_badly):
    _, moment, _ = fed_badly
    with pytest.raises(UsageError, match="can't go back before"):
        plan(small, moment - timedelta(days=1), [], SETTINGS.ingest)
    # The forgotten user appears in no event, but only in a rejected line.
    small[REJECTED_EVENTS].note({"job": "forget"})
    with pytest.raises(LakeError, match=r"users were forgotten after .* and would come back"):
        plan(small, moment, [], SETTINGS.ingest)


@pytest.mark.long
def test_restore_does_not_start_when_events_would_be_lost(small, fed_badly, tmp_path):
    folder, moment, _ = fed_badly
    shutil.copytree(folder / "in", tmp_path / "named")
    deliver(small, tmp_path / "other folder", "good too", random_events(9, 5))
    versions = small.versions(*small.present())
    for sources, excluded, lost in (
        ([folder / "in"], ("bad*",), ["good too.csv"]),
        ([folder / "in"], (), ["good too.csv"]),
        ([tmp_path / "named"], ("bad*",), ["good too.csv"]),
        ([tmp_path / "named"], (), ["bad-1.csv", "good too.csv"]),
        ([folder / "in", tmp_path / "other folder"], (), []),
        ([folder / "in"], ("good too.csv",), []),
        ([], (), []),
    ):
        undo = plan(small, moment, [*map(str, sources)], IngestSettings(exclude=excluded))
        assert [path.rsplit("/", 1)[-1] for path in undo.lost] == lost
        if lost:
            assert "their events would be lost" in "\n".join(undo_lines(undo))
            with pytest.raises(LakeError, match=r"would be lost \(.*good too.csv.*ingest.exclude=NAME"):
                restore(small, SETTINGS, undo, [*map(str, sources)])
    (tmp_path / "other folder" / "good too.csv").unlink()
    assert len(plan(small, moment, [], IngestSettings()).lost) == 1
    assert small.versions(*small.present()) == versions


@pytest.mark.long
def test_a_dry_run_names_the_files_read_since_and_those_changed_since(small, fed_badly, spark, capsys):
    folder, moment, _ = fed_badly
    bad = folder / "in" / "bad-1.csv"
    as_read, written = bad.read_text(), bad.stat().st_mtime_ns
    versions = small.versions(*small.present())
    arguments = ("--to", f"{moment:%Y-%m-%dT%H:%M:%S}", "--dry-run", "--lake", small.path, folder / "in")
    do("restore", main, spark, *arguments)
    text = capsys.readouterr().out
    assert re.search(r"^  events: v\d+ with \d+ rows, back to v\d+ with \d+$", text, re.MULTILINE)
    assert re.search(rf"^files read since .*\n  {re.escape(str(bad))}$", text, re.MULTILINE)
    assert "changed meanwhile" not in text
    try:
        bad.write_text(f"{as_read}{event(datetime(2019, 12, 26), 'view', 5, 1, 'x')}\n")
        do("restore", main, spark, *arguments)
    finally:
        bad.write_text(as_read)
        os.utime(bad, ns=(written, written))
    assert re.search(rf"changed meanwhile.*\n  {re.escape(str(bad))}$", capsys.readouterr().out, re.MULTILINE)
    assert small.versions(*small.present()) == versions


@pytest.mark.long
def test_the_history_names_the_job_and_the_versions_read_of_each_commit(small):
    entries = history(small, 100)
    assert [entry.time for entry in entries] == sorted((entry.time for entry in entries), reverse=True)
    newest = {entry.table: entry for entry in reversed(entries)}
    assert newest["recommendations"].job == "recommend"
    assert "events v" in newest["recommendations"].read
    assert newest["user_trends"].read.startswith("events v")
    assert newest["co_interactions"].read == "events before v3, micro-batch 1"
    assert len(history(small, 3)) == 3
