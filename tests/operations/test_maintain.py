"""Maintenance: fewer files and fewer dates, and not one row of what is left any different."""

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
from lambda_spark.speed.update import update
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    JOB_RUNS,
    REJECTED_EVENTS,
    SIMILAR_ITEMS,
    TRENDS,
)
from tests.deliveries import bring_up_to_date, contents, deliver, differing, event, quiet, random_events
from tests.in_session import do

pytestmark = pytest.mark.long

SETTINGS = Settings(
    trends=TrendSettings(min_change=2, min_z=0.5),
    similarity=SimilaritySettings(),
    maintenance=MaintenanceSettings(min_files=2, expire_days=15),
)
KEEP_ALL = Settings(trends=SETTINGS.trends, maintenance=MaintenanceSettings(min_files=2))
OLD = datetime(2019, 10, 1, 12)


@pytest.fixture(scope="module")
def template(session, tmp_path_factory):
    """A lake after two deliveries, up to date, to be copied."""
    folder = tmp_path_factory.mktemp("maintenance")
    lake = Lake.open(session, str(folder / "lake"), create=True)
    lines = random_events(4, 80)
    for part in range(2):
        deliver(lake, folder / "in", str(part), lines[part::2])
        update(lake, SETTINGS.similarity, progress=quiet)
    bring_up_to_date(lake, SETTINGS)
    return folder / "lake"


def test_a_dry_look_says_what_would_go_and_changes_nothing(small, capsys):
    before = small.versions(*small.present())
    settings = ("--set", "maintenance.min_files=2", "--set", "maintenance.expire_days=15")
    do("maintain", main, small.spark, "--dry-run", "--lake", small.path, *settings)
    text = capsys.readouterr().out
    assert re.search(r"^events: \d+ rows \(.*\) of 2019-10-\d\d to 2019-10-\d\d would be expired$", text, re.MULTILINE)
    assert re.search(r"^cut date: 2019-\d\d-\d\d; what is older is not taken in", text, re.MULTILINE)
    assert re.search(r"^baskets: \d+ files of \d+ dates .* would be put into fewer$", text, re.MULTILINE)
    assert small.versions(*small.present()) == before
    assert small.cut() is None


def test_folding_and_compaction_change_nothing_but_the_number_of_files(small):
    for run in ("first", "second"):
        RunLog(small, "ingest").finish("done", run)
    before = [contents(small, table) for table in (EVENTS, JOB_RUNS, SIMILAR_ITEMS, TRENDS)]
    planned = plan(small, KEEP_ALL.maintenance)
    assert set(planned.packing) == {"events", "baskets", "co_interactions", "ingested_files", "job_runs"}
    maintain(small, KEEP_ALL, quiet)
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        assert {part.files for part in parts_of(small, table) if part.date} == {1}, table.name
    for table, key in (
        (BASKETS, ("event_date", "relation", "user_id", "user_session", "product_id")),
        (CO_INTERACTIONS, ("event_date", "relation", "item_a", "item_b")),
    ):
        assert small.read(table).groupBy(*key).count().where("count > 1").isEmpty(), table.name
    assert [contents(small, table) for table in (EVENTS, JOB_RUNS, SIMILAR_ITEMS, TRENDS)] == before
    assert differing(small) == []
    assert plan(small, KEEP_ALL.maintenance).packing == {}


def test_after_it_nothing_is_to_be_done_and_nothing_is_recomputed(small):
    maintain(small, KEEP_ALL, quiet)
    versions = small.versions(*small.present())
    bring_up_to_date(small, SETTINGS)
    maintain(small, KEEP_ALL, quiet)
    assert {t: v for t, v in small.versions(*small.present()).items() if v != versions[t]} == {}


def test_who_reads_is_not_waited_for_where_no_file_is_to_go(small):
    reading, done = threading.Event(), threading.Event()

    def read():
        with small.locks.reader():
            reading.set()
            done.wait(120)

    other = threading.Thread(target=read)
    other.start()
    assert reading.wait(10)
    maintain(small, KEEP_ALL, quiet)
    assert other.is_alive(), "maintain waited until the reader had gone"
    done.set()
    other.join(10)


def test_files_of_old_versions_go_and_verify_still_finds_all_it_needs(small):
    deleted = vacuum(small, KEEP_ALL, timedelta(), quiet)
    maintain(small, KEEP_ALL, quiet)
    deleted = vacuum(small, KEEP_ALL, timedelta(), quiet)
    assert {"events", "baskets", "co_interactions"} <= set(deleted)
    assert differing(small) == []


def test_the_stream_goes_on_after_a_fold(small, tmp_path):
    maintain(small, KEEP_ALL, quiet)
    vacuum(small, KEEP_ALL, timedelta(), quiet)
    deliver(small, tmp_path / "in", "more", random_events(9, 40))
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []


def test_rows_of_a_micro_batch_that_is_in_one_table_only_are_not_folded(small, tmp_path):
    """Killed between its two appends: the replay must find the baskets as they were before it."""
    deliver(small, tmp_path / "in", "more", random_events(9, 40))
    known = small.versions(BASKETS, CO_INTERACTIONS)
    update(small, SETTINGS.similarity, progress=quiet)
    application = small.properties(CO_INTERACTIONS)["application"]
    whole = small.last_commit(CO_INTERACTIONS, application=application)
    # As if the append to co_interactions had never been.
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
    assert small.version(CO_INTERACTIONS) == known["co_interactions"]
    dates = [part.date for part in parts_of(small, BASKETS)]
    fold(small, BASKETS, dates, quiet)
    assert small.read(BASKETS).where(F.col("batch_id") == whole.note["batch_id"]).count() > 0
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []


def test_what_is_older_than_the_cut_expires_from_every_table(small, tmp_path):
    before = contents(small, TRENDS)
    frozen = contents_where(small, TRENDS, "bucket_start < '2019-10-14'")
    planned = plan(small, SETTINGS.maintenance)
    assert planned.cut == date(2019, 10, 7), "15 days before the newest event"
    assert (planned.expiring["events"].first, planned.expiring["events"].last) == (date(2019, 10, 1), date(2019, 10, 3))
    assert planned.expiring["events"].rows == small.read(EVENTS).where("event_date < '2019-10-07'").count()
    maintain(small, SETTINGS, quiet)
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        assert small.read(table).where("event_date < '2019-10-07'").isEmpty(), table.name
    assert contents(small, TRENDS) == before, "of older buckets too"
    assert frozen
    assert differing(small) == []
    account = deliver(
        small,
        tmp_path / "in",
        "late",
        [event(OLD, "view", 3, 1, "late"), event(datetime(2019, 10, 9), "view", 3, 1, "l")],
    )
    assert (account.events, account.rejected) == (1, 1)
    reasons = small.read(REJECTED_EVENTS).collect()[0].reasons
    assert reasons == ["event_time is before the lake's cut date 2019-10-07"]
    bring_up_to_date(small, SETTINGS)
    assert differing(small) == []
    assert contents_where(small, TRENDS, "bucket_start < '2019-10-14'") == frozen


def test_a_cut_before_the_first_event_is_not_recorded(small):
    expire(small, date(2018, 10, 1), quiet)
    assert small.cut() is None, "the store begins with its first event"


def contents_where(lake, table, condition):
    return sorted(map(repr, lake.read(table).where(condition).collect()))


def test_the_cut_never_moves_back(small):
    maintain(small, SETTINGS, quiet)
    assert small.cut() == date(2019, 10, 7)
    maintain(small, KEEP_ALL, quiet)
    longer = Settings(trends=SETTINGS.trends, maintenance=MaintenanceSettings(expire_days=300))
    assert plan(small, longer.maintenance).cut == date(2019, 10, 7)
    maintain(small, longer, quiet)
    assert small.cut() == date(2019, 10, 7)


@pytest.mark.parametrize(
    "kept", [("events", "co_interactions", "baskets"), ("events", "co_interactions"), ("events",), ()]
)
def test_an_expiry_that_was_stopped_is_finished_by_the_next(small, kept, monkeypatch):
    delete = Lake.delete

    def stop_at(lake, table, condition, *, note):
        if table.name in kept:
            raise KeyboardInterrupt
        delete(lake, table, condition, note=note)

    def no_note(lake, table, note):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "delete", stop_at)
        patched.setattr(Lake, "note", no_note)
        with pytest.raises(KeyboardInterrupt):
            maintain(small, SETTINGS, quiet)
    maintain(small, SETTINGS, quiet)
    assert differing(small) == []
    assert small.read(EVENTS).where("event_date < '2019-10-07'").isEmpty()


def test_it_leaves_an_interrupted_forget_to_whoever_knows_the_users(small):
    small.set_properties(EVENTS, {FORGETTING: '{"baskets": 1}'})
    with pytest.raises(LakeError, match=r"a `forget` was interrupted .* start it again with the same users"):
        maintain(small, KEEP_ALL, quiet)


def test_at_rest_the_speed_layer_has_taken_in_what_ingest_left(small, tmp_path):
    deliver(small, tmp_path / "in", "more", random_events(9, 20))
    behind = small.last_commit(CO_INTERACTIONS, job="similarity").version
    with at_rest(small, KEEP_ALL, quiet):
        assert small.last_commit(CO_INTERACTIONS, job="similarity").version > behind
