"""Whose lists a later run makes anew: all whose list is not the same, and few others."""

from dataclasses import replace
from datetime import datetime

import pytest
from pyspark.sql import functions as F

from lambda_spark.serving import refresh as serving
from lambda_spark.serving.inputs import INPUTS, pin_views
from lambda_spark.serving.outdated import outdated_users
from lambda_spark.serving.refresh import for_active_users, refresh
from lambda_spark.settings import RecommendationSettings, Settings, SimilaritySettings
from lambda_spark.speed.update import update
from lambda_spark.storage.tables import RECOMMENDATIONS
from tests.deliveries import TRENDS, bring_up_to_date, contents, deliver, event, quiet, random_events
from tests.serving.test_recommendations import PLAIN, views

EVENTS_BEFORE = [(user, 10 * user, "view", user) for user in range(1, 8)]
SIMILAR = [
    *((10 * user, 10 * user + n, 0.6 - n / 10) for user in range(1, 7) for n in (1, 2)),
    (10, 13, 0.1),
    (40, 43, 0.1),
]
"""All users but the last have lists of two that nothing fills up."""
PRODUCTS = [
    (one, None, f"c.{one // 10}", "brand", 1.0) for one in (*range(10, 17), *range(20, 73), 80, 81) if one % 10 < 4
]
MOVING = [(43, "rising", 0.5, 10, 31, 1)]
DEMAND = [(80, 9), (81, 8)]
OF_OWN = RecommendationSettings(**PLAIN, k=2, repeat="own-row", max_per_category=2, filter="price < 5")


def world(spark, *, changed=(), events=EVENTS_BEFORE, similar=SIMILAR, products=PRODUCTS, moving=MOVING, demand=DEMAND):
    found = views(spark, events, similar, products, moving, demand)
    return replace(found, versions={**found.versions, **dict.fromkeys(changed, 9)})


def other(rows, *new):
    """The rows with these in the place of those with their ids."""
    ids = {row[:1] if rows is PRODUCTS else row[:2]: row for row in new}
    return [ids.pop(row[:1] if rows is PRODUCTS else row[:2], row) for row in rows]


@pytest.mark.parametrize(
    ("changed", "settings", "expected"),
    [
        (
            {
                # 1: a score of what did not make it into the list; 2: what is shown; 4: a trend, also of what did not;
                # 5: an event more; 6: an event fewer; 7: maybe what fills the list up.
                "similar": other(SIMILAR, (10, 13, 0.2)),
                "products": other(PRODUCTS, (21, None, "c.2", "another", 1.0)),
                "moving": [(43, "rising", 0.6, 10, 41, 1)],
                "events": [*EVENTS_BEFORE[:5], (5, 51, "view", 3), EVENTS_BEFORE[6]],
                "changed": ("similar_items", "products", "trends", "events"),
            },
            RecommendationSettings(**PLAIN, k=2),
            [1, 2, 4, 5, 6, 7],
        ),
        ({"demand": [(80, 8), (81, 9)], "changed": ("demand",)}, RecommendationSettings(**PLAIN, k=2), [7]),
        (
            {
                # 1: a category of which there may be so many; 2: the trend of one's own; 5: what is left out.
                "products": other(PRODUCTS, (13, None, "c.9", "brand", 1.0), (52, None, "c.5", "brand", 9.0)),
                "moving": [*MOVING, (20, "waning", -0.5, 31, 10, 1)],
                "changed": ("products", "trends"),
            },
            OF_OWN,
            [1, 2, 5, 7],
        ),
        ({}, OF_OWN, []),
    ],
    ids=["each layer", "demand", "own-row", "nothing"],
)
def test_those_are_found_whose_lists_may_differ(spark, changed, settings, expected):
    before, now = world(spark), world(spark, **changed)
    events = {*EVENTS_BEFORE} ^ {*changed.get("events", EVENTS_BEFORE)}
    touched = spark.createDataFrame([(user,) for user, *_ in events], "user_id long")
    lists, after = for_active_users(before, settings), for_active_users(now, settings)
    since = F.lit(datetime(2019, 11, 1))
    users = outdated_users(before, now, lists, touched, settings, active_since=since).collect()
    assert sorted(row.user_id for row in users) == expected
    others, versions = ~F.col("user_id").isin(expected), [f"{table.name}_version" for table in INPUTS]
    kept, made = (rows.where(others).drop(*versions).collect() for rows in (lists, after))
    assert sorted(map(repr, kept)) == sorted(map(repr, made))


def everything_again(lake, settings):
    return sorted(map(repr, for_active_users(pin_views(lake), settings).collect()))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(RecommendationSettings(), marks=pytest.mark.long),
        RecommendationSettings(k=3, repeat="own-row", max_per_category=2),
        pytest.param(
            RecommendationSettings(k=4, repeat="allow", filter="price < 2 and product_id <> 4", profile_items=2),
            marks=pytest.mark.long,
        ),
    ],
    ids=["plain", "own-row", "left out"],
)
def test_lists_kept_and_made_anew_are_those_of_a_full_run(small, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(serving, "_USERS_PER_EVENT", 0)
    bring_up_to_date(small, Settings(trends=TRENDS, recommendations=settings))
    newest = datetime(2019, 10, 21, 23, 59)
    bought = event(newest, "purchase", 9, 2, "s").replace(",b,", ",another,")
    deliver(small, tmp_path / "in", "more", [event(newest, "view", 7, 50, "new"), bought])
    # As it comes: the layers need not be up to date with one another, nor any event be new.
    assert refresh(small, settings, progress=quiet).users is not None
    assert contents(small, RECOMMENDATIONS) == everything_again(small, settings)
    update(small, SimilaritySettings(), progress=quiet)
    assert refresh(small, settings, progress=quiet).users is not None
    assert contents(small, RECOMMENDATIONS) == everything_again(small, settings)


def test_where_much_is_new_all_lists_are_made_anew(small, tmp_path):
    bring_up_to_date(small, Settings(trends=TRENDS))
    deliver(small, tmp_path / "in", "more", random_events(5, 40))
    assert refresh(small, RecommendationSettings(), progress=quiet).users is None


def test_a_new_day_or_other_settings_make_all_lists_anew(small, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "_USERS_PER_EVENT", 0)
    bring_up_to_date(small, Settings(trends=TRENDS))
    assert refresh(small, RecommendationSettings(k=3), progress=quiet).users is None
    deliver(small, tmp_path / "in", "more", [event(datetime(2019, 10, 23), "view", 7, 50, "new")])
    assert refresh(small, RecommendationSettings(k=3), progress=quiet).users is None
    deliver(small, tmp_path / "in", "same-day", [event(datetime(2019, 10, 23, 1), "view", 8, 50, "new")])
    assert refresh(small, RecommendationSettings(k=3), progress=quiet).users is not None
