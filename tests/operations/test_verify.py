"""A table held against its recompute."""

from dataclasses import replace
from datetime import datetime, timedelta

from pyspark.sql import functions as F

from jobs.verify import main
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.operations.verify import verify
from lambda_spark.settings import Settings, SimilaritySettings
from lambda_spark.speed.update import start_over
from lambda_spark.storage.tables import CO_INTERACTIONS, DEMAND, EVENTS, PRODUCTS, RECOMMENDATIONS, USER_TRENDS
from tests.deliveries import TRENDS, bring_up_to_date, deliver, differing, event, quiet
from tests.in_session import do


def test_verify_finds_a_row_that_is_wrong(small):
    done = small.last_commit(CO_INTERACTIONS, job="similarity")
    lie = small.read(CO_INTERACTIONS).where("item_a = 0").limit(1)
    small.append(CO_INTERACTIONS, lie, note=done.note)
    findings = {finding.table: finding for finding in verify(small, quiet)}
    assert {table for table, finding in findings.items() if finding.differs} == {"co_interactions"}
    assert findings["co_interactions"].missing.count() == 1
    assert findings["co_interactions"].surplus.count() == 1


def test_what_nothing_has_been_computed_for_yet_is_said_to_be_unchecked(small, spark, capsys):
    """As between the beginning of a rebuild and its first micro-batch."""
    start_over(small, SimilaritySettings(), quiet)
    assert do("verify", main, spark, "--lake", small.path) == 0
    printed = capsys.readouterr().out
    assert "co_interactions: not checked, the job that computes it has not finished yet" in printed
    assert "all tables equal their recompute\nnot checked: co_interactions\n" in printed
    bring_up_to_date(small, Settings(trends=TRENDS))
    assert do("verify", main, spark, "--lake", small.path) == 0
    assert "not checked" not in capsys.readouterr().out


def test_trends_are_held_against_the_events_that_their_run_had_seen(small):
    """`forget` begins with the last of their tables; a run that is killed has written the first ones."""
    note = {"job": "trends", "events_version": small.version(EVENTS) + 1}
    small.delete(DEMAND, F.lit(True), note=note)
    small.delete(USER_TRENDS, F.lit(True), note={"job": "forget"})
    assert differing(small) == []


def test_products_are_held_against_the_events_that_they_are_from(small):
    """A job that stays up renews them now and then only."""
    small.delete(EVENTS, F.col("product_id") == 1, note={})
    products = next(verify(small, quiet))
    assert (products.table, products.differs) == (PRODUCTS.name, False)
    assert "1 newer versions not yet taken in" in products.against


def test_lists_whose_commit_has_not_noted_the_length_of_buckets_are_verified(small):
    done = small.last_commit(RECOMMENDATIONS, job="recommend")
    small.note(RECOMMENDATIONS, {name: value for name, value in done.note.items() if name != "bucket"})
    assert differing(small) == []


def test_lists_are_held_against_trends_as_long_as_those_they_were_made_of(small, tmp_path):
    """What fills a list up says since when its demand is counted, which is eight buckets."""
    deliver(small, tmp_path / "in", "new", [event(datetime(2019, 10, 21), "view", 99, 9, "alone")])
    bring_up_to_date(small, Settings(trends=TRENDS))
    refresh_trends(small, replace(TRENDS, bucket=timedelta(days=1)), progress=quiet)
    assert not small.read(RECOMMENDATIONS).where("reason like 'in demand%'").isEmpty()
    assert differing(small) == []
