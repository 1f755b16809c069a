"""A benchmark of DuckDB, Polars and implicit on the work of this project's jobs, from a store's Parquet files.

    python single_machine.py WHO STORE_PARQUET RUNS [WORK…]

WHO is duckdb, polars or implicit. WORK names the work that DuckDB does (default: all). This file runs in a Python
environment of its own. It prints one line of JSON for each measured piece of work.

DuckDB works by this project's definitions and prints sums of its rows, which must equal the sums of this project's
tables. Its trends leave out categories, brands, users, overdispersion, false discovery rates, directions, ranks and
attributes. Its lists leave out the effect of trends on scores, the removal of bought products, the products that fill
up short lists, and the reasons. Polars computes trends without z-scores. implicit counts pairs within the last 50
products of each user.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

from measure import measured, print_peak, print_versions

THREADS = 2
LAST = 50
NEIGHBOURS = 20
LIST = 10

INTERACTIONS = "event_type in ('view', 'cart', 'purchase')"

TRENDS = """
create or replace table trends as
with demand as (
    select time_bucket(interval 7 days, event_time, timestamp '1970-01-05') as bucket, event_type as signal, product_id,
           count(*) as events
    from store where {interactions} group by all),
totals as (select bucket, signal, sum(events) as total from demand group by all),
compared as (
    select coalesce(now.bucket, old.bucket + interval 7 days) as bucket, coalesce(now.signal, old.signal) as signal,
           coalesce(now.product_id, old.product_id) as product_id,
           coalesce(now.events, 0) as current, coalesce(old.events, 0) as previous
    from demand now full join demand old
      on now.bucket = old.bucket + interval 7 days and now.signal = old.signal and now.product_id = old.product_id)
select c.*, (current - previous) / (current + previous + 1) as growth,
       (current - (current + previous) * t.total / (t.total + p.total))
           / sqrt((current + previous) * t.total::double / (t.total + p.total) * p.total / (t.total + p.total)) as z
from compared c
join totals t on t.bucket = c.bucket and t.signal = c.signal
join totals p on p.bucket = c.bucket - interval 7 days and p.signal = c.signal
"""

CO_INTERACTIONS = """
create or replace table co_interactions as
with items as (
    select event_time::date as day, 'viewed' as relation, user_id, user_session as session, product_id,
           min(event_time) as first_time
    from store where {interactions} group by all
    union all
    select event_time::date, 'bought', user_id, '', product_id, min(event_time)
    from store where event_type = 'purchase' group by all),
placed as (
    select day, relation, product_id as item, row_number() over basket as nth,
           [lead(product_id, 1) over basket, lead(product_id, 2) over basket, lead(product_id, 3) over basket,
            lead(product_id, 4) over basket, lead(product_id, 5) over basket] as others
    from items window basket as (partition by day, relation, user_id, session order by first_time, product_id)),
pairs as (
    select day, relation, item, unnest(others) as other, unnest([60, 30, 20, 15, 12]) as strength from placed),
counted as (
    select day, relation, least(item, other) as a, greatest(item, other) as b, strength
    from pairs where other is not null
    union all select day, relation, item, item, 0 from placed
    union all select day, relation, 0, 0, 0 from placed where nth = 1)
select day, relation, a, b, count(*) as baskets, sum(strength)::bigint as strength from counted group by all
"""

SIMILAR_ITEMS = """
create or replace table similar_items as
with newest as (select max(day) as day from co_interactions),
weighted as (
    select c.*, round(1048576 * pow(2.0, -(newest.day - c.day) / 30.0))::bigint as weight
    from co_interactions c, newest),
totals as (
    select relation, a, b, sum(baskets) as baskets, sum(weight * baskets) as decayed_baskets,
           sum(weight * strength) as decayed_strength
    from weighted group by all),
singles as (select relation, a as item, decayed_baskets as n from totals where a = b),
sides as (
    select relation, a as i, b as j, baskets, decayed_strength from totals where a < b
    union all select relation, b, a, baskets, decayed_strength from totals where a < b)
select s.relation, i as product_id, j as similar_product_id, decayed_strength / (60.0 * n) as score, baskets,
       row_number() over (partition by s.relation, i order by decayed_strength / (60.0 * n) desc, j) as rank
from sides s join singles on singles.relation = s.relation and singles.item = i
qualify rank <= 20
"""

LISTS = """
create or replace table lists as
with touched as (
    select user_id, product_id, max(event_time) as latest,
           max(case event_type when 'purchase' then 3 when 'cart' then 2 else 1 end) as weight
    from store where {interactions} group by all),
profile as (
    select *, row_number() over (partition by user_id order by latest desc, product_id) - 1 as position
    from touched qualify position < 10),
scored as (
    select p.user_id, n.similar_product_id as product_id, sum(weight * pow(0.5, position) * score) as score
    from profile p join similar_items n on n.product_id = p.product_id and n.relation = 'viewed' group by all)
select *, row_number() over (partition by user_id order by score desc, product_id) as rank
from scored s anti join profile p on p.user_id = s.user_id and p.product_id = s.product_id
qualify rank <= 10
"""


def duckdb(store: str, runs: int, *works: str) -> None:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads = {THREADS}")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(f"create view store as from read_parquet('{store}/*.parquet')")
    for work, statements in (
        ("trends", [TRENDS]),
        ("similarity", [CO_INTERACTIONS, SIMILAR_ITEMS]),
        ("recommend", [LISTS]),
    ):
        sql = [statement.format(interactions=INTERACTIONS) for statement in statements]
        if works and work not in works:
            continue
        for _ in range(runs):
            measured("DuckDB", work, lambda sql=sql: [connection.execute(statement) for statement in sql])
    if works:
        return
    for table, sums in (
        ("trends", "sum(current), sum(previous)"),
        ("co_interactions", "sum(baskets), sum(strength)"),
        ("similar_items", "sum(rank), sum(baskets)"),
    ):
        rows = connection.execute(f"select count(*), {sums} from {table}").fetchone()
        print(json.dumps({"who": "DuckDB", "table": table, "sums": [int(value) for value in rows]}))


def polars(store: str, runs: int) -> None:
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    import polars as pl

    store_events = pl.scan_parquet(f"{store}/*.parquet")
    is_interaction = pl.col("event_type").is_in(["view", "cart", "purchase"])
    origin = datetime(1970, 1, 5, tzinfo=UTC)
    demand = (
        store_events.filter(is_interaction)
        .group_by(
            ((pl.col("event_time") - origin).dt.total_microseconds() // (7 * 86_400_000_000)).alias("bucket"),
            pl.col("event_type").alias("signal"),
            "product_id",
        )
        .agg(pl.len().cast(pl.Int64).alias("events"))
    )

    def trends() -> None:
        keys = ["bucket", "signal", "product_id"]
        now = demand.collect()
        old = now.select(pl.col("bucket") + 1, "signal", "product_id", pl.col("events").alias("previous"))
        both = now.join(old, on=keys, how="full", coalesce=True).with_columns(
            pl.col("events").fill_null(0), pl.col("previous").fill_null(0)
        )
        both.with_columns(
            ((pl.col("events") - pl.col("previous")) / (pl.col("events") + pl.col("previous") + 1)).alias("growth")
        )

    for _ in range(runs):
        measured("Polars", "trends", trends)


def implicit(store: str, runs: int) -> None:
    # Give OpenBLAS one thread, because its threads would compete with implicit's own.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    import numpy as np
    import polars as pl
    from implicit.nearest_neighbours import ItemItemRecommender
    from scipy.sparse import csr_matrix

    touched = (
        pl.scan_parquet(f"{store}/*.parquet")
        .filter(pl.col("event_type").is_in(["view", "cart", "purchase"]))
        .group_by("user_id", "product_id")
        .agg(pl.col("event_time").max())
        .sort("user_id", "event_time", descending=[False, True])
        .group_by("user_id", maintain_order=True)
        .head(LAST)
        .collect()
    )
    users, user = np.unique(touched["user_id"].to_numpy(), return_inverse=True)
    products, product = np.unique(touched["product_id"].to_numpy(), return_inverse=True)
    matrix = csr_matrix((np.ones(len(touched)), (user, product)), shape=(len(users), len(products)))
    everyone = np.arange(len(users))
    for _ in range(runs):
        model = ItemItemRecommender(K=NEIGHBOURS, num_threads=THREADS)
        measured("implicit", "neighbours", lambda model=model: model.fit(matrix, show_progress=False))
        measured("implicit", "recommend", lambda model=model: model.recommend(everyone, matrix, N=LIST))


if __name__ == "__main__":
    side = {"duckdb": duckdb, "polars": polars, "implicit": implicit}[sys.argv[1]]
    who = {"duckdb": "DuckDB", "polars": "Polars", "implicit": "implicit"}[sys.argv[1]]
    print_versions(who, [sys.argv[1]])
    side(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
    print_peak(who)
