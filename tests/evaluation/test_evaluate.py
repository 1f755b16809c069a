"""The protocols and the baselines, by literal examples."""

import json
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from jobs.evaluate import main
from lambda_spark.cli.arguments import parse
from lambda_spark.cli.job import Job
from lambda_spark.errors import LeakError
from lambda_spark.evaluation import baselines, tuning
from lambda_spark.evaluation.evaluate import check_no_leak, evaluate
from lambda_spark.evaluation.methods import learnt_views, served_lists
from lambda_spark.evaluation.protocols import make_task, split_time
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.report import evaluation as report
from lambda_spark.settings import (
    IngestSettings,
    RecommendationSettings,
    Settings,
    SimilaritySettings,
    TrendSettings,
    load_settings,
)
from lambda_spark.storage.tables import EVALUATIONS

NOON = datetime(2019, 11, 4, 12)
SPLIT = NOON + timedelta(hours=10)
BEFORE = [
    (1, "a", 0, "view", 10),
    (1, "a", 1, "view", 20),
    (1, "a", 2, "cart", 20),
    (2, "b", 60, "view", 10),
    (2, "b", 61, "view", 30),
    (3, "c", 120, "view", 20),
    (3, "c", 121, "view", 30),
    (3, "c", 122, "view", 40),
]
# Session d begins before the split and goes on after it; e and f begin after it.
AFTER = [
    (4, "d", 595, "view", 10),
    (4, "d", 605, "view", 99),
    (1, "e", 610, "view", 10),
    (1, "e", 611, "view", 30),
    (1, "e", 612, "purchase", 10),
    (5, "f", 700, "view", 20),
]


def store(spark, rows):
    events = spark.createDataFrame(
        [(u, s, NOON + timedelta(minutes=m), kind, p) for u, s, m, kind, p in rows],
        "user_id long, user_session string, event_time timestamp, event_type string, product_id long",
    )
    return events.select(
        "*",
        F.to_date("event_time").alias("event_date"),
        F.lit(7).cast("long").alias("category_id"),
        F.lit("c").alias("category_code"),
        F.lit("b").alias("brand"),
        F.lit(1).cast("decimal(12,2)").alias("price"),
    )


def task_of(spark, protocol, rows=(*BEFORE, *AFTER)):
    return make_task(protocol, store(spark, rows), SPLIT, max_queries=100)


def asked(task):
    """[(user, what is revealed in order, {target: is it a repeat}), …]"""
    known = {}
    for row in task.known.orderBy("event_time", "product_id").collect():
        known.setdefault(row.query_id, []).append(row.product_id)
    targets = {}
    for row in task.targets.collect():
        targets.setdefault(row.query_id, {})[row.product_id] = row.is_repeat
    return sorted((known.get(one.query_id, []), targets[one.query_id]) for one in task.queries.collect())


def test_the_split_is_the_moment_before_which_a_share_of_the_sessions_begins(spark):
    starts = [(user, "s", 10 * user, "view", 1) for user in range(1, 12)]
    assert split_time(store(spark, starts), 0.8) == NOON + timedelta(minutes=90)


def test_next_item_reveals_a_session_one_interaction_at_a_time(spark):
    assert asked(task_of(spark, "next-item")) == [([10], {30: False}), ([10, 30], {10: True})]


def test_second_half_asks_for_what_follows_the_first_half_of_the_items(spark):
    longer = [(6, "g", 800 + at, "view", product) for at, product in enumerate((1, 1, 2, 3, 1, 4, 5))]
    task = task_of(spark, "second-half", [*BEFORE, *longer])
    assert asked(task) == [([1, 1, 2], {1: True, 3: False, 4: False, 5: False})]


def test_future_asks_what_users_do_later_from_all_they_did_before(spark):
    assert asked(task_of(spark, "future")) == [
        ([], {20: False}),
        ([10], {99: False}),
        ([10, 20, 20], {10: True, 30: False}),
    ]


@pytest.mark.parametrize("protocol", ["next-item", "future"])
def test_nothing_after_the_split_is_learnt_from(spark, protocol):
    """Whatever happens after the split, what a method may learn stays the same."""
    other_future = [(9, "z", 700 + minute, "purchase", 40 + minute % 3) for minute in range(30)]
    settings = Settings(trends=TrendSettings(bucket=timedelta(hours=1), min_change=0, min_z=0))
    with (
        learnt_views(task_of(spark, protocol).train, settings) as one,
        learnt_views(task_of(spark, protocol, [*BEFORE, AFTER[0], *other_future]).train, settings) as other,
    ):
        for name in ("similar_items", "trends", "demand", "products"):
            assert_df_equality(getattr(one, name), getattr(other, name), ignore_row_order=True)


def test_what_a_visitor_just_saw_for_the_first_time_in_the_store_can_be_recommended_again(spark):
    task = one_question(spark, 10, 77)
    with learnt_views(task.train, Settings()) as views:
        rows = served_lists(task, views, RecommendationSettings(), k=5, repeat="own-row").orderBy("rank").collect()
    assert [row.product_id for row in rows][:2] == [77, 10]


def test_a_leak_is_caught(spark):
    task = task_of(spark, "next-item")
    check_no_leak(task)
    with pytest.raises(LeakError, match="beyond the split"):
        check_no_leak(replace(task, train=store(spark, [*BEFORE, *AFTER])))


def scores(candidates):
    return {row.product_id: pytest.approx(row.score) for row in candidates.collect()}


def one_question(spark, *items):
    session = [(8, "q", 700 + at, "view", item) for at, item in enumerate((*items, 999))]
    task = task_of(spark, "next-item", [*BEFORE, *session])
    last = task.queries.where(F.col("known_items") == len(set(items)))
    return replace(task, queries=last, known=task.known.join(last.select("query_id"), on="query_id", how="left_semi"))


def test_association_rules_count_sessions_with_the_last_item(spark):
    assert scores(baselines.association_rules(one_question(spark, 10, 30))) == {10: 1, 20: 1, 30: 2, 40: 1}


def test_cosine_and_jaccard_sum_over_the_items(spark):
    # 10, 20 and 30 are in two sessions each, 40 in one; every two of the first three share one.
    root = 2**0.5
    assert scores(baselines.cosine(one_question(spark, 10, 20))) == {10: 1.5, 20: 1.5, 30: 1.0, 40: 1 / root}
    assert scores(baselines.jaccard(one_question(spark, 20))) == {10: 1 / 3, 20: 1.0, 30: 1 / 3, 40: 1 / 2}


def test_similar_sessions_vote_for_their_items(spark):
    """Of 10, 30 the weights are 1/2 and 1: session b has both, a the first, c the last."""
    a, b, c = (1 / 2) / 2 / 2, (1 / 2 + 1) / 2 / 1, 1 / 2 / 1
    assert scores(baselines.session_knn(one_question(spark, 10, 30))) == {10: a + b, 20: a + c, 30: b + c, 40: c}


def test_lists_leave_out_what_was_revealed_unless_repeats_count(spark):
    task = one_question(spark, 10, 30)
    for repeats, expected in ((False, [(1, 20), (2, 40)]), (True, [(1, 30), (2, 10), (3, 20), (4, 40)])):
        rows = baselines.best_of(baselines.association_rules(task), task, k=20, repeats=repeats)
        assert sorted((row["rank"], row.product_id) for row in rows.collect()) == expected


def test_every_method_is_measured_with_and_without_repeats_and_by_slice(spark):
    settings = Settings(recommendations=RecommendationSettings(k=5))
    rows = evaluate(
        store(spark, [*BEFORE, *AFTER]), settings, "next-item", share=0.7, max_queries=10, progress=lambda text: None
    )
    whole = rows[(rows["slice"] == "all") & (rows["metric"] == "hr@20")]
    assert len(whole) == 2 * 9
    assert set(rows["slice"]) >= {"all", "event_type=view", "popularity=popular", "history=1"}
    ours = whole[(whole["method"] == "recommend") & whole["repeats"]].iloc[0]
    assert (ours["queries"], ours["targets"], ours["value"]) == (2, 2, 1.0)
    assert rows["value"].between(0, 20).all()
    lines = [json.loads(line) for line in report.evaluation_lines(rows)]
    trending = next(one for one in lines if (one["method"], one["repeats"], one["slice"]) == ("trending", True, "all"))
    assert list(trending["differences"]) == [
        f"{metric}@{cut}" for cut in (5, 10, 20) for metric in ("hr", "mrr", "ndcg")
    ]
    assert trending["differences"]["hr@20"][0] == trending["hr@20"] - 1.0
    assert next(one for one in lines if one["method"] == "recommend")["differences"] == {}


def sessions_that_skip_one(count):
    """What is looked at first leads to one product, with another one, that is never seen again, in between."""
    for number in range(count):
        first, then = 100 + number % 30, 200 + number % 30
        for at, product in enumerate((first, 1000 + number, then)):
            moment = NOON + timedelta(minutes=10 * number + at)
            yield f"{moment:%Y-%m-%d %H:%M:%S} UTC,view,{product},,,,1.00,{number + 1},s{number}"


def test_a_search_takes_what_is_surely_better_and_goes_on_where_it_stopped(lake, tmp_path, monkeypatch, capsys):
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    (tmp_path / "events.csv").write_text("\n".join([header, *sessions_that_skip_one(300), ""]))
    ingest(lake, [str(tmp_path / "events.csv")], IngestSettings(), progress=lambda text: None)
    monkeypatch.setattr(tuning, "CANDIDATES", {"similarity.window": (1, 2), "similarity.k": (20, 50)})
    monkeypatch.setattr(report, "CANDIDATES", tuning.CANDIDATES)
    out = tmp_path / "tuned.toml"

    def start(minutes):
        options = ["--lake", lake.path, "--tune", "--out", str(out), "--set", "similarity.window=1"]
        arguments = parse("evaluate", [*options, "--budget", "30"])
        arguments.budget = minutes
        main(Job("evaluate", arguments, load_settings(None, arguments.assignments), lake.spark, time.monotonic()))
        return lake.read(EVALUATIONS).count()

    assert start(0) == 0
    assert "the next start goes on from here" in capsys.readouterr().out
    assert start(30) == 2
    assert load_settings(out).similarity == SimilaritySettings(window=2)
    assert "# After the outer split, without repeats: " in out.read_text()
    evidence = out.read_text()
    assert start(30) == 2, "no trial is made twice"
    assert out.read_text() == evidence
