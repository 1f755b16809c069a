"""Tests of the command `verify`, which computes tables again and compares them with the stored ones."""

from dataclasses import replace
from datetime import datetime, timedelta

from pyspark.sql import functions as F

from jobs.verify import main
from lambda_spark.batch.refresh import TREND_TABLES, update_trends
from lambda_spark.operations.verify import verify
from lambda_spark.settings import Settings, SimilaritySettings
from lambda_spark.speed.update import start_over, update_similarity
from lambda_spark.storage.tables import CO_INTERACTIONS, DEMAND, EVENTS, PRODUCTS, RECOMMENDATIONS, USER_TRENDS
from tests.deliveries import TRENDS, bring_up_to_date, deliver, differing, event
from tests.in_session import do


def test_verify_finds_a_row_that_is_wrong(small):
    done = small[CO_INTERACTIONS].last_commit(job="similarity")
    wrong_row = small[CO_INTERACTIONS].read().where("item_a = 0").limit(1)
    small[CO_INTERACTIONS].append(wrong_row, note=done.note)
    findings = {finding.table: finding for finding in verify(small)}
    assert {table for table, finding in findings.items() if finding.differs} == {"co_interactions"}
    assert findings["co_interactions"].missing.count() == 1
    assert findings["co_interactions"].surplus.count() == 1


def test_a_table_whose_job_has_not_finished_is_reported_as_unchecked(small, spark, capsys):
    """A rebuild of the tables has begun, but has not yet finished its first micro-batch."""
    start_over(small, SimilaritySettings())
    arguments = ("--lake", small.path, "--table", "co_interactions", "--table", "products")
    assert do("verify", main, spark, *arguments) == 0
    printed = capsys.readouterr().out
    assert "co_interactions: not checked, the job that computes it has not finished yet" in printed
    assert "all tables equal their recompute\nnot checked: co_interactions\n" in printed
    update_similarity(small, SimilaritySettings())
    assert do("verify", main, spark, *arguments) == 0
    assert "not checked" not in capsys.readouterr().out


def test_trends_are_compared_with_the_events_that_their_run_had_read(small):
    """The job `forget` deletes from the last trend table first. A killed `trends` run has written only the first."""
    note = {"job": "trends", "events_version": small[EVENTS].version() + 1}
    small[DEMAND].delete(F.lit(True), note=note)
    small[USER_TRENDS].delete(F.lit(True), note={"job": "forget"})
    assert differing(small, *TREND_TABLES) == []


def test_products_are_compared_with_the_events_they_were_computed_from(small):
    """A continuously running job renews the table `products` only from time to time."""
    small[EVENTS].delete(F.col("product_id") == 1, note={})
    products = next(verify(small))
    assert (products.table, products.differs) == (PRODUCTS.name, False)
    assert "1 newer versions not yet processed" in products.against


def test_lists_are_verified_when_their_commit_does_not_note_the_bucket_length(small):
    done = small[RECOMMENDATIONS].last_commit(job="recommend")
    small[RECOMMENDATIONS].note({name: value for name, value in done.note.items() if name != "bucket"})
    assert differing(small, RECOMMENDATIONS) == []


def test_lists_are_compared_with_trends_of_the_bucket_length_they_were_made_from(small, tmp_path):
    """The reason of a product in demand names the start of eight buckets, and so depends on the bucket length."""
    deliver(small, tmp_path / "in", "new", [event(datetime(2019, 10, 21), "view", 99, 9, "alone")])
    bring_up_to_date(small, Settings(trends=TRENDS))
    update_trends(small, replace(TRENDS, bucket=timedelta(days=1)))
    assert not small[RECOMMENDATIONS].read().where("reason like 'in demand%'").isEmpty()
    assert differing(small, RECOMMENDATIONS) == []
