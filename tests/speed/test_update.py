"""The layers on a real lake: stream equals batch, runs are incremental, and the checkpoint is guarded."""

import threading
import time
from datetime import datetime, timedelta

import pytest
from pyspark.sql import functions as F

from jobs.similarity import similarity
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.errors import CheckpointError, UsageError
from lambda_spark.operations.verify import verify
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.settings import RecommendationSettings, SimilaritySettings, TrendSettings
from lambda_spark.speed.update import start_over, update
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CATEGORY_TRENDS,
    CO_INTERACTIONS,
    EVENTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    USER_TRENDS,
)
from tests.deliveries import TRENDS, contents, deliver, differing, event, quiet, random_events
from tests.in_session import do


def test_twenty_micro_batches_in_random_order_equal_a_recompute(lake, tmp_path):
    deliver(lake, tmp_path / "in", "all", random_events(1, 300))
    # Each file of `events` is a micro-batch of its own: late dates, known baskets and all.
    scattered = lake.read(EVENTS).repartition(3, F.xxhash64("event_id"))
    scattered.write.format("delta").mode("overwrite").save(lake.location(EVENTS))
    run = update(lake, SimilaritySettings(max_bytes_per_batch="1"), progress=quiet)
    assert run.micro_batches >= 20
    findings = list(verify(lake, quiet))
    assert [finding.table for finding in findings if finding.differs] == []
    assert {"baskets", "co_interactions", "similar_items"} <= {finding.table for finding in findings}


@pytest.mark.parametrize("few", [0, 10], ids=["many on every date", "few on one date"])
def test_a_large_micro_batch_is_taken_in_like_a_small_one(small, tmp_path, monkeypatch, few):
    monkeypatch.setattr("lambda_spark.speed.update._FEW_ITEMS", few)
    deliver(small, tmp_path / "in", "two", random_events(5, 40))
    assert update(small, SimilaritySettings(), progress=quiet).micro_batches == 1
    assert differing(small) == []
    for table in (BASKETS, CO_INTERACTIONS):
        files = (
            small.read(table).where("batch_id = 1").groupBy("event_date").agg(F.countDistinct("_metadata.file_path"))
        )
        assert {row[1] for row in files.collect()} == {1}


def test_a_second_run_changes_no_table(small):
    before = small.versions(*small.present())
    update(small, SimilaritySettings(), progress=quiet)
    assert refresh_trends(small, TRENDS, progress=quiet).buckets == 0
    assert refresh_recommendations(small, RecommendationSettings(), progress=quiet).written is None
    assert small.versions(*small.present()) == before


def test_changed_settings_recompute_what_they_change(small):
    changed = TrendSettings(min_change=3, min_z=0.5)
    assert refresh_trends(small, changed, progress=quiet).reason == "the settings have changed"
    assert small.properties(USER_TRENDS)["min_change"] == "3"
    assert update(small, SimilaritySettings(k=3), progress=quiet).refreshed == "the settings have changed"
    assert small.read(SIMILAR_ITEMS).agg(F.max("rank")).collect()[0][0] <= 3
    assert refresh_recommendations(small, RecommendationSettings(k=2), progress=quiet).written is not None
    assert small.read(RECOMMENDATIONS).agg(F.max("rank")).collect()[0][0] == 2


def test_a_run_with_other_settings_that_was_stopped_half_way_is_undone_by_the_next(small):
    small.set_properties(CATEGORY_TRENDS, {"min_change": "99"})
    assert refresh_trends(small, TRENDS, progress=quiet).reason == "the settings have changed"


def test_another_window_is_refused_until_a_rebuild(small):
    with pytest.raises(UsageError, match="similarity --rebuild"):
        update(small, SimilaritySettings(window=2), progress=quiet)
    start_over(small, SimilaritySettings(window=2), quiet)
    update(small, SimilaritySettings(window=2), progress=quiet)
    assert differing(small) == []
    assert small.properties(CO_INTERACTIONS)["window"] == "2"


@pytest.mark.parametrize("first", [False, True], ids=["a rebuild", "a first run"])
def test_who_starts_the_speed_layer_waits_for_a_forget_at_work(small, spark, first):
    """Which holds `events` all the while: what was read of it before would bring those back who leave."""
    if first:
        for name in ("baskets", "co_interactions", "similar_items", "recommendations", "_checkpoints/similarity"):
            small.files.delete(name)
    is_held, seen = threading.Event(), []

    def versions():
        return [small.version(table) if small.exists(table) else None for table in (BASKETS, CO_INTERACTIONS)]

    before = versions()

    def forgetting():
        with small.locks.table(EVENTS.name):
            is_held.set()
            time.sleep(3)
            seen.append(versions())

    holder = threading.Thread(target=forgetting)
    holder.start()
    assert is_held.wait(10)
    do("similarity", similarity, spark, "--lake", small.path, *([] if first else ["--rebuild"]))
    holder.join(60)
    assert seen == [before]
    assert versions() != before
    assert differing(small) == []


def test_a_lost_checkpoint_is_refused_and_the_rebuild_is_the_way_out(small):
    counts = contents(small, SIMILAR_ITEMS)
    small.files.delete("_checkpoints/similarity")
    with pytest.raises(CheckpointError, match=r"checkpoint of similarity is lost .*similarity --rebuild"):
        update(small, SimilaritySettings(), progress=quiet)
    start_over(small, SimilaritySettings(), quiet)
    update(small, SimilaritySettings(), progress=quiet)
    assert contents(small, SIMILAR_ITEMS) == counts


def test_an_older_checkpoint_is_refused(small, tmp_path):
    deliver(small, tmp_path / "in", "two", random_events(5, 10))
    application = small.properties(CO_INTERACTIONS)["application"]
    folder = tmp_path / "lake" / "_checkpoints" / "similarity" / application
    update(small, SimilaritySettings(), progress=quiet)
    for log in ("offsets", "commits"):
        for file in (folder / log).glob("*1*"):
            file.unlink()
    with pytest.raises(CheckpointError, match="not the one"):
        update(small, SimilaritySettings(), progress=quiet)


def test_an_interrupted_rebuild_is_noticed(small):
    small.empty(CO_INTERACTIONS, {"application": "other", "window": "5"})
    with pytest.raises(CheckpointError, match="do not belong together"):
        update(small, SimilaritySettings(), progress=quiet)


def test_a_replayed_micro_batch_changes_nothing(small, tmp_path):
    application = small.properties(CO_INTERACTIONS)["application"]
    commits = tmp_path / "lake" / "_checkpoints" / "similarity" / application / "commits"
    before = contents(small, BASKETS), contents(small, CO_INTERACTIONS)
    for file in commits.glob("*"):
        file.unlink()
    update(small, SimilaritySettings(), progress=quiet)
    assert (contents(small, BASKETS), contents(small, CO_INTERACTIONS)) == before


@pytest.mark.parametrize("lost", [BASKETS, CO_INTERACTIONS], ids=lambda table: table.name)
def test_a_micro_batch_that_is_in_one_of_two_tables_is_finished(small, tmp_path, monkeypatch, lost):
    """Killed between its two appends: run again, it finds the baskets as they were before it."""
    deliver(small, tmp_path / "in", "two", random_events(5, 40))
    append_batch = Lake.append_batch

    def dying(lake, table, rows, **named):
        if table is lost:
            raise OSError("no more")
        return append_batch(lake, table, rows, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "append_batch", dying)
        with pytest.raises(Exception, match="no more"):
            update(small, SimilaritySettings(), progress=quiet)
    update(small, SimilaritySettings(), progress=quiet)
    assert differing(small) == []


def test_events_that_change_no_basket_are_taken_in_once(small, tmp_path):
    deliver(small, tmp_path / "in", "removed", [event(datetime(2019, 10, 1, 12), "remove_from_cart", 1, 1, "s")])
    assert update(small, SimilaritySettings(), progress=quiet).micro_batches == 1
    assert update(small, SimilaritySettings(), progress=quiet).micro_batches == 0


def test_new_events_recompute_only_the_buckets_they_touch(small, tmp_path):
    history = {row.bucket_start: row.version for row in _files_by_bucket(small)}
    deliver(small, tmp_path / "in", "late", [event(datetime(2019, 10, 1, 5), "view", 3, 1, "late")])
    run = refresh_trends(small, TRENDS, progress=quiet)
    touched = {
        bucket
        for bucket, version in {r.bucket_start: r.version for r in _files_by_bucket(small)}.items()
        if history.get(bucket) != version
    }
    assert run.buckets < 6
    assert datetime(2019, 10, 21) in touched, "the newest bucket's neighbourhood is always looked at again"
    assert differing(small) == []


def test_a_store_younger_than_a_bucket_is_brought_up_to_date_once(lake, tmp_path):
    """No table but `demand` has a row then."""
    noon = datetime(2019, 10, 1, 12)
    deliver(lake, tmp_path / "in", "one", [event(noon, "view", 1, 1, "s")])
    refresh_trends(lake, TRENDS, progress=quiet)
    deliver(lake, tmp_path / "in", "two", [event(noon + timedelta(minutes=1), "view", 2, 1, "s")])
    assert refresh_trends(lake, TRENDS, progress=quiet).buckets == 1
    assert refresh_trends(lake, TRENDS, progress=quiet).buckets == 0
    assert differing(lake) == []


def test_a_stream_on_a_fresh_lake_does_not_wait_to_write_similar_items(lake, tmp_path, monkeypatch):
    deliver(lake, tmp_path / "in", "one", [event(datetime(2019, 10, 1), "view", one, 1, "s") for one in (1, 2)])
    rows = []

    def between_micro_batches(*_, idle, **__):
        idle()
        rows.append(lake.read(SIMILAR_ITEMS).count())

    monkeypatch.setattr("lambda_spark.speed.update.run_stream", between_micro_batches)
    update(lake, SimilaritySettings(), trigger="1 second", progress=quiet)
    assert rows == [0]


def test_an_event_long_before_all_others_gives_what_was_the_first_bucket_its_trends(small, tmp_path):
    before = {row.bucket_start for row in _files_by_bucket(small)}
    deliver(small, tmp_path / "in", "early", [event(datetime(2019, 8, 20, 12), "view", 3, 1, "early")])
    refresh_trends(small, TRENDS, progress=quiet)
    assert {row.bucket_start for row in _files_by_bucket(small)} - before == {datetime(2019, 9, 30)}


def _files_by_bucket(lake):
    rows = lake.spark.read.format("delta").load(lake.location(USER_TRENDS))
    return rows.groupBy("bucket_start").agg(F.max("_metadata.file_path").alias("version")).collect()


def test_a_small_micro_batch_writes_one_file_for_each_date(small):
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        files = small.data_files(table, small.version(table))
        assert len(files) == small.read(table).select("event_date").distinct().count() > 1, table.name


def test_events_carry_the_micro_batch_that_wrote_them(small):
    names = {row.ingest_batch.split(":")[1] for row in small.read(EVENTS).select("ingest_batch").distinct().collect()}
    assert names == {"0"}
