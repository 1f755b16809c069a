"""Tests of the evaluation with literal examples: its tasks, its baselines and its search for the best settings."""

import json
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from chispa import assert_df_equality
from pandas.testing import assert_frame_equal
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
# Session d begins before the split of training and test time and continues after the split. Sessions e and f begin
# after the split.
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


def revealed_and_targets(task):
    """Return, for each query, the revealed products and the targets: [([product, …], {target: is_repeat}), …]."""
    known = {}
    for row in task.known.orderBy("event_time", "product_id").collect():
        known.setdefault(row.query_id, []).append(row.product_id)
    targets = {}
    for row in task.targets.collect():
        targets.setdefault(row.query_id, {})[row.product_id] = row.is_repeat
    return sorted((known.get(query.query_id, []), targets[query.query_id]) for query in task.queries.collect())


def test_the_given_share_of_sessions_begins_before_the_split(spark):
    starts = [(user, "s", 10 * user, "view", 1) for user in range(1, 12)]
    assert split_time(store(spark, starts), 0.8) == NOON + timedelta(minutes=90)


def test_next_item_reveals_a_session_one_interaction_at_a_time(spark):
    assert revealed_and_targets(task_of(spark, "next-item")) == [([10], {30: False}), ([10, 30], {10: True})]


def test_second_half_holds_out_all_from_the_middle_item_on(spark):
    longer = [(6, "g", 800 + at, "view", product) for at, product in enumerate((1, 1, 2, 3, 1, 4, 5))]
    task = task_of(spark, "second-half", [*BEFORE, *longer])
    assert revealed_and_targets(task) == [([1, 1, 2], {1: True, 3: False, 4: False, 5: False})]


def test_future_reveals_all_before_the_split_and_holds_out_all_after_it(spark):
    assert revealed_and_targets(task_of(spark, "future")) == [
        ([], {20: False}),
        ([10], {99: False}),
        ([10, 20, 20], {10: True, 30: False}),
    ]


@pytest.mark.parametrize("protocol", ["next-item", "future"])
def test_events_after_the_split_do_not_change_the_learnt_views(spark, protocol):
    other_future = [(9, "z", 700 + minute, "purchase", 40 + minute % 3) for minute in range(30)]
    settings = Settings(trends=TrendSettings(bucket=timedelta(hours=1), min_change=0, min_z=0))
    with (
        learnt_views(task_of(spark, protocol).train, settings) as views,
        learnt_views(task_of(spark, protocol, [*BEFORE, AFTER[0], *other_future]).train, settings) as other_views,
    ):
        for name in ("similar_items", "trends", "demand", "products"):
            assert_df_equality(getattr(views, name), getattr(other_views, name), ignore_row_order=True)


def test_a_revealed_product_that_training_lacks_can_be_recommended_again(spark):
    task = single_query(spark, 10, 77)
    with learnt_views(task.train, Settings()) as views:
        rows = served_lists(task, views, RecommendationSettings(), k=5, repeat="boost").orderBy("rank").collect()
    assert [row.product_id for row in rows][:2] == [77, 10]


def test_a_leak_is_caught(spark):
    task = task_of(spark, "next-item")
    check_no_leak(task)
    with pytest.raises(LeakError, match="beyond the split"):
        check_no_leak(replace(task, train=store(spark, [*BEFORE, *AFTER])))


def scores(candidates):
    return {row.product_id: pytest.approx(row.score) for row in candidates.collect()}


def single_query(spark, *items):
    """Return the evaluation task `next-item` with one list to make, for a visitor who has viewed the given items."""
    session = [(8, "q", 700 + at, "view", item) for at, item in enumerate((*items, 999))]
    task = task_of(spark, "next-item", [*BEFORE, *session])
    last = task.queries.where(F.col("known_items") == len(set(items)))
    return replace(task, queries=last, known=task.known.join(last.select("query_id"), on="query_id", how="left_semi"))


def test_association_rules_count_sessions_with_the_last_item(spark):
    assert scores(baselines.association_rules(single_query(spark, 10, 30))) == {10: 1, 20: 1, 30: 2, 40: 1}


def test_cosine_and_jaccard_sum_over_the_items(spark):
    # Products 10, 20 and 30 are in two sessions each, and product 40 is in one. Any two of 10, 20 and 30 share one
    # session.
    root = 2**0.5
    assert scores(baselines.cosine(single_query(spark, 10, 20))) == {10: 1.5, 20: 1.5, 30: 1.0, 40: 1 / root}
    assert scores(baselines.jaccard(single_query(spark, 20))) == {10: 1 / 3, 20: 1.0, 30: 1 / 3, 40: 1 / 2}


def test_similar_sessions_vote_for_their_items(spark):
    """Of the revealed products, 10 weighs 1/2 and 30 weighs 1. Session a has only 10, c only 30, and b has both."""
    a, b, c = (1 / 2) / 2 / 2, (1 / 2 + 1) / 2 / 1, 1 / 2 / 1
    assert scores(baselines.session_knn(single_query(spark, 10, 30))) == {10: a + b, 20: a + c, 30: b + c, 40: c}


def test_lists_leave_out_revealed_items_unless_repeats_count(spark):
    task = single_query(spark, 10, 30)
    for repeats, expected in ((False, [(1, 20), (2, 40)]), (True, [(1, 30), (2, 10), (3, 20), (4, 40)])):
        rows = baselines.best_of(baselines.association_rules(task), task, k=20, repeats=repeats)
        assert sorted((row["rank"], row.product_id) for row in rows.collect()) == expected


def test_every_method_is_measured_with_and_without_repeats_and_by_slice(spark):
    settings = Settings(recommendations=RecommendationSettings(list_length=5))
    rows = evaluate(store(spark, [*BEFORE, *AFTER]), settings, "next-item", share=0.7, max_queries=10)
    whole = rows[(rows["slice"] == "all") & (rows["metric"] == "hr@20")]
    assert len(whole) == 2 * 9
    assert set(rows["slice"]) >= {"all", "event_type=view", "popularity=popular", "history=1"}
    recommender = whole[(whole["method"] == "recommend") & whole["repeats"]].iloc[0]
    assert (recommender["queries"], recommender["targets"], recommender["value"]) == (2, 2, 1.0)
    assert rows["value"].between(0, 20).all()
    lines = [json.loads(line) for line in report.evaluation_lines(rows)]
    trending = next(
        line for line in lines if (line["method"], line["repeats"], line["slice"]) == ("trending", True, "all")
    )
    assert list(trending["differences"]) == [
        f"{metric}@{cut}" for cut in (5, 10, 20) for metric in ("hr", "mrr", "ndcg")
    ]
    assert trending["differences"]["hr@20"][0] == trending["hr@20"] - 1.0
    assert next(line for line in lines if line["method"] == "recommend")["differences"] == {}


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["next-item", "second-half", "future"])
def test_text_ids_are_measured_like_numbers(spark, protocol):
    numbers = store(spark, [*BEFORE, *AFTER])
    texts = numbers.withColumns({name: F.format_string("id-%02d", name) for name in ("product_id", "user_id")})
    measured = [evaluate(events, Settings(), protocol, share=0.7, max_queries=100) for events in (numbers, texts)]
    assert not measured[0].empty
    assert_frame_equal(*measured)


def sessions_that_skip_one(count):
    """Make sessions whose first product determines the third. The second product is in no other session."""
    for number in range(count):
        first, then = 100 + number % 30, 200 + number % 30
        for at, product in enumerate((first, 1000 + number, then)):
            moment = NOON + timedelta(minutes=10 * number + at)
            yield f"{moment:%Y-%m-%d %H:%M:%S} UTC,view,{product},,,,1.00,{number + 1},s{number}"


def test_a_search_keeps_a_value_that_is_surely_better_and_continues_after_a_stop(lake, tmp_path, monkeypatch, capsys):
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    (tmp_path / "events.csv").write_text("\n".join([header, *sessions_that_skip_one(300), ""]))
    ingest(lake, [str(tmp_path / "events.csv")], IngestSettings())
    monkeypatch.setattr(tuning, "CANDIDATES", {"similarity.window": (1, 2), "similarity.max_neighbours": (20, 50)})
    monkeypatch.setattr(report, "CANDIDATES", tuning.CANDIDATES)
    out = tmp_path / "tuned.toml"

    def start(minutes):
        options = ["--lake", lake.path, "--tune", "--out", str(out), "--set", "similarity.window=1"]
        arguments = parse("evaluate", [*options, "--budget", "30"])
        arguments.budget = minutes
        main(Job("evaluate", arguments, load_settings(None, arguments.assignments), lake.spark, time.monotonic()))
        return lake[EVALUATIONS].read().count()

    assert start(0) == 0
    assert "the next start continues from here" in capsys.readouterr().out
    assert start(30) == 2
    assert load_settings(out).similarity == SimilaritySettings(window=2)
    assert "# After the outer split, without repeats: " in out.read_text()
    evidence = out.read_text()
    assert start(30) == 2, "no trial is made twice"
    assert out.read_text() == evidence
