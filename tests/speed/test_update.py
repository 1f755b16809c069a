"""Tests of the batch and speed jobs on a real lake.

The stream gives the same tables as a recomputation. Each run processes only new events. A job refuses a wrong
checkpoint.
"""

import threading
import time
from datetime import datetime, timedelta

import pytest
from pyspark.sql import functions as F

from jobs.similarity import similarity
from lambda_spark.batch.refresh import TREND_TABLES, update_trends
from lambda_spark.errors import CheckpointError, UsageError
from lambda_spark.operations.verify import verify
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import RecommendationSettings, SimilaritySettings, TrendSettings
from lambda_spark.speed.update import start_over, update_similarity
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import (
    BASKETS,
    CATEGORY_TRENDS,
    CO_INTERACTIONS,
    EVENTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    USER_TRENDS,
)
from tests.deliveries import TRENDS, contents, deliver, differing, event, random_events
from tests.in_session import do

SPEED_TABLES = (BASKETS, CO_INTERACTIONS, SIMILAR_ITEMS)


def test_ten_micro_batches_in_random_order_equal_a_recompute(lake, tmp_path):
    deliver(lake, tmp_path / "in", "all", random_events(1, 300))
    # Make each file of the table `events` a micro-batch of its own. Many files hold late events of known baskets.
    scattered = lake[EVENTS].read().repartition(2, F.xxhash64("event_id"))
    scattered.write.format("delta").mode("overwrite").save(lake[EVENTS].location)
    run = update_similarity(lake, SimilaritySettings(max_bytes_per_batch="1"))
    assert run.micro_batches >= 10
    findings = list(verify(lake, SPEED_TABLES))
    assert [finding.table for finding in findings if finding.differs] == []
    assert {"baskets", "co_interactions", "similar_items"} <= {finding.table for finding in findings}


@pytest.mark.parametrize("few", [0, 10], ids=["many on every date", "few on one date"])
def test_a_large_micro_batch_gives_the_same_counts_as_a_small_one(small, tmp_path, monkeypatch, few):
    monkeypatch.setattr("lambda_spark.speed.update._FEW_ITEMS", few)
    deliver(small, tmp_path / "in", "two", random_events(5, 40))
    assert update_similarity(small, SimilaritySettings()).micro_batches == 1
    assert differing(small, *SPEED_TABLES) == []
    for table in (BASKETS, CO_INTERACTIONS):
        files = (
            small[table].read().where("batch_id = 1").groupBy("event_date").agg(F.countDistinct("_metadata.file_path"))
        )
        assert {row[1] for row in files.collect()} == {1}


def test_a_second_run_changes_no_table(small):
    before = small.versions(*small.present())
    update_similarity(small, SimilaritySettings())
    assert update_trends(small, TRENDS).buckets == 0
    assert update_recommendations(small, RecommendationSettings()).written is None
    assert small.versions(*small.present()) == before


def test_changed_settings_recompute_the_tables_that_depend_on_them(small):
    changed = TrendSettings(min_change=3, min_z=0.5)
    assert update_trends(small, changed).reason == "the settings have changed"
    assert small[USER_TRENDS].properties()["min_change"] == "3"
    assert update_similarity(small, SimilaritySettings(max_neighbours=3)).refreshed == "the settings have changed"
    assert small[SIMILAR_ITEMS].read().agg(F.max("rank")).collect()[0][0] <= 3
    assert update_recommendations(small, RecommendationSettings(list_length=2)).written is not None
    assert small[RECOMMENDATIONS].read().agg(F.max("rank")).collect()[0][0] == 2


def test_the_next_run_corrects_a_stopped_run_with_other_settings(small):
    small[CATEGORY_TRENDS].set_properties({"min_change": "99"})
    assert update_trends(small, TRENDS).reason == "the settings have changed"


def test_another_window_is_refused_until_a_rebuild(small):
    with pytest.raises(UsageError, match="similarity --rebuild"):
        update_similarity(small, SimilaritySettings(window=2))
    start_over(small, SimilaritySettings(window=2))
    update_similarity(small, SimilaritySettings(window=2))
    assert differing(small, *SPEED_TABLES) == []
    assert small[CO_INTERACTIONS].properties()["window"] == "2"


@pytest.mark.parametrize("first", [False, True], ids=["a rebuild", "a first run"])
def test_the_first_run_and_a_rebuild_wait_for_a_running_forget(small, spark, first):
    """A running `forget` holds the lock of `events`. A job that reads earlier would bring forgotten users back."""
    if first:
        for name in ("baskets", "co_interactions", "similar_items", "recommendations", "_checkpoints/similarity"):
            small.files.delete(name)
    is_locked, versions_at_end = threading.Event(), []

    def versions():
        return [small[table].version() if small[table].exists() else None for table in (BASKETS, CO_INTERACTIONS)]

    before = versions()

    def hold_events_like_forget():
        with small.locks.table(EVENTS.name):
            is_locked.set()
            time.sleep(3)
            versions_at_end.append(versions())

    holder = threading.Thread(target=hold_events_like_forget)
    holder.start()
    assert is_locked.wait(10)
    do("similarity", similarity, spark, "--lake", small.path, *([] if first else ["--rebuild"]))
    holder.join(60)
    assert versions_at_end == [before]
    assert versions() != before
    assert differing(small, *SPEED_TABLES) == []


def test_a_lost_checkpoint_is_refused_until_a_rebuild(small):
    counts = contents(small, SIMILAR_ITEMS)
    small.files.delete("_checkpoints/similarity")
    with pytest.raises(CheckpointError, match=r"checkpoint of similarity is lost .*similarity --rebuild"):
        update_similarity(small, SimilaritySettings())
    start_over(small, SimilaritySettings())
    update_similarity(small, SimilaritySettings())
    assert contents(small, SIMILAR_ITEMS) == counts


def test_an_older_checkpoint_is_refused(small, tmp_path):
    deliver(small, tmp_path / "in", "two", random_events(5, 10))
    application = small[CO_INTERACTIONS].properties()["application"]
    folder = tmp_path / "lake" / "_checkpoints" / "similarity" / application
    update_similarity(small, SimilaritySettings())
    for log in ("offsets", "commits"):
        for file in (folder / log).glob("*1*"):
            file.unlink()
    with pytest.raises(CheckpointError, match="not the one"):
        update_similarity(small, SimilaritySettings())


def test_tables_of_an_interrupted_rebuild_are_refused(small):
    small[CO_INTERACTIONS].truncate({"application": "other", "window": "5"})
    with pytest.raises(CheckpointError, match="do not belong together"):
        update_similarity(small, SimilaritySettings())


def test_a_replayed_micro_batch_changes_nothing(small, tmp_path):
    application = small[CO_INTERACTIONS].properties()["application"]
    commits = tmp_path / "lake" / "_checkpoints" / "similarity" / application / "commits"
    before = contents(small, BASKETS), contents(small, CO_INTERACTIONS)
    for file in commits.glob("*"):
        file.unlink()
    update_similarity(small, SimilaritySettings())
    assert (contents(small, BASKETS), contents(small, CO_INTERACTIONS)) == before


@pytest.mark.parametrize("lost", [BASKETS, CO_INTERACTIONS], ids=lambda table: table.name)
def test_a_micro_batch_that_was_written_to_only_one_table_is_finished(small, tmp_path, monkeypatch, lost):
    """A run is killed between its two appends. The next run reads the baskets from before this micro-batch."""
    deliver(small, tmp_path / "in", "two", random_events(5, 40))
    append_batch = TableHandle.append_batch

    def fail_for_lost_table(table, rows, **named):
        if table.table is lost:
            raise OSError("no more")
        return append_batch(table, rows, **named)

    with monkeypatch.context() as patched:
        patched.setattr(TableHandle, "append_batch", fail_for_lost_table)
        with pytest.raises(Exception, match="no more"):
            update_similarity(small, SimilaritySettings())
    update_similarity(small, SimilaritySettings())
    assert differing(small, *SPEED_TABLES) == []


def test_events_that_change_no_basket_are_read_only_once(small, tmp_path):
    deliver(small, tmp_path / "in", "removed", [event(datetime(2019, 10, 1, 12), "remove_from_cart", 1, 1, "s")])
    assert update_similarity(small, SimilaritySettings()).micro_batches == 1
    assert update_similarity(small, SimilaritySettings()).micro_batches == 0


def test_new_events_recompute_only_the_buckets_they_touch(small, tmp_path):
    history = {row.bucket_start: row.version for row in _files_by_bucket(small)}
    deliver(small, tmp_path / "in", "late", [event(datetime(2019, 10, 1, 5), "view", 3, 1, "late")])
    run = update_trends(small, TRENDS)
    touched = {
        bucket
        for bucket, version in {r.bucket_start: r.version for r in _files_by_bucket(small)}.items()
        if history.get(bucket) != version
    }
    assert run.buckets < 6
    assert datetime(2019, 10, 21) in touched, "the newest bucket is always recomputed"
    assert differing(small, *TREND_TABLES) == []


def test_a_store_with_a_single_bucket_is_brought_up_to_date_once(lake, tmp_path):
    """With a single bucket, only the table `demand` has rows."""
    noon = datetime(2019, 10, 1, 12)
    deliver(lake, tmp_path / "in", "one", [event(noon, "view", 1, 1, "s")])
    update_trends(lake, TRENDS)
    deliver(lake, tmp_path / "in", "two", [event(noon + timedelta(minutes=1), "view", 2, 1, "s")])
    assert update_trends(lake, TRENDS).buckets == 1
    assert update_trends(lake, TRENDS).buckets == 0
    assert differing(lake, *TREND_TABLES) == []


def test_a_stream_on_a_fresh_lake_creates_similar_items_when_first_idle(lake, tmp_path, monkeypatch):
    deliver(lake, tmp_path / "in", "one", [event(datetime(2019, 10, 1), "view", product, 1, "s") for product in (1, 2)])
    rows = []

    def run_idle_once(*_, idle, **__):
        idle()
        rows.append(lake[SIMILAR_ITEMS].read().count())

    monkeypatch.setattr("lambda_spark.speed.update.run_stream", run_idle_once)
    update_similarity(lake, SimilaritySettings(), trigger="1 second")
    assert rows == [0]


def test_an_earlier_first_event_gives_the_former_first_bucket_trends(small, tmp_path):
    before = {row.bucket_start for row in _files_by_bucket(small)}
    deliver(small, tmp_path / "in", "early", [event(datetime(2019, 8, 20, 12), "view", 3, 1, "early")])
    update_trends(small, TRENDS)
    assert {row.bucket_start for row in _files_by_bucket(small)} - before == {datetime(2019, 9, 30)}


def _files_by_bucket(lake):
    rows = lake.spark.read.format("delta").load(lake[USER_TRENDS].location)
    return rows.groupBy("bucket_start").agg(F.max("_metadata.file_path").alias("version")).collect()


def test_a_small_micro_batch_writes_one_file_for_each_date(small):
    for table in (EVENTS, BASKETS, CO_INTERACTIONS):
        files = small[table].data_files(small[table].version())
        assert len(files) == small[table].read().select("event_date").distinct().count() > 1, table.name


def test_events_name_the_micro_batch_that_wrote_them(small):
    names = {row.ingest_batch.split(":")[1] for row in small[EVENTS].read().select("ingest_batch").distinct().collect()}
    assert names == {"0"}
