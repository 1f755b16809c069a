"""Tests that `maintain` leaves fewer files and fewer dates, and that the remaining rows keep their meaning."""

import re
import threading
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from jobs.maintain import main
from lambda_spark.cli.run_log import RunLog
from lambda_spark.errors import LakeError
from lambda_spark.ingestion.refused_users import FORGETTING
from lambda_spark.operations.maintain import expire, fold, maintain, parts_of, plan
from lambda_spark.operations.quiesce import at_rest
from lambda_spark.operations.vacuum import vacuum
from lambda_spark.settings import (
    MaintenanceSettings,
    Settings,
    SimilaritySettings,
    TrendSettings,
)
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    JOB_RUNS,
    REJECTED_EVENTS,
    SIMILAR_ITEMS,
    TRENDS,
)
from tests.deliveries import bring_up_to_date, contents, deliver, differing, event, random_events
from tests.in_session import do

SETTINGS = Settings(
    trends=TrendSettings(min_change=2, min_z=0.5),
    similarity=SimilaritySettings(),
    maintenance=MaintenanceSettings(min_files=2, expire_days=15),
)
KEEP_ALL = Settings(trends=SETTINGS.trends, maintenance=MaintenanceSettings(min_files=2))
OLD = datetime(2019, 10, 1, 12)


@pytest.fixture(scope="module")
def template(session, tmp_path_factory):
    """A lake after two deliveries of events, with all tables up to date. Tests copy this lake."""
    folder = tmp_path_factory.mktemp("maintenance")
    lake = Lake.open(session, str(folder / "lake"), create=True)
    lines = random_events(4, 80)
    for part in range(2):
        deliver(lake, folder / "in", str(part), lines[part::2])
        update_similarity(lake, SETTINGS.similarity)
    bring_up_to_date(lake, SETTINGS)
    return folder / "lake"


@pytest.mark.long
def test_a_dry_run_says_what_would_be_deleted_and_changes_nothing(small, capsys):
    before = small.versions(*small.present())
    settings = ("--set", "maintenance.min_files=2", "--set", "maintenance.expire_days=15")
    do("maintain", main, small.spark, "--dry-run", "--lake", small.path, *settings)
    text = capsys.readouterr().out
    expired = r"^events: \d+ rows \(.*\) from 2019-10-\d\d to 2019-10-\d\d would be expired$"
    assert re.search(expired, text, re.MULTILINE)
    assert re.search(r"^cut date: 2019-\d\d-\d\d; older events are rejected", text, re.MULTILINE)
    assert re.search(r"^baskets: \d+ files of \d+ dates .* would be compacted into fewer$", text, re.MULTILINE)
    assert small.versions(*small.present()) == before
    assert small.retention_cutoff() is None


def test_compaction_changes_nothing_but_the_number_of_files(small):
    for run in ("first", "second"):
        RunLog(small, "ingest").finish("done", run)
    before = [contents(small, table) for table in (EVENTS, JOB_RUNS, SIMILAR_ITEMS, TRENDS)]
    planned = plan(small, KEEP_ALL.maintenance)
    assert set(planned.packing) == {"events", "baskets", "co_interactions", "ingestion_log", "job_runs"}
    maintain(small, KEEP_ALL)
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        assert {part.files for part in parts_of(small, table) if part.date} == {1}, table.name
    for table, key in (
        (BASKETS, ("event_date", "relation", "user_id", "user_session", "product_id")),
        (CO_INTERACTIONS, ("event_date", "relation", "item_a", "item_b")),
    ):
        assert small[table].read().groupBy(*key).count().where("count > 1").isEmpty(), table.name
    assert [contents(small, table) for table in (EVENTS, JOB_RUNS, SIMILAR_ITEMS, TRENDS)] == before
    assert differing(small) == []
    assert plan(small, KEEP_ALL.maintenance).packing == {}


@pytest.mark.long
def test_after_maintenance_nothing_is_recomputed_and_nothing_is_left_to_do(small):
    maintain(small, KEEP_ALL)
    versions = small.versions(*small.present())
    bring_up_to_date(small, SETTINGS)
    maintain(small, KEEP_ALL)
    assert {t: v for t, v in small.versions(*small.present()).items() if v != versions[t]} == {}


@pytest.mark.long
def test_maintain_does_not_wait_for_readers_when_no_file_is_unneeded(small):
    reading, done = threading.Event(), threading.Event()

    def read():
        with small.locks.reader():
            reading.set()
            done.wait(120)

    other = threading.Thread(target=read)
    other.start()
    assert reading.wait(10)
    maintain(small, KEEP_ALL)
    assert other.is_alive(), "maintain waited until the reader had gone"
    done.set()
    other.join(10)


@pytest.mark.long
def test_vacuum_deletes_old_files_and_verify_still_finds_all_it_needs(small):
    deleted = vacuum(small, KEEP_ALL, timedelta())
    maintain(small, KEEP_ALL)
    deleted = vacuum(small, KEEP_ALL, timedelta())
    assert {"events", "baskets", "co_interactions"} <= set(deleted)
    assert differing(small) == []


@pytest.mark.long
def test_the_stream_continues_after_compaction(small, tmp_path):
    maintain(small, KEEP_ALL)
    vacuum(small, KEEP_ALL, timedelta())
    deliver(small, tmp_path / "in", "more", random_events(9, 40))
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []


@pytest.mark.long
def test_rows_of_a_micro_batch_in_only_one_table_are_not_compacted(small, tmp_path):
    """A job is killed between the two appends of a micro-batch. The replay must find the old baskets unchanged."""
    deliver(small, tmp_path / "in", "more", random_events(9, 40))
    known = small.versions(BASKETS, CO_INTERACTIONS)
    update_similarity(small, SETTINGS.similarity)
    application = small[CO_INTERACTIONS].properties()["application"]
    whole = small[CO_INTERACTIONS].last_commit(application=application)
    # Undo the append to co_interactions, as if the process had been killed before this append.
    log = tmp_path / "lake" / "co_interactions" / "_delta_log"
    for file in log.glob(f"*{whole.version:020}*"):
        file.unlink()
    for file in log.glob(f".{whole.version:020}*"):
        file.unlink()
    for file in (tmp_path / "lake" / "_checkpoints" / "similarity" / application / "commits").glob(
        f"*{whole.note['batch_id']}*"
    ):
        file.unlink()
    small.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    assert small[CO_INTERACTIONS].version() == known["co_interactions"]
    dates = [part.date for part in parts_of(small, BASKETS)]
    fold(small, BASKETS, dates)
    assert small[BASKETS].read().where(F.col("batch_id") == whole.note["batch_id"]).count() > 0
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []


@pytest.mark.long
def test_rows_before_the_retention_cutoff_expire_from_every_table(small, tmp_path):
    before = contents(small, TRENDS)
    frozen = contents_where(small, TRENDS, "bucket_start < '2019-10-14'")
    planned = plan(small, SETTINGS.maintenance)
    assert planned.retention_cutoff == date(2019, 10, 7), "15 days before the newest event"
    assert (planned.expiring["events"].first, planned.expiring["events"].last) == (date(2019, 10, 1), date(2019, 10, 3))
    assert planned.expiring["events"].rows == small[EVENTS].read().where("event_date < '2019-10-07'").count()
    maintain(small, SETTINGS)
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        assert small[table].read().where("event_date < '2019-10-07'").isEmpty(), table.name
    assert contents(small, TRENDS) == before, "trends of expired dates stay"
    assert frozen
    assert differing(small) == []
    account = deliver(
        small,
        tmp_path / "in",
        "late",
        [event(OLD, "view", 3, 1, "late"), event(datetime(2019, 10, 9), "view", 3, 1, "l")],
    )
    assert (account.events, account.rejected) == (1, 1)
    reasons = small[REJECTED_EVENTS].read().collect()[0].reasons
    assert reasons[0].endswith("is before the lake's cut date 2019-10-07")
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []
    assert contents_where(small, TRENDS, "bucket_start < '2019-10-14'") == frozen


@pytest.mark.long
def test_a_retention_cutoff_before_the_first_event_is_not_recorded(small):
    expire(small, date(2018, 10, 1))
    assert small.retention_cutoff() is None, "the store begins with its first event"


def contents_where(lake, table, condition):
    return sorted(map(repr, lake[table].read().where(condition).collect()))


@pytest.mark.long
def test_the_retention_cutoff_never_moves_back(small):
    maintain(small, SETTINGS)
    assert small.retention_cutoff() == date(2019, 10, 7)
    maintain(small, KEEP_ALL)
    longer = Settings(trends=SETTINGS.trends, maintenance=MaintenanceSettings(expire_days=300))
    assert plan(small, longer.maintenance).retention_cutoff == date(2019, 10, 7)
    maintain(small, longer)
    assert small.retention_cutoff() == date(2019, 10, 7)


@pytest.mark.long
@pytest.mark.parametrize(
    "kept", [("events", "co_interactions", "baskets"), ("events", "co_interactions"), ("events",), ()]
)
def test_a_stopped_expiry_is_finished_by_the_next_run(small, kept, monkeypatch):
    delete = TableHandle.delete

    def stop_at(table, condition, *, note):
        if table.name in kept:
            raise KeyboardInterrupt
        delete(table, condition, note=note)

    def no_note(table, note):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TableHandle, "delete", stop_at)
        patched.setattr(TableHandle, "note", no_note)
        with pytest.raises(KeyboardInterrupt):
            maintain(small, SETTINGS)
    maintain(small, SETTINGS)
    assert differing(small) == []
    assert small[EVENTS].read().where("event_date < '2019-10-07'").isEmpty()


@pytest.mark.long
def test_maintain_refuses_a_lake_with_an_interrupted_forget(small):
    small[EVENTS].set_properties({FORGETTING: '{"baskets": 1}'})
    with pytest.raises(LakeError, match=r"a `forget` was interrupted .* start it again with the same users"):
        maintain(small, KEEP_ALL)


@pytest.mark.long
def test_at_rest_the_speed_layer_has_processed_all_events(small, tmp_path):
    deliver(small, tmp_path / "in", "more", random_events(9, 20))
    behind = small[CO_INTERACTIONS].last_commit(job="similarity").version
    with at_rest(small, KEEP_ALL):
        assert small[CO_INTERACTIONS].last_commit(job="similarity").version > behind
