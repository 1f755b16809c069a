"""Tests of the physical plans of the heavy queries, as Spark makes them before it runs a query.

A query must shuffle its rows only once for each key. It must not move many rows to a single partition. Spark must
compile little code for the queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.batch.demand import Buckets, attribute_demand, demand_cells, total_demand
from lambda_spark.batch.trends import trends
from lambda_spark.serving.inputs import pin_views
from lambda_spark.serving.refresh import for_active_users
from lambda_spark.settings import RecommendationSettings, SimilaritySettings, TrendSettings
from lambda_spark.speed.baskets import basket_items
from lambda_spark.speed.co_interactions import all_contributions
from lambda_spark.speed.scores import similar_items
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS
from tests.deliveries import deliver, event

pytestmark = pytest.mark.plan


@pytest.fixture(autouse=True)
def compiled_projections(spark):
    """Compile projections as in production. The other tests interpret them."""
    spark.conf.set("spark.sql.codegen.factoryMode", "FALLBACK")
    yield
    spark.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")


@dataclass
class Node:
    """An operator of a physical plan. The children of an operator are the operators from which it reads rows."""

    text: str
    children: list[Node] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child

    def is_a(self, *names: str) -> bool:
        return self.text.startswith(names)

    def has_one_row(self, plan: Node) -> bool:
        """Whether the operator surely returns at most one row, as an aggregate without keys does."""
        if self.is_a("HashAggregate", "ObjectHashAggregate", "SortAggregate"):
            return "keys=[]" in self.text or "key=[]" in self.text
        if self.is_a("Scan OneRowRelation"):
            return True
        if self.is_a("ReusedExchange"):
            exchange = self.text.partition("], ")[2]
            return any(node.text == exchange and node.has_one_row(plan) for node in plan)
        below = [child for child in self.children if not child.is_a("Subquery", "ReusedSubquery")]
        return len(below) == 1 and below[0].has_one_row(plan)


def plan_of(rows) -> Node:
    """Parse the plan of a query. A cached table appears only as the operator that reads the cache."""
    root = Node("")
    above = [(-1, root)]
    cached_at = None
    for line in rows._jdf.queryExecution().executedPlan().toString().splitlines():
        indented, text = re.fullmatch(r"([ :+-]*)(?:\*\(\d+\) )?(.*)", line).groups()
        if cached_at is not None and len(indented) > cached_at:
            continue
        cached_at = len(indented) if text.startswith("InMemoryTableScan") else None
        while above[-1][0] >= len(indented):
            above.pop()
        node = Node(re.sub(r"#\d+L?", "", text))
        above[-1][1].children.append(node)
        above.append((len(indented), node))
    return root


def exchanged_by(plan: Node) -> list[str]:
    """List the keys of a plan's shuffles (exchanges), sorted. A shuffle that Spark reuses is listed once."""
    keys = (re.match(r"Exchange hashpartitioning\((.*), \d+\)", node.text) for node in plan)
    return sorted(match.group(1) for match in keys if match)


def assert_well_spread(plan: Node) -> None:
    """Check that each join has a key or a one-row side, and that only one-row inputs go to a single partition."""
    for node in plan:
        assert not node.is_a("CartesianProduct"), node.text
        if node.is_a("BroadcastNestedLoopJoin"):
            assert any(side.has_one_row(plan) for side in node.children), node.text
        if any(child.is_a("Exchange SinglePartition") for child in node.children):
            assert node.has_one_row(plan), node.text


def test_pairs_exchange_events_once_and_their_counts_once(small):
    plan = plan_of(all_contributions(basket_items(small[EVENTS].read()), window=5))
    assert exchanged_by(plan) == [
        "event_date, relation, _groupingexpression, _groupingexpression",
        "event_date, user_id",
    ]
    assert_well_spread(plan)


def test_neighbours_exchange_pairs_once_and_scores_once(small):
    plan = plan_of(similar_items(small[CO_INTERACTIONS].read(), SimilaritySettings(), newest=date(2019, 10, 1)))
    pairs, best = "relation, item_a, item_b", "product_id, relation"
    # Two of the three shuffles by pair move counts of single items, which have far fewer rows than pairs.
    assert exchanged_by(plan) == [best, pairs, pairs, pairs]
    assert_well_spread(plan)


def test_lists_exchange_events_once_by_user(small):
    plan = plan_of(for_active_users(pin_views(small), RecommendationSettings()))
    assert [keys for keys in exchanged_by(plan) if "user_id" in keys] == ["user_id"]
    assert_well_spread(plan)


@contextmanager
def attribute_trends(lake) -> Iterator[DataFrame]:
    """Trends of categories and brands, computed as in the batch job but without caching."""
    settings, buckets = TrendSettings(), Buckets(TrendSettings())
    cells = demand_cells(lake[EVENTS].read(), buckets).persist()
    try:
        yield trends(
            attribute_demand(cells, buckets),
            total_demand(cells, buckets),
            "value",
            settings,
            within=["attribute"],
            first_bucket=F.lit(datetime(2019, 10, 1)),
            newest_bucket=F.lit(datetime(2019, 11, 1)),
            known_until=F.lit(datetime(2019, 11, 1)),
        )
    finally:
        cells.unpersist()


def test_trends_exchange_tested_keys_once_by_bucket_and_signal(small):
    with attribute_trends(small) as rows:
        plan = plan_of(rows)
    group = "bucket_start, signal, attribute"
    # The shuffle by `bucket_start` alone computes the total demand. One of the two shuffles by `group` computes figures
    # that all keys of a group share.
    assert exchanged_by(plan) == ["attribute, value, bucket_start", "bucket_start", group, group]
    assert_well_spread(plan)


def longest_method(rows) -> int:
    """Return the size of the longest method that Spark generates for a query, in bytes of Java code."""
    text = rows.sparkSession._jvm.PythonSQLUtils.explainString(rows._jdf.queryExecution(), "codegen")
    return max(int(size) for size in re.findall(r"maxMethodCodeSize:(\d+)", text))


def test_the_code_of_trends_is_short_enough_for_java_to_compile(small):
    # Java's compilers did not compile a method of 29,000 bytes, so Java ran this method slowly in the interpreter.
    with attribute_trends(small) as rows:
        assert longest_method(rows) < 8000


def compiled(spark) -> int:
    """Return how many times Spark has compiled generated code so far."""
    return spark._jvm.org.apache.spark.metrics.source.CodegenMetrics.METRIC_COMPILATION_TIME().getCount()


def test_a_micro_batch_reuses_the_compiled_code_of_the_one_before(lake, tmp_path):
    noon = datetime(2019, 10, 1, 12)
    for number in range(3):
        visits = [(minute, 1 + minute % 5, 10 * number + minute % 3) for minute in range(30)]
        lines = [event(noon + timedelta(minutes=at), "view", product, 1 + user, "s") for at, product, user in visits]
        before = compiled(lake.spark)
        deliver(lake, tmp_path / "in", str(number), lines)
        after_ingest = compiled(lake.spark)
        update_similarity(lake, SimilaritySettings())
    assert after_ingest - before == 0
    # One small filter leaves out rows that this micro-batch has already stored. Its code contains the micro-batch's
    # number as a constant, so Spark compiles the filter in each micro-batch.
    assert compiled(lake.spark) - after_ingest <= 2
