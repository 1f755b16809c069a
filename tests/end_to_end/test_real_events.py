"""Tests with events of a real store. Counts are known, and pandas computes the expected trends separately."""

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from lambda_spark.batch.refresh import update_trends
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import IngestSettings, RecommendationSettings, SimilaritySettings, load_settings
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.tables import (
    BRAND_TRENDS,
    CATEGORY_TRENDS,
    DEMAND,
    EVENTS,
    REJECTED_EVENTS,
    TRENDS,
    USER_TRENDS,
)
from tests.conftest import NOVEMBER, OCTOBER, needs_real_data
from tests.deliveries import differing

pytestmark = needs_real_data

WEEK = pd.Timedelta(days=7)


def ingest_file(lake, file):
    account = ingest(lake, [str(file)], IngestSettings())
    return account.lines, account.events, account.repeats, account.rejected


def test_the_first_lines_of_october_have_the_known_counts_and_verify_finds_no_difference(lake):
    assert ingest_file(lake, OCTOBER) == (17_435, 17_429, 5, 1)
    rejected = lake[REJECTED_EVENTS].read().collect()[0]
    assert rejected.reasons == ["too few fields"]
    assert rejected.raw.endswith(",52040330")
    assert lake[EVENTS].read().where("user_id = 52040330").count() == 0, "a cut user_id must not become a user"
    kinds = {row.event_type: row["count"] for row in lake[EVENTS].read().groupBy("event_type").count().collect()}
    assert sum(kinds.values()) == 17_429
    assert kinds["cart"] == 164, "165 lines, one of them a repeat"
    update_trends(lake, load_settings(None, ["trends.bucket=30 minutes"]).trends)
    update_similarity(lake, SimilaritySettings())
    update_recommendations(lake, RecommendationSettings())
    assert differing(lake) == []


@pytest.fixture(scope="module")
def november():
    frame = pd.read_csv(NOVEMBER)
    frame["event_time"] = pd.to_datetime(frame["event_time"], format="%Y-%m-%d %H:%M:%S UTC")
    frame["bucket_start"] = (
        pd.Timestamp("2019-11-01") + (frame["event_time"] - pd.Timestamp("2019-11-01")) // WEEK * WEEK
    )
    return frame


def chance(part, p):
    """Return the overdispersion, the p-values and the q-values of the rows `part`.

    The argument `p` is the newer bucket's share of demand. The standard library computes the normal tail.
    """
    n = part["current"] + part["previous"]
    factor = max(1, (part["z_score"] ** 2).median() / 0.4549) * (n / n.median()).clip(lower=1) ** 0.25
    factor = factor if len(part) >= 10 else factor * 0 + 1
    up = part["z_score"] > 0
    c = part["current"] - np.clip(part["current"] - n * p, -0.5, 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(k > 0, k * np.log(k / e), 0) for k, e in ((c, n * p), (n - c, n * (1 - p)))]
    root = np.sqrt(np.maximum(2 * (terms[0] + terms[1]), 0) / factor)
    result = pd.DataFrame({"overdispersion": factor, "p_value": [math.erfc(x / math.sqrt(2)) / 2 for x in root]})
    for side in (up, ~up):
        values = result.loc[side, "p_value"].sort_values(ascending=False)
        steps = values * len(part) / np.arange(len(values), 0, -1)
        result.loc[values.index, "q_value"] = steps.cummin().clip(upper=1)
    return result.reindex(columns=["overdispersion", "p_value", "q_value"])


def expected_trends(frame, key, settings):
    """Compute the trends in pandas from event counts. Rows are keys, columns are buckets, and zeros are included."""
    parts = []
    buckets = pd.date_range(frame["bucket_start"].min(), frame["bucket_start"].max(), freq="7D")
    for signal, rows in frame.groupby("event_type"):
        if signal not in ("view", "cart", "purchase"):
            continue
        total = rows.groupby("bucket_start").size().reindex(buckets, fill_value=0)
        grid = rows.groupby([key, "bucket_start"]).size().unstack(fill_value=0).reindex(columns=buckets, fill_value=0)
        for before, now in itertools.pairwise(buckets):
            part = pd.DataFrame({"current": grid[now], "previous": grid[before]})
            part = part[(part["current"] > 0) | (part["previous"] > 0)]
            n, p = part["current"] + part["previous"], total[now] / (total[now] + total[before])
            part["change"] = part["current"] - part["previous"]
            part["growth"] = part["change"] / (n + 1)
            part["z_score"] = (part["current"] - n * p) / np.sqrt(n * p * (1 - p))
            part[["overdispersion", "p_value", "q_value"]] = chance(part[n >= settings.min_change], p)
            moves = (part["change"].abs() >= settings.min_change) & (part["z_score"].abs() >= settings.min_z)
            moves &= part["q_value"] <= settings.max_fdr
            part["direction"] = np.where(moves, np.where(part["z_score"] > 0, "rising", "waning"), "steady")
            part["trend_pct"] = (
                100 * part["change"].abs() / part.groupby("direction")["change"].transform(lambda c: c.abs().sum())
            )
            part.loc[~moves, "trend_pct"] = np.nan
            part["complete"] = now + WEEK <= frame["event_time"].max()
            parts.append(part.reset_index().assign(bucket_start=now, signal=signal))
    return pd.concat(parts).set_index(["bucket_start", "signal", key]).sort_index()


def assert_same_trends(actual, expected):
    """Compare trends to nine digits, and p-values and q-values to 0.4 percent.

    The project computes the tail of the normal distribution only to 0.3 percent.
    """
    tails = ["p_value", "q_value"]
    pd.testing.assert_frame_equal(actual[tails], expected[tails], rtol=0.004, check_index_type=False)
    actual, expected = actual.drop(columns=tails), expected.drop(columns=tails)
    pd.testing.assert_frame_equal(actual, expected, check_dtype=False, rtol=1e-9, check_index_type=False)


def test_the_trends_of_november_equal_those_of_pandas(lake, november):
    assert ingest_file(lake, NOVEMBER) == (10_000, 10_000, 0, 0)
    settings = load_settings(
        None, ["trends.origin=2019-11-01", "trends.min_change=3", "trends.min_z=1.5", "trends.max_fdr=0.9"]
    ).trends
    update_trends(lake, settings)
    purchases = (
        lake[DEMAND].read().where("signal = 'purchase'").groupBy("bucket_start").sum("events").orderBy("bucket_start")
    )
    assert [row[1] for row in purchases.collect()] == [20, 33, 47, 20, 9]
    for table, key in ((TRENDS, "product_id"), (CATEGORY_TRENDS, "category_code"), (BRAND_TRENDS, "brand")):
        expected = expected_trends(november, key, settings)
        rows = [row.asDict() for row in lake[table].read().collect()]
        actual = pd.DataFrame(rows).set_index(["bucket_start", "signal", key]).sort_index()[expected.columns]
        assert_same_trends(actual, expected)
        assert Counter(actual["direction"])["rising"] > 0, "no trend rises, so the comparison tests little"
    moving = expected_trends(november, "product_id", settings)["direction"]
    touched = november[november["bucket_start"] > november["bucket_start"].min()]
    keys = list(zip(touched["bucket_start"], touched["event_type"], touched["product_id"], strict=True))
    touched = touched.assign(direction=moving.reindex(keys).to_numpy())
    by_user = touched.groupby(["bucket_start", "user_id"])["direction"]
    expected = pd.DataFrame(
        {
            "interactions": by_user.size(),
            "rising_pct": 100 * by_user.agg(lambda d: (d == "rising").mean()),
            "waning_pct": 100 * by_user.agg(lambda d: (d == "waning").mean()),
        }
    )
    rows = [row.asDict() for row in lake[USER_TRENDS].read().collect()]
    actual = pd.DataFrame(rows).set_index(["bucket_start", "user_id"]).sort_index()
    pd.testing.assert_frame_equal(actual, expected, check_dtype=False, rtol=1e-9, check_index_type=False)


def test_november_in_shuffled_and_late_pieces_has_the_same_trends(lake, november, tmp_path):
    lines = pd.read_csv(NOVEMBER, dtype=str, keep_default_na=False)
    folder = tmp_path / "pieces"
    folder.mkdir()
    shuffled = lines.sample(frac=1, random_state=1)
    settings = load_settings(
        None, ["trends.origin=2019-11-01", "trends.min_change=3", "trends.min_z=1.5", "trends.max_fdr=0.9"]
    ).trends
    counts = []
    for number in range(3):
        piece = pd.concat([shuffled.iloc[number::3], shuffled.iloc[number : number + 90 : 9]])
        piece.to_csv(folder / f"{number}.csv.gz", index=False)
        counts.append(ingest_file(lake, folder))
        update_trends(lake, settings)
    assert sum(events for _, events, _, _ in counts) == 10_000
    expected = expected_trends(november, "product_id", settings)
    rows = [row.asDict() for row in lake[TRENDS].read().collect()]
    actual = pd.DataFrame(rows).set_index(["bucket_start", "signal", "product_id"]).sort_index()[expected.columns]
    assert_same_trends(actual, expected)
